"""Equinox models that do something of their own while they are trained: dropout, batch normalisation.

    training     out_i, state' = model(x_i, state, key_i)        i over a batch, one axis by name
    else         out = inference_mode(model)(x, state)           a function of x, with a costate

key     of each sample, for dropout         state   running statistics, which are no weights
"""

import abc
import inspect
from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, Key, PyTree


class AbstractNoisy(eqx.Module):
    """A model that draws random numbers or keeps a state while it is trained; called, it is in inference.
    `names`: its layers that do; `remedy`: how to state it without."""

    names: eqx.AbstractVar[tuple[str, ...]]
    state: eqx.AbstractVar[list[Array] | None]
    remedy: eqx.AbstractClassVar[str]

    @abc.abstractmethod
    def __call__(self, x: Any) -> Any:
        """The output of one sample in inference."""

    @abc.abstractmethod
    def train(self, inputs: PyTree[Array], state: Any, key: Key[Array, ""]) -> tuple[Any, Any]:
        """The outputs of a batch, every leaf `(n, ...)`, and the state after it."""

    @abc.abstractmethod
    def came_in(self) -> Any:
        """The model of the kind that came in."""


class Noisy(AbstractNoisy):
    """Such a model; called, it is in inference. `names`: its layers that need a key or a state."""

    model: eqx.Module
    state: list[Array] | None  # the leaves: equinox refuses a State that was used before
    pieces: list | None  # of which it was made, if a list came in
    names: tuple[str, ...] = eqx.field(static=True)
    axis: str | None = eqx.field(static=True)
    keyed: bool = eqx.field(static=True)
    form: Any = eqx.field(static=True)  # of the State

    remedy = "`eqx.nn.inference_mode(model)` has no noise."

    def __call__(self, x: Any) -> Any:
        return self._run(eqx.nn.inference_mode(self.model), x, self.state, None)[0]

    def train(self, inputs: PyTree[Array], state: Any, key: Key[Array, ""]) -> tuple[Any, Any]:
        """The outputs of a batch, every leaf `(n, ...)`, and the state after it."""
        keys = jax.random.split(key, len(jax.tree.leaves(inputs)[0]))
        one = lambda x, k: self._run(self.model, x, state, k)
        return jax.vmap(one, axis_name=self.axis, out_axes=(0, None))(inputs, keys)

    def _run(self, model: Any, x: Any, state: Any, key: Any) -> tuple[Any, Any]:
        word = {"key": key} if self.keyed else {}
        if state is None:
            return model(x, **word), None
        out, new = model(x, jax.tree.unflatten(self.form, state), **word)
        return out, jax.tree.leaves(new)

    def came_in(self) -> Any:
        """What came in: the model, with its state if it has one, or a list of pieces."""
        if self.pieces is not None:
            pairs = zip(self.pieces, self.model.layers, strict=True)
            return [new if isinstance(old, eqx.Module) else old for old, new in pairs]
        if self.state is None:
            return self.model
        return self.model, jax.tree.unflatten(self.form, self.state)


def noisy(model: Any, state: eqx.nn.State | None = None) -> Noisy | None:
    """A model, or a list of pieces, as a `Noisy` one; `None` if it needs neither key nor state.

    **Raises:** `ValueError` for a state that is missing, statistics over several axes, or a list with
    pieces that equinox does not call.
    """
    dropouts, norms = (
        _found(model, _drops),
        _found(model, lambda m: isinstance(m, eqx.nn.BatchNorm)),
    )
    states = _found(model, lambda m: isinstance(m, eqx.nn.StateIndex))
    if states and state is None:
        raise ValueError(
            f"ControlProblem: {_names(norms or [model])[0]} keeps a state; found none. Pass the pair "
            "(model, state) that `eqx.nn.make_with_state(Model)(...)` gives."
        )
    if not dropouts and state is None:
        return None
    pieces = model if isinstance(model, list) else None
    if pieces is not None:
        model = eqx.nn.Sequential([_layer(piece) for piece in pieces])
    axes = {axis for norm in norms for axis in _axes(norm.axis_name)}
    if len(axes) > 1:
        raise ValueError(
            f"ControlProblem: batch statistics must be over one axis; found {', '.join(sorted(axes))}. "
            "Give each BatchNorm the same `axis_name`."
        )
    names = _names([*dropouts, *norms]) or (type(model).__name__,)
    leaves, form = (None, None) if state is None else jax.tree.flatten(state)
    axis = next(iter(axes), None)
    keyed = _takes_key(model)
    return Noisy(model, leaves, pieces, names, axis, keyed, form)  # pyright: ignore[reportCallIssue]


def _drops(module: Any) -> bool:
    return isinstance(module, eqx.nn.Dropout) and not module.inference and module.p != 0


def _found(model: Any, is_one: Any) -> list[Any]:
    return [m for m in jax.tree.leaves(model, is_leaf=is_one) if is_one(m)]


def _names(modules: list[Any]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(type(m).__name__ for m in modules))


def _axes(name: Any) -> tuple:
    return tuple(name) if isinstance(name, (tuple, list)) else (name,)


def _takes_key(model: Any) -> bool:
    try:
        return "key" in inspect.signature(type(model).__call__).parameters
    except (TypeError, ValueError):
        return False


def _layer(piece: Any) -> Any:
    if isinstance(piece, eqx.Module) and callable(piece):
        return piece
    if callable(piece) and not isinstance(piece, eqx.Module):
        return eqx.nn.Lambda(piece)
    raise ValueError(
        f"ControlProblem: beside a Dropout a list holds equinox modules and functions; found a "
        f"{type(piece).__name__}. State the network as one eqx.Module."
    )

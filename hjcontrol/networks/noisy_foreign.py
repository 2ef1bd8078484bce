"""Flax and haiku models that draw random numbers or keep statistics while they are trained.

    training     out, state' = model(batch, state, key)      a whole batch, as these libraries call them
    else         out = model(x, state)                       of one sample, in inference

linen     `(module.apply, variables)`; `train`, `training`, `is_training`, `deterministic` or
          `use_running_average`, an argument of `__call__` or a field, says which of the two is meant
haiku     `(apply, params)` or `(apply, params, state)`; `rng=None` means inference
NNX       the module; `train()` and `eval()` say it, and random numbers come from its own streams
"""

import inspect
import sys
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, Key, PyTree

from hjcontrol.networks.noisy import AbstractNoisy

SWITCHES = {  # the value that means training
    "train": True,
    "training": True,
    "is_training": True,
    "deterministic": False,
    "use_running_average": False,
}


class NoisyLinen(AbstractNoisy):
    """A flax linen module with its parameters and its other collections."""

    params: PyTree
    state: list[Array] | None
    module: Any = eqx.field(static=True)
    apply: Callable[..., Any] = eqx.field(static=True)
    names: tuple[str, ...] = eqx.field(static=True)
    form: Any = eqx.field(static=True)

    remedy = "Its inference alone is `functools.partial(module.apply, train=False)`."

    def __call__(self, x: Any) -> Any:
        variables = {"params": self.params, **self._rest(self.state)}
        return single(lambda batch: called(self.module, False, variables, batch), x)

    def train(self, inputs: PyTree[Array], state: Any, key: Key[Array, ""]) -> tuple[Any, Any]:
        rest = self._rest(state)
        variables = {"params": self.params, **rest}
        out = called(self.module, True, variables, inputs, rngs={"dropout": key}, mutable=[*rest])
        return (out[0], jax.tree.leaves(dict(out[1]))) if rest else (out[0], None)

    def came_in(self) -> Any:
        return self.apply, {"params": self.params, **self._rest(self.state)}

    def _rest(self, state: Any) -> dict:
        return {} if self.form is None else jax.tree.unflatten(self.form, state)


class NoisyHaiku(AbstractNoisy):
    """A haiku function with its parameters, and its state if it has one."""

    params: PyTree
    state: list[Array] | None
    apply: Callable[..., Any] = eqx.field(static=True)
    form: Any = eqx.field(static=True)
    names: tuple[str, ...] = eqx.field(static=True)

    remedy = "With `rng=None` it has no noise."

    def __call__(self, x: Any) -> Any:
        return single(lambda batch: self._run(batch, self.state, None)[0], x)

    def train(self, inputs: PyTree[Array], state: Any, key: Key[Array, ""]) -> tuple[Any, Any]:
        return self._run(inputs, state, key)

    def came_in(self) -> Any:
        if self.form is None:
            return self.apply, self.params
        return self.apply, self.params, jax.tree.unflatten(self.form, self.state)

    def _run(self, x: Any, state: Any, key: Any) -> tuple[Any, Any]:
        if self.form is None:
            return self.apply(self.params, key, x), None
        out, new = self.apply(self.params, jax.tree.unflatten(self.form, state), key, x)
        return out, jax.tree.leaves(new)


class NoisyNNX(AbstractNoisy):
    """A flax NNX module: its parameters, the rest of its state, its graph when trained and when still."""

    params: PyTree
    state: list[Array] | None
    form: Any = eqx.field(static=True)
    graph: Any = eqx.field(static=True)
    still: Any = eqx.field(static=True)
    names: tuple[str, ...] = eqx.field(static=True)

    remedy = "After `model.eval()` it has no noise."

    def __init__(self, module: Any, names: tuple[str, ...]):
        nnx = sys.modules["flax.nnx"]
        still = nnx.clone(module)
        still.eval()
        self.still, self.names = nnx.split(still, nnx.Param, ...)[0], names
        self.graph, self.params, rest = nnx.split(module, nnx.Param, ...)
        self.state, self.form = jax.tree.flatten(rest)

    def __call__(self, x: Any) -> Any:
        return single(self._module(self.still, self.state), x)

    def train(self, inputs: PyTree[Array], state: Any, key: Key[Array, ""]) -> tuple[Any, Any]:
        del key  # it has streams of its own
        nnx = sys.modules["flax.nnx"]
        module = self._module(self.graph, state)
        out = module(inputs)
        return out, jax.tree.leaves(nnx.split(module, nnx.Param, ...)[2])

    def came_in(self) -> Any:
        return self._module(self.graph, self.state)

    def _module(self, graph: Any, state: Any) -> Any:
        rest = jax.tree.unflatten(self.form, state)
        return sys.modules["flax.nnx"].merge(graph, self.params, rest)


def single(call: Callable[[Any], Any], x: Any) -> Any:
    """What a function gives for one sample: called with it, or with a batch of one where it takes only
    batches (it flattens all axes but the first, for one)."""
    first = lambda tree: jax.tree.map(lambda a: a[0], tree)
    front = lambda tree: jax.tree.map(lambda a: a[None], tree)
    try:
        jax.eval_shape(call, x)
    except Exception as alone:
        try:
            jax.eval_shape(lambda x: first(call(front(x))), x)
        except Exception:
            raise alone from None
        return first(call(front(x)))
    return call(x)


def noisy_linen(apply: Callable[..., Any], variables: Any, one: Any) -> NoisyLinen | None:
    """A linen module as a noisy one; `None` for one that needs no key and changes no collection. `one`: a
    sample, as a shape.

    **Raises:** `ValueError` for a module with noise that nothing turns off.
    """
    module, linen = getattr(apply, "__self__", None), sys.modules.get("flax.linen")
    plain = isinstance(variables, dict) and "params" in variables
    if linen is None or not isinstance(module, linen.Module) or not plain:
        return None
    rest = {name: part for name, part in variables.items() if name != "params"}
    batch = jax.tree.map(lambda a: jax.ShapeDtypeStruct((2, *a.shape), a.dtype), one)
    run = lambda **more: _failure(lambda v, x: called(module, True, v, x, **more), variables, batch)
    draws = run(mutable=[*rest])
    keyed = type(draws).__name__ == "InvalidRngError"
    changes = type(run(rngs={"dropout": jax.random.key(0)})).__name__ == "ModifyScopeVariableError"
    if not keyed and not changes:
        return None
    drawing = (str(draws).split()[0],) if keyed else ()
    keeping = tuple(dict.fromkeys(k for part in rest.values() for k in part)) if changes else ()
    if _switch(module) is None:
        raise ValueError(
            f"ControlProblem: {', '.join((*drawing, *keeping))} is in training mode, and "
            f"{type(module).__name__} has no argument that ends it. Give its `__call__` one of "
            f"{', '.join(SWITCHES)}."
        )
    leaves, form = jax.tree.flatten(rest) if rest else (None, None)
    parts = (variables["params"], leaves, module, apply, (*drawing, *keeping), form)
    return NoisyLinen(*parts)  # pyright: ignore[reportCallIssue]


def noisy_haiku(apply: Callable[..., Any], params: Any, state: Any, one: Any) -> NoisyHaiku | None:
    """A haiku function as a noisy one; `None` for one that makes nothing of its key and has no state.

    **Raises:** `ValueError` for a function that draws random numbers in inference too.
    """
    batch = jax.tree.map(lambda a: jax.ShapeDtypeStruct((2, *a.shape), a.dtype), one)
    leaves, form = (None, None) if state is None else jax.tree.flatten(state)
    parts = (params, leaves, apply, form, ("its function",))
    model = NoisyHaiku(*parts)  # pyright: ignore[reportCallIssue]
    shown = jax.eval_shape(lambda: jax.random.key(0))
    try:
        jaxpr = jax.make_jaxpr(lambda k, x: model.train(x, leaves, k))(shown, batch).jaxpr
    except Exception:  # it does not run on these samples: the chain says why
        return None
    if state is None and not any(v is jaxpr.invars[0] for e in jaxpr.eqns for v in e.invars):
        return None
    failure = _failure(model, one)
    if failure is not None:
        raise ValueError(
            "ControlProblem: `apply` draws random numbers, and with `rng=None`, which means inference, "
            f"it fails: {str(failure).splitlines()[0]} Pass a function (params, rng, x) that hands "
            "`is_training=rng is not None` to the network."
        )
    return model


def called(module: Any, training: bool, variables: Any, x: Any, **more: Any) -> Any:
    """A linen module on a batch, or on a sample, in training or in inference."""
    name = _switch(module)
    word = {} if name is None else {name: SWITCHES[name] is training}
    if name in getattr(module, "__dataclass_fields__", {}):
        return module.clone(**word).apply(variables, x, **more)
    return module.apply(variables, x, **word, **more)


def _switch(module: Any) -> str | None:
    """The argument, or the field, that says whether a linen module is trained."""
    known = {*inspect.signature(type(module).__call__).parameters, *module.__dataclass_fields__}
    return next((name for name in SWITCHES if name in known), None)


def _failure(call: Callable[..., Any], *shapes: Any) -> Exception | None:
    """What a call on these shapes raises; `None` if nothing."""
    try:
        jax.eval_shape(call, *shapes)
    except Exception as error:
        return error
    return None

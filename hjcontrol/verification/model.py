"""A bare model with `inputs=` and `cost=` as a function to verify.

    J(model) = (1/n) sum_i cost(model(x_i), y_i)

An equinox module, a flax NNX module, or a function of one sample. Its floating arrays are differentiated.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from hjcontrol.networks.model import is_nnx, read


def as_function(
    fn: Any, args: tuple[Any, ...], inputs: Any, targets: Any, cost: Any, argnums: Any
) -> tuple[Callable, tuple[Any, ...], Any]:
    """A function, its arguments, and which are differentiated (`None`: all that are floating).

    **Raises:** `TypeError` for what is no function; `ValueError` for `inputs` without `cost` or with
    arguments beside them.
    """
    if isinstance(fn, type):
        raise TypeError(f"verify: an instance is needed; found the class {fn.__name__}.")
    if not callable(fn):
        raise TypeError(
            "verify: a function with its arguments, a ControlProblem with weights, a Solution, a list of "
            f"stages or a model is needed; found {type(fn).__name__}."
        )
    if inputs is None and cost is None and targets is None:
        if not args and not isinstance(fn, eqx.Module):
            raise ValueError(
                "verify: `fn` is verified at its arguments; found none. Pass them behind it, "
                "`hj.verify(loss, params, x)`, or `inputs=` and `cost=` for a model."
            )
        return fn, args, argnums
    if inputs is None or cost is None:
        missing = "inputs" if inputs is None else "cost"
        raise ValueError(f"verify: a model needs `inputs=` and `cost=`; `{missing}` is missing.")
    if args:
        raise ValueError(
            f"verify: a model is called on `inputs`; found {len(args)} more arguments. Write a function "
            "of all of them instead."
        )
    if argnums is not None:
        raise TypeError(
            "verify: `argnums` says nothing of a model: its floating arrays are differentiated."
        )
    model, call = _called(fn)
    if not jax.tree.leaves(model):
        return _Mean(call, cost), (model, jax.tree.map(jnp.asarray, inputs), targets), (0, 1)
    return _Mean(call, cost), (model, jax.tree.map(jnp.asarray, inputs), targets), (0,)


class _Mean:
    """`(model, x, y) -> mean cost`. Equal if made of equal parts, so that nothing is traced twice."""

    def __init__(self, call: Callable, cost: Callable):
        self.call, self.cost = call, cost
        self.__name__ = "mean_cost"

    def __call__(self, model: Any, inputs: Any, targets: Any) -> Any:
        def one(x: Any, y: Any) -> Any:
            out = self.call(model, x)
            return self.cost(out) if targets is None else self.cost(out, y)

        if targets is None:
            return jnp.mean(jax.vmap(lambda x: one(x, None))(inputs))
        return jnp.mean(jax.vmap(one)(inputs, targets))

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, _Mean) and (self.call, self.cost) == (other.call, other.cost)

    def __hash__(self) -> int:
        return hash((self.call, self.cost))


def _call(model: Any, x: Any) -> Any:
    return model(x)


def _called(fn: Any) -> tuple[Any, Callable]:
    """What of a model is data, and how it is called."""
    module = read(fn) if is_nnx(fn) else fn
    return (module, _call) if isinstance(module, eqx.Module) else ((), _Bare(fn))


class _Bare:
    def __init__(self, fn: Callable):
        self.fn = fn

    def __call__(self, model: Any, x: Any) -> Any:
        del model
        return self.fn(x)

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, _Bare) and self.fn == other.fn

    def __hash__(self) -> int:
        return hash(self.fn)

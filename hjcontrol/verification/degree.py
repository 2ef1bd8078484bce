r"""Of what degree is a program, as a polynomial in its arguments? Read off its jaxpr.

    deg(a + b) = max     deg(a b) = sum     deg(a^n) = n deg     deg(f(a)) = infinite, a not constant

An upper bound that is proven, not measured: cancellation is not seen, and what the reading does not know
counts as infinite. Degree two or less means that the second derivative is one constant matrix.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, JaxprEqn
from jaxtyping import PyTree

from hjcontrol._ground.jaxprs import called_jaxpr, replay, scan_counts

_LINEAR = frozenset(
    {
        "neg",
        "reshape",
        "transpose",
        "broadcast_in_dim",
        "reduce_sum",
        "squeeze",
        "expand_dims",
        "slice",
    }
    | {
        "rev",
        "copy",
        "add",
        "sub",
        "add_any",
        "concatenate",
        "pad",
        "cumsum",
        "convert_element_type",
    }
)
_INDEXED = frozenset({"gather", "dynamic_slice", "select_n"})  # linear, if what chooses is constant
_BILINEAR = frozenset({"mul", "dot_general"})


class _Degree(float):
    """A degree, told from a constant of the program."""


def degree(function: Callable[[PyTree], Any], at: PyTree) -> float:
    """Largest degree of any output of `function`, as a polynomial in all leaves of `at`; `inf` if it is
    none, or not known to be one."""
    closed = jax.make_jaxpr(function)(at)
    return max(degrees(closed, [1.0] * len(jax.tree.leaves(at))), default=0.0)


def degrees(closed: ClosedJaxpr, inputs: list[float]) -> list[float]:
    """The degree of every output, from those of the inputs: 1 of an argument, 0 of a constant."""

    def rule(eqn: JaxprEqn, args: list[Any]) -> list[_Degree]:
        return [_Degree(d) for d in _rule(eqn, [_of(a) for a in args])]

    return [_of(a) for a in replay(closed, [_Degree(d) for d in inputs], rule)]


def _of(value: Any) -> float:
    return float(value) if isinstance(value, _Degree) else 0.0


def _rule(eqn: JaxprEqn, args: list[float]) -> list[float]:
    name, count = eqn.primitive.name, len(eqn.outvars)
    if not any(args):
        return [0.0] * count
    inner = called_jaxpr(eqn)
    if inner is not None and len(inner.jaxpr.invars) == len(args):
        return degrees(inner, args)
    if name == "scan":
        return _scan(eqn, args)
    if name == "convert_element_type" and not jnp.issubdtype(eqn.params["new_dtype"], jnp.inexact):
        return [math.inf]
    if name in _LINEAR:
        return [max(args)] * count
    if name in _INDEXED:
        chooses = args[0] if name == "select_n" else max(args[1:])
        return [math.inf if chooses else max(args)] * count
    if name in _BILINEAR:
        return [sum(args)] * count
    if name == "div" and not args[1]:
        return [args[0]]
    if name == "square":
        return [2 * args[0]]
    if name == "integer_pow" and eqn.params["y"] >= 0:
        return [eqn.params["y"] * args[0]]
    return [math.inf] * count


def _scan(eqn: JaxprEqn, args: list[float]) -> list[float]:
    """Carried degrees are raised until they stay; those that do not stay are infinite."""
    consts, carried = scan_counts(eqn)
    fixed, state, rest = args[:consts], args[consts : consts + carried], args[consts + carried :]
    for _ in range(carried + 2):
        out = degrees(eqn.params["jaxpr"], fixed + state + rest)
        raised = [max(a, b) for a, b in zip(state, out[:carried], strict=True)]
        if raised == state:
            return out
        state = raised
    return [math.inf] * len(eqn.outvars)

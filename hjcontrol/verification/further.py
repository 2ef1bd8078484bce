r"""Loops run on: an implicit rule is the derivative of the iteration only once it has converged.

    gap(k) = | <r, J v> - <G r, v> |,    k = 0, 8, 64, 512 sweeps after each `while` has ended

Both the rule's program (its adjoint solve is a loop as well) and the primal's derivative run on: run on
the primal alone and the two stand at different points. A sweep that gives a value that is not finite is
not taken.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, JaxprEqn

from hjcontrol._ground.jaxprs import bind, descend, equations, replay, while_parts
from hjcontrol.verification.arithmetic import is_float

SWEEPS = (0, 8, 64, 512)


def holds_loop(closed: ClosedJaxpr) -> bool:
    """Whether a program holds a loop without a fixed length."""
    return any(eqn.primitive.name == "while" for eqn in equations(closed.jaxpr))


def run_on(closed: ClosedJaxpr) -> Callable[..., list[Any]]:
    """`program(sweeps, *args)`: the program with each outermost `while` run on."""

    def program(sweeps: Any, *args: Any) -> list[Any]:
        def rule(eqn: JaxprEqn, inputs: list[Any]) -> Sequence[Any]:
            if eqn.primitive.name == "while":
                return _further(eqn, inputs, sweeps)
            found = descend(eqn, inputs, rule)
            return bind(eqn, inputs) if found is None else found

        return replay(closed, args, rule)

    return program


def _further(eqn: JaxprEqn, inputs: Sequence[Any], sweeps: Any) -> Sequence[Any]:
    going, once, carry = while_parts(eqn, inputs, lambda e, i: bind(e, i))
    carry = jax.lax.while_loop(going, once, carry)

    def again(_: Any, carry: list[Any]) -> list[Any]:
        new = once(carry)
        sound = functools.reduce(
            jnp.logical_and,
            [jnp.all(jnp.isfinite(a)) for a in new if is_float(a)],
            jnp.asarray(True),
        )
        return jax.lax.cond(sound, lambda: new, lambda: carry)

    return jax.lax.fori_loop(0, sweeps, again, carry)

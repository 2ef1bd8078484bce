"""Loops without a fixed length, restated as scans of the length that they ran at a point.

Reverse mode of a `while` does not exist, and forward mode gives one number a direction, in which one
element among thousands is lost. A scan as long as the loop ran has the same values and both modes.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, JaxprEqn

from hjcontrol._ground.jaxprs import bind, descend, equations, replay, while_parts

BYTES = 2**28  # of what reverse mode keeps of all steps
Lengths = tuple[int, ...]  # one a `while`, in the order of `equations`


def lengths(closed: ClosedJaxpr, args: Sequence[Any]) -> Lengths | None:
    """The most steps that each `while` takes at `args`; `None` if they are too many to keep."""
    loops = _loops(closed)
    found = np.zeros(len(loops), int)

    def note(i: int, steps: Any) -> None:
        found[i] = max(found[i], int(np.max(steps)))

    def rule(eqn: JaxprEqn, inputs: list[Any]) -> Sequence[Any]:
        if eqn.primitive.name != "while":
            again = descend(eqn, inputs, rule)
            return bind(eqn, inputs) if again is None else again
        going, once, carry = while_parts(eqn, inputs, rule)
        steps, carry = jax.lax.while_loop(
            lambda c: going(c[1]), lambda c: (c[0] + 1, once(c[1])), (jnp.zeros((), int), carry)
        )
        jax.debug.callback(lambda steps: note(loops.index(id(eqn)), steps), steps)
        return carry

    jax.block_until_ready(jax.jit(lambda *a: replay(closed, a, rule))(*args))
    jax.effects_barrier()
    kept = [
        n * sum(v.aval.size * v.aval.dtype.itemsize for v in eqn.outvars)
        for n, eqn in zip(found, _whiles(closed), strict=True)
    ]
    return tuple(int(n) for n in found) if sum(kept) <= BYTES else None


def bounded(closed: ClosedJaxpr, steps: Lengths, args: Sequence[Any]) -> ClosedJaxpr:
    """The program with scans of these lengths for its `while` loops, traced at `args`."""
    loops = _loops(closed)

    def rule(eqn: JaxprEqn, inputs: list[Any]) -> Sequence[Any]:
        if eqn.primitive.name != "while":
            again = descend(eqn, inputs, rule)
            return bind(eqn, inputs) if again is None else again
        going, once, carry = while_parts(eqn, inputs, rule)
        turn = lambda c, _: (jax.lax.cond(going(c), once, lambda c: c, c), None)
        return jax.lax.scan(turn, carry, None, length=steps[loops.index(id(eqn))])[0]

    return jax.make_jaxpr(lambda *a: replay(closed, a, rule))(*args)


def _whiles(closed: ClosedJaxpr) -> list[JaxprEqn]:
    return [eqn for eqn in equations(closed.jaxpr) if eqn.primitive.name == "while"]


def _loops(closed: ClosedJaxpr) -> list[int]:
    return [id(eqn) for eqn in _whiles(closed)]

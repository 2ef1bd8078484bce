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
import numpy as np
from jax.extend.core import ClosedJaxpr, JaxprEqn

from hjcontrol._ground.jaxprs import bind, descend, equations, replay, while_parts
from hjcontrol.verification.arithmetic import is_float
from hjcontrol.verification.gaps import paired, relative, signal
from hjcontrol.verification.verdicts import CONSISTENT, REFUTED, UNTESTED, Outcome

SWEEPS = (0, 8, 64, 512)
CONVERGED = 1e-9
LOOSE = 1e-2  # a loop whose values do not move says no more than this


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


def converging(
    rule: ClosedJaxpr,
    pushed: ClosedJaxpr,
    primal: ClosedJaxpr,
    at: tuple,
    eps: float,
    k: int,
    users: bool,
) -> Outcome:
    """The outcome of argument `k` as the loops run on. `rule`: of `(ins, r)`; `pushed`: `J v`, of
    `(ins, v)`; `primal`: of the inputs; `at`: `(ins, r, v)`; `eps`: of the primal's arithmetic;
    `users`: whether the rule is the user's, not a library's."""
    ins, r, v = at
    further = [jax.jit(run_on(program)) for program in (rule, pushed, primal)]
    gaps, told_apart, moves, first = [], [], 0.0, None
    for sweeps in SWEEPS:
        try:
            by_rule = jax.device_get(further[0](sweeps, *jax.tree.leaves((ins, r))))
            forward = jax.device_get(further[1](sweeps, *jax.tree.leaves((ins, v))))
        except jax.errors.JaxRuntimeError:  # a guard of the loop's own: it bears no more sweeps
            break
        gaps.append(paired(r, forward, by_rule, v))
        told_apart.append(signal(r, forward, by_rule, v))
        now = [np.asarray(a) for a in further[2](sweeps, *ins) if is_float(a)]
        if first is not None:
            moves = max([moves, *(relative(a, b) for a, b in zip(now, first, strict=True))])
        first = now if first is None else first
    series = " ".join(f"{g:.0e}" for g in gaps)
    words = f"loops run on {', '.join(map(str, SWEEPS[: len(gaps)]))} sweeps: {series}"
    if not np.isfinite(gaps).any():
        words += ": no derivative of the primal is finite, so there is none to compare"
        return Outcome(UNTESTED, 0.0, words, k, series=tuple(gaps))
    least = eps * told_apart[0]  # a derivative that has died away agrees with any rule
    heard = (g for g, size in zip(gaps, told_apart, strict=True) if np.isfinite(g) and size > least)
    last = min(heard, default=np.inf)
    told = lambda verdict, more: Outcome(verdict, last, words + more, k, series=tuple(gaps))
    if last <= CONVERGED:
        return told(CONSISTENT, "")
    if moves <= 64 * eps and last <= LOOSE:
        return told(CONSISTENT, "; a smaller fault cannot be seen")
    if not users and moves > LOOSE and gaps[0] <= LOOSE:  # no fixed point: steps through time
        words += "; the loop has no limit, and a library's rule may follow another scheme than it"
        return Outcome(CONSISTENT, gaps[0], words, k, series=tuple(gaps))
    return told(REFUTED, ": the gap stays")

r"""Loops run on: an implicit rule is the derivative of the iteration only once it has converged.

    gap(k) = | <r, J v> - <G r, v> |,    k = 0, 8, 64, 512 sweeps after each loop has ended

loops    each `while`; if that is not enough, each iteration of fixed length: a `scan` of nothing, as
         of `fori_loop`. Its length is part of its definition, so its gap is that before it runs on.

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

from hjcontrol._ground.jaxprs import (
    bind,
    descend,
    equations,
    like,
    replay,
    scan_counts,
    while_parts,
)
from hjcontrol.verification.arithmetic import is_float
from hjcontrol.verification.gaps import UNITS, paired, relative, signal
from hjcontrol.verification.verdicts import CONSISTENT, REFUTED, UNTESTED, Outcome

SWEEPS = (0, 8, 64, 512)
CONVERGED = 1e-9
STEADY = 1e3  # of eps: at a fixed point a larger gap is no roundoff
LOOSE = 1e-2  # a loop whose values do not move says no more than this


def holds_loop(closed: ClosedJaxpr) -> bool:
    """Whether a program holds a loop without a fixed length."""
    return any(eqn.primitive.name == "while" for eqn in equations(closed.jaxpr))


def holds_iteration(closed: ClosedJaxpr) -> bool:
    """Whether a program holds an iteration of fixed length."""
    return any(map(_iterates, equations(closed.jaxpr)))


def _iterates(eqn: JaxprEqn) -> bool:
    if eqn.primitive.name != "scan":
        return False
    consts, carried = scan_counts(eqn)
    return (consts + carried, carried) == (len(eqn.invars), len(eqn.outvars))


def run_on(
    closed: ClosedJaxpr, fixed: bool = False, nudge: float = 0.0
) -> Callable[..., list[Any]]:
    """`program(sweeps, *args)`: the program with each outermost `while` run on; `fixed`: also each
    iteration of fixed length; `nudge`: how far a loop's result is moved before it runs on, relative."""

    def program(sweeps: Any, *args: Any) -> list[Any]:
        def rule(eqn: JaxprEqn, inputs: list[Any]) -> Sequence[Any]:
            if eqn.primitive.name == "while" or (fixed and _iterates(eqn)):
                return _further(eqn, inputs, sweeps, nudge)
            found = descend(eqn, inputs, rule)
            return bind(eqn, inputs) if found is None else found

        return replay(closed, args, rule)

    return program


def _further(eqn: JaxprEqn, inputs: Sequence[Any], sweeps: Any, nudge: float) -> Sequence[Any]:
    if eqn.primitive.name == "while":
        carry = jax.lax.while_loop(*while_parts(eqn, inputs, bind))
        _, onward, _ = while_parts(eqn, inputs, bind, ended=False)
    else:
        carry, consts = bind(eqn, inputs), inputs[: scan_counts(eqn)[0]]
        onward = lambda carry: like(replay(eqn.params["jaxpr"], [*consts, *carry], bind), carry)

    def again(_: Any, carry: list[Any]) -> list[Any]:
        new = onward(carry)
        sound = functools.reduce(
            jnp.logical_and,
            [jnp.all(jnp.isfinite(a)) for a in new if is_float(a)],
            jnp.asarray(True),
        )
        return jax.lax.cond(sound, lambda: new, lambda: carry)

    if nudge:
        moved = lambda a: a + (nudge * jnp.max(jnp.abs(a), initial=0.0)).astype(a.dtype)
        carry = [moved(a) if is_float(a) else a for a in carry]
    return jax.lax.fori_loop(0, sweeps, again, carry)


class Loops:
    """A place's programs run on, each compiled once. `rule`: of `(ins, r)`; `pushed`: `J v`, of
    `(ins, v)`; `primal`: of the inputs."""

    def __init__(self, rule: ClosedJaxpr, pushed: ClosedJaxpr, primal: ClosedJaxpr):
        self.rule, self.pushed, self.primal = rule, pushed, primal
        self._programs: dict[Any, Callable] = {}

    def __call__(
        self, closed: ClosedJaxpr, sweeps: int, args: Any, fixed: bool = False, nudge: float = 0.0
    ) -> Any:
        key = id(closed), fixed, nudge
        if key not in self._programs:
            self._programs[key] = jax.jit(run_on(closed, fixed, nudge))
        return jax.device_get(self._programs[key](sweeps, *jax.tree.leaves(args)))


def returning(loops: Loops, ins: Sequence[Any], eps: float) -> float:
    """The share that is left of a small move of a loop's result once it has run on: small at a fixed
    point that attracts, 1 where the loop is at an end and does nothing more, infinite if unknown."""
    values = lambda sweeps, nudge: [
        np.asarray(a) for a in loops(loops.primal, sweeps, ins, nudge=nudge) if is_float(a)
    ]
    try:
        base = values(SWEEPS[-1], 0.0)
        apart = [
            max(map(relative, values(sweeps, eps**0.4), base), default=0.0)
            for sweeps in (0, SWEEPS[-1])
        ]
    except jax.errors.JaxRuntimeError:  # a guard of the loop's own
        return np.inf
    return apart[1] / apart[0] if apart[0] > UNITS * eps else np.inf


def converging(
    loops: Loops, at: tuple, eps: float, k: int, users: bool, fixed: bool = False
) -> Outcome:
    """The outcome of argument `k` as the loops run on. `at`: `(ins, r, v)`; `eps`: of the primal's
    arithmetic; `users`: whether the rule is the user's, not a library's; `fixed`: as in `run_on`."""
    ins, r, v = at
    forward: Any = None
    gaps, told_apart, moves, first = [], [], 0.0, None
    for sweeps in SWEEPS:
        try:
            by_rule = loops(loops.rule, sweeps, (ins, r), fixed)
            forward = loops(loops.pushed, sweeps, (ins, v), fixed)
        except jax.errors.JaxRuntimeError:  # a guard of the loop's own: it bears no more sweeps
            break
        gaps.append(paired(r, forward, by_rule, v))
        told_apart.append(signal(r, forward, by_rule, v))
        now = [np.asarray(a) for a in loops(loops.primal, sweeps, ins, fixed) if is_float(a)]
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
    if fixed:
        limit = last <= min(CONVERGED, gaps[0] / 64) and gaps[0] <= LOOSE
        words += "; the loop has a fixed length, and the rule is that of its limit" if limit else ""
        verdict = CONSISTENT if limit else REFUTED
        return Outcome(verdict, gaps[0], words, k, series=tuple(gaps))
    if last <= max(CONVERGED, UNITS * eps):
        return told(CONSISTENT, "")
    if users and last <= LOOSE and _closes(loops, forward, at, last):
        return told(CONSISTENT, "; the rule's own iteration, of fixed length, is cut short")
    if moves <= 64 * eps and last <= LOOSE:
        left = returning(loops, ins, eps) if users and last > STEADY * eps else np.inf
        if last > UNITS * left * gaps[0]:
            return told(
                REFUTED, ": at a fixed point, to which it returns when moved, the gap stays"
            )
        return told(CONSISTENT, "; a smaller fault cannot be seen")
    if not users and gaps[0] <= LOOSE:  # steps through time, or a solver to a tolerance of its own
        limit = "has no limit" if moves > LOOSE else "comes no nearer to its limit"
        words += f"; the loop {limit}, and a library's rule may follow another scheme than it"
        return Outcome(CONSISTENT, gaps[0], words, k, series=tuple(gaps))
    return told(REFUTED, ": the gap stays")


def _closes(loops: Loops, forward: Any, at: tuple, gap: float) -> bool:
    """Whether the gap falls once iterations of fixed length, in the rule, run on: a truncated solve."""
    ins, r, v = at
    if not holds_iteration(loops.rule):
        return False
    by_rule = loops(loops.rule, SWEEPS[-1], (ins, r), fixed=True)
    return paired(r, forward, by_rule, v) <= gap / 64

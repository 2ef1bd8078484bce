r"""`stop_gradient`: what does it cut?

    harmless   <=>   max |p| <= 64 max |p(x (1 + eps u)) - p(x)|,   twice

A costate that is roundoff moves by about its size when the arguments move by one eps. JAX's own shifts
(`logsumexp`) are first compared with the costates around them, which costs nothing. Several cuts may
take what adds up to nothing (a shift of numerator and denominator): the gradient is the same without.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import JaxprEqn

from hjcontrol._ground.jaxprs import bind, descend, replay
from hjcontrol.verification.arithmetic import eps_of, hashed, is_float
from hjcontrol.verification.certificate import Row
from hjcontrol.verification.gaps import UNITS, relative
from hjcontrol.verification.inlining import WRITTEN
from hjcontrol.verification.places import Place
from hjcontrol.verification.program import Measured, Program, contracted
from hjcontrol.verification.rule import REACH, SECOND, VISITS
from hjcontrol.verification.verdicts import DETACHED, EXACT, UNTESTED, Outcome

Tables = dict[int, np.ndarray]


def ended(
    place: Place, tables: Tables, measured: Measured, moved: Callable[[], list[Tables]]
) -> Outcome:
    """The outcome of a `stop_gradient`. `moved()`: the tables again, the arguments moved by one eps."""
    table = tables[place.index]
    reach = float(table[..., REACH].max(initial=0.0))
    if not table[..., VISITS].max(initial=0.0) > 0:
        return Outcome(UNTESTED, 0.0, "not run", 0)
    if not np.isfinite(reach):
        return Outcome(UNTESTED, 0.0, "the costate that arrives is not finite", 0)
    if reach == 0 and place.source.inside_jax:
        return Outcome(EXACT, 0.0, "the costate it cuts is zero", 0)
    if place.source.inside_jax and reach <= UNITS * _eps(place) * _around(place, tables, measured):
        return Outcome(EXACT, 0.0, "the costate it cuts is roundoff", 0)
    again = [t[place.index] for t in moved()]
    if reach == 0:
        if max(float(t[..., REACH].max(initial=0.0)) for t in again) > 0:
            return Outcome(EXACT, 0.0, "the costate it cuts is roundoff", 0)
        return Outcome(UNTESTED, 0.0, "no costate from this cost: what it cuts is not seen", 0)
    change = max(float(np.abs(t - table)[..., SECOND].max(initial=0.0)) for t in again)
    if reach <= UNITS * change:
        return Outcome(EXACT, 0.0, "the costate it cuts is roundoff", 0)
    return Outcome(DETACHED, 1.0, f"cuts a costate of size {reach:.0e}", 0)


def _eps(place: Place) -> float:
    return max((eps_of(v.aval.dtype) for v in place.eqn.outvars if is_float(v.aval)), default=0.0)


def _around(place: Place, tables: Tables, measured: Measured) -> float:
    """Largest costate of the program that is not this one; 0 if it is not finite."""
    others = [float(t[..., REACH].max(initial=0.0)) for i, t in tables.items() if i != place.index]
    slopes = [float(jnp.max(jnp.abs(g), initial=0.0)) for g in measured.gradient]
    scale = max([*others, *slopes], default=0.0)
    return scale if np.isfinite(scale) else 0.0


def moved_tables(program: Program, leaves: list[Any], seed: int, weights: Any) -> list[Tables]:
    """The tables at arguments moved by one eps, twice."""
    found = []
    for salt in (1, 2):

        def shaken(k: int, a: Any, salt: int = salt) -> Any:
            if not is_float(a):
                return a
            u = jnp.where(hashed(a.shape, salt, k) < 0.5, -1.0, 1.0)
            return a * (1 + eps_of(a.dtype) * u).astype(a.real.dtype)

        there = [shaken(k, a) for k, a in enumerate(leaves)]
        found.append(program.measure(there, seed, True, weights).tables)
    return found


def cancelled(rows: list[Row], program: Program, leaves: list[Any], gradient: Any) -> list[Row]:
    """The rows, those of several cuts excused where the gradient is the same without any of them."""
    cuts = [row for row in rows if row.kind == "stop_gradient" and row.verdict == DETACHED]
    if len(cuts) < 2:
        return rows
    at = [k for k, on in enumerate(program.active) if on]
    cost = lambda moved: contracted(
        replay(program.closed, program.merged(leaves, at, moved), _open)
    )
    try:
        open_gradient = jax.jit(jax.grad(cost))([leaves[k] for k in at])
    except (TypeError, ValueError, NotImplementedError):  # what they cut has no derivative
        return rows
    apart = max(
        relative(a, b) / eps_of(b.dtype) for a, b in zip(gradient, open_gradient, strict=True)
    )
    if not apart <= UNITS:
        return rows
    words = f"{len(cuts)} cuts, and the gradient is the same without them"
    excused = {"verdict": EXACT, "gap": 0.0, "reason": words}
    ours = lambda row: any(row is cut for cut in cuts)
    return [dataclasses.replace(row, **excused) if ours(row) else row for row in rows]


def _open(eqn: JaxprEqn, inputs: Sequence[Any]) -> Sequence[Any]:
    if eqn.primitive.name == "stop_gradient":
        return list(inputs)
    found = None if eqn.primitive.name in WRITTEN else descend(eqn, inputs, _open)
    return bind(eqn, inputs) if found is None else found

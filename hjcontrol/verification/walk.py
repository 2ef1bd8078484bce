"""Forward only: every place judged by random costates, without a backward pass of the program.

A rule is linear in its costate, so it can be tried where it stands. This reaches rules that no costate
can: in `while` loops, in the primal of other rules, in a program that reverse mode refuses. Rows of a
scan are stacked; in a `while` the worst iteration is carried.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, JaxprEqn, Literal

from hjcontrol._ground.jaxprs import bind, called_jaxpr, like, scan_counts, while_condition
from hjcontrol.verification.calling import called, pulled
from hjcontrol.verification.places import Place, Plan, Step
from hjcontrol.verification.rule import (
    FIELDS,
    GAP,
    GUILTY,
    SECOND,
    VISITS,
    Maps,
    Settings,
    finished,
    groups_of,
    measured,
    slot_dtype,
)
from hjcontrol.verification.slots import arrays

Notes = dict[int, Any]


class Walk:
    """`visit(place, ins, turn) -> (values, note)`; `room(place)`: a note of nothing;
    `merge(old, new)`: of a `while`."""

    def __init__(self, visit: Callable, room: Callable[[Place], Any], merge: Callable):
        self.visit, self._room, self.merge = visit, room, merge
        self._scans = 0  # around what is being traced

    def room(self, place: Place) -> Any:
        """A note of nothing, stacked as the scans from here to the place stack theirs."""
        inner = place.lengths[self._scans :]
        return jax.tree.map(lambda a: jnp.broadcast_to(a, (*inner, *a.shape)), self._room(place))

    def __call__(
        self, closed: ClosedJaxpr, plan: Plan, args: Sequence[Any], turn: Any = 0
    ) -> tuple[list[Any], Notes]:
        """Values of the program, and a note of each place."""
        jaxpr, notes = closed.jaxpr, {}
        env: dict[Any, Any] = dict(zip(jaxpr.constvars, closed.consts, strict=True))
        env.update(zip(jaxpr.invars, args, strict=True))
        read = lambda atom: atom.val if isinstance(atom, Literal) else env[atom]
        for eqn, step in zip(jaxpr.eqns, plan.steps, strict=True):
            outs, new = self._step(eqn, step, [read(v) for v in eqn.invars], turn)
            notes |= new
            env.update(zip(eqn.outvars, outs, strict=True))
        return [read(v) for v in jaxpr.outvars], notes

    def _step(
        self, eqn: JaxprEqn, step: Step, ins: list[Any], turn: Any
    ) -> tuple[Sequence[Any], Notes]:
        if step.place is not None:
            outs, note = self.visit(step.place, arrays(eqn, ins), turn)
            return outs, {step.place.index: note}
        if not step.plans:
            return bind(eqn, ins), {}
        name, plan = eqn.primitive.name, step.plans[0]
        if name == "scan":
            return self._scan(eqn, plan, ins, turn)
        if name == "while":
            return self._while(eqn, plan, ins)
        if name == "cond":
            return self._cond(eqn, step, ins, turn)
        return self(called_jaxpr(eqn), plan, ins, turn)

    def _scan(self, eqn: JaxprEqn, plan: Plan, ins: list[Any], turn: Any) -> Any:
        p = eqn.params
        split, carried = scan_counts(eqn)
        consts, carry, xs = ins[:split], ins[split : split + carried], ins[split + carried :]

        def body(carry: Any, x: Any) -> Any:
            self._scans += 1
            out, notes = self(p["jaxpr"], plan, [*consts, *carry, *x], turn)
            self._scans -= 1
            return like(out[:carried], carry), (out[carried:], notes)

        carry, (ys, notes) = jax.lax.scan(
            body, list(carry), xs, length=p["length"], reverse=p["reverse"], unroll=p["unroll"]
        )
        return [*carry, *ys], notes

    def _while(self, eqn: JaxprEqn, plan: Plan, ins: list[Any]) -> Any:
        p = eqn.params
        c, b = p["cond_nconsts"], p["body_nconsts"]
        for_body, start = ins[c : c + b], list(ins[c + b :])
        going, kept = while_condition(eqn, ins, bind)

        def once(state: Any) -> Any:
            carry, notes, turn = state
            out, new = self(p["body_jaxpr"], plan, [*for_body, *carry], turn)
            notes = {i: self.merge(note, new[i]) for i, note in notes.items()}
            return kept(like(out, carry), carry), notes, turn + 1

        room = {place.index: self.room(place) for place in plan.places}
        on, begun = lambda state: going(state[0]), (start, room, jnp.zeros((), jnp.int32))
        carry, notes, _ = jax.lax.while_loop(on, once, begun)
        return carry, notes

    def _cond(self, eqn: JaxprEqn, step: Step, ins: list[Any], turn: Any) -> Any:
        index, *operands = ins
        room = {place.index: self.room(place) for plan in step.plans for place in plan.places}

        def branch(body: ClosedJaxpr, plan: Plan) -> Callable:
            def taken(*a: Any) -> Any:
                outs, notes = self(body, plan, a, turn)
                return outs, room | notes

            return taken

        branches = map(branch, eqn.params["branches"], step.plans)
        return jax.lax.switch(index, list(branches), *operands)


def measuring(maps: dict[int, Maps], groups: dict[int, Any], seed: Any) -> Walk:
    """Notes are tables as the slots give them, the worst iteration's number in the last column."""

    def visit(place: Place, ins: list[Any], turn: Any) -> Any:
        own = maps[place.index]
        found = groups_of(ins, own.inputs)
        groups[place.index] = found
        if own.mode == "none" or not own.inputs:
            return called(place, ins), room(place)
        outs, pull = pulled(place, ins, own.inputs)
        rows = measured(
            own, found, ins, outs, None, None, lambda q: pull(list(q)), seed, Settings()
        )
        rows = jnp.where(jnp.arange(len(FIELDS)) == SECOND, turn, finished(rows, jnp))
        return outs, jnp.pad(rows, ((0, len(room(place)) - len(rows)), (0, 0)))

    def room(place: Place) -> Any:
        return jnp.zeros((max(len(maps[place.index].inputs), 1), len(FIELDS)), slot_dtype())

    return Walk(visit, room, _worse)


def _worse(old: Any, new: Any) -> Any:
    """The row with the larger gap; visits are added up."""
    size = lambda rows: jnp.where(jnp.isnan(rows[..., GAP]), jnp.inf, rows[..., GAP])
    guilty = (new[..., GUILTY] > old[..., GUILTY]) | (
        (size(new) > size(old)) & (new[..., GUILTY] == old[..., GUILTY])
    )
    take = (guilty | (old[..., VISITS] == 0)) & (new[..., VISITS] > 0)
    rows = jnp.where(take[..., None], new, old)
    together = (old + new)[..., VISITS, None]
    return jnp.where(jnp.arange(len(FIELDS)) == VISITS, together, rows)


def recording(index: int, room: Any, at: Any, number: Callable) -> Walk:
    """Notes are one place's inputs, in a `while` those of iteration `at`."""

    def visit(place: Place, ins: list[Any], turn: Any) -> Any:
        outs = called(place, ins)
        if place.index != index:
            return outs, ()
        return outs, (tuple(map(number, ins)), jnp.asarray(turn == at))

    def empty(place: Place) -> Any:
        return (room, jnp.asarray(False)) if place.index == index else ()

    def merge(old: Any, new: Any) -> Any:
        if not old:
            return old
        met = lambda b: jnp.reshape(new[1], new[1].shape + (1,) * (b.ndim - new[1].ndim))
        return jax.tree.map(lambda a, b: jnp.where(met(b), b, a), old, new)

    return Walk(visit, empty, merge)

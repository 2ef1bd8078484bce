r"""One engine for every program: measure all places where they run, try those in dispute, give rows.

    disputed   gap > 64 eps |T r|  in some argument at some iteration,  or values that differ,
               or a dtype below float32 inside, or no derivative of the primal to compare with

One gradient measures; a trial is compiled only for places in dispute, at up to `TRIED` of their
iterations, worst first.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hjcontrol._ground.progress import tell
from hjcontrol.verification.arithmetic import drawn, eps_of, is_float
from hjcontrol.verification.certificate import Row
from hjcontrol.verification.cuts import ended, moved_tables
from hjcontrol.verification.gaps import UNITS
from hjcontrol.verification.inlining import opened
from hjcontrol.verification.naming import jax_solves
from hjcontrol.verification.nearby import jumps
from hjcontrol.verification.places import Place, holds_rule, holds_users_rule
from hjcontrol.verification.program import Program
from hjcontrol.verification.purity import excused_if_impure
from hjcontrol.verification.rows import as_row
from hjcontrol.verification.rule import APART, GAP, GUILTY, LIVE, REACH, SECOND, VALUES, VISITS
from hjcontrol.verification.shards import wrong_inside
from hjcontrol.verification.slots import number, restored
from hjcontrol.verification.trial import Trial
from hjcontrol.verification.true_costate import lost, of_order_one, unusual
from hjcontrol.verification.verdicts import (
    CONSISTENT,
    EXACT,
    ORDER,
    REFUTED,
    UNDEFINED,
    UNTESTED,
    Outcome,
)
from hjcontrol.verification.walk import measuring as walking
from hjcontrol.verification.walk import recording

TRIED = 8  # iterations of a disputed place
SEED = 0
TWICE = {8: 1e-9, 4: 1e-4}  # relative gap of second derivatives, by bytes a number


class Examined(NamedTuple):
    """Rows, and one run's cost, gradient (flat) and tables."""

    rows: list[Row]
    measured: Any  # `Measured`; `None` forward only
    tables: dict[int, np.ndarray]


def examine(
    program: Program,
    leaves: list[Any],
    *,
    skip: Callable[[Place], bool] = lambda place: False,
    seed: int = SEED,
    backward: bool = True,
    random: bool = True,
    weights: Any = None,
) -> Examined:
    """Every place of a program judged at these arguments.

    **Arguments:** `backward`: with the costates that arrive, by one gradient; otherwise forward only,
    by random costates. `random`: with random costates beside them. `weights`: of the outputs, if they
    are not a scalar; `skip`: places that are measured and not judged.
    """
    engine = _Engine(program, leaves, seed, weights, backward)
    tell(f"measuring {len(program.places)} places")
    if backward:
        measured = program.measure(leaves, seed, random, weights)
        tables = measured.tables
    else:
        measured, tables = None, engine.walked()
    rows = [
        row
        for i, table in tables.items()
        if not skip(program.places[i])
        for row in engine.rows(i, table, tables, measured)
    ]
    return Examined(rows, measured, tables)


class _Engine:
    def __init__(
        self, program: Program, leaves: list[Any], seed: int, weights: Any, backward: bool
    ):
        self.program, self.leaves, self.seed = program, leaves, seed
        self._again: list[dict[int, np.ndarray]] = []
        self.weights, self.backward = weights, backward

    # ------------------------------------------------------------------ forward only

    def walked(self) -> dict[int, np.ndarray]:
        program = self.program

        def walk(leaves: list[Any], seed: Any) -> Any:
            notes = walking(program.maps, program.groups, seed)
            return notes(program.closed, program.plan, leaves)[1]

        run = program.compiled("walk", lambda: walk)
        found = jax.device_get(run(self.leaves, jnp.asarray(self.seed, jnp.int32)))
        return {i: np.asarray(t, float) for i, t in found.items()}

    def _recorded(
        self, place: Place, at: tuple[int, ...], turn: int
    ) -> tuple[list[Any], list[Any]]:
        avals = [v.aval for v in place.eqn.invars]
        room = tuple(
            jnp.zeros(a.shape, a.dtype) for a in (jax.eval_shape(number, v) for v in avals)
        )

        def walk(leaves: list[Any], turn: Any) -> Any:
            notes = recording(place.index, room, turn, number)
            return notes(self.program.closed, self.program.plan, leaves)[1][place.index]

        run = self.program.compiled(("walked", place.index), lambda: walk)
        ins, _ = jax.device_get(run(self.leaves, jnp.asarray(turn)))
        return [restored(a[at], aval) for a, aval in zip(ins, avals, strict=True)], []

    # ------------------------------------------------------------------ rows

    def rows(self, i: int, table: np.ndarray, tables: Any, measured: Any) -> list[Row]:
        place, flat = self.program.places[i], table.reshape(-1, *table.shape[-2:])
        untested = lambda why: [self._row(place, 0, Outcome(UNTESTED, 0.0, why, 0), flat, None)]
        if place.ends:
            if not self.backward:
                return []
            if flat.size and not place.branched and not flat[:, 0, VISITS].any():
                return []  # no costate arrives
            at = int(np.argmax(flat[:, 0, REACH])) if flat.size else None
            return [self._row(place, 0, ended(place, tables, measured, self._moved), flat, at)]
        if place.mutable:
            return untested(
                "the rule reads or writes a `jax.new_ref` from outside: it cannot be tried alone"
            )
        groups = self.program.groups.get(i, ())
        if not groups and (place.library or jax_solves(place.eqn)):
            return []
        if not groups:
            return untested(
                "only the matrix moves: verify the solve with a right-hand side that does"
            )
        visited = flat[:, 0, VISITS] > 0
        if not visited.any() and place.library and not holds_users_rule(place):
            return []  # a library's way out that this program does not take
        if not visited.any():
            empty = 0 in place.lengths
            return untested("the scan has no iteration" if empty else "not run: a branch not taken")
        return [
            self._row(place, k, o, flat, at) for k, o, at in self._outcomes(place, flat, groups)
        ]

    def _outcomes(
        self, place: Place, flat: np.ndarray, groups: Any
    ) -> list[tuple[int, Outcome, int | None]]:
        """Argument, outcome, iteration: one an argument; of a chain's stage one an iteration."""
        maps = self.program.maps[place.index]
        outcomes, where = {}, {}
        guilty = np.flatnonzero(flat[:, 0, GUILTY] > 0)
        if guilty.size:
            at = int(guilty[0])
            words = "inputs and costate are finite, values or the rule's result are not"
            return [(0, Outcome(UNDEFINED, np.inf, words, 0), at)]
        if not self.backward and place.library:
            return self._library(place, flat)
        disputed = self._disputed(place, flat, groups)
        for k in range(len(groups)):
            gaps, live = flat[:, k, GAP], flat[:, k, LIVE]
            inputs = [maps.inputs[i] for i in groups[k]]
            if not any(place.reads[i] for i in inputs) and not np.nanmax(gaps, initial=0.0):
                continue  # the primal does not read it, and the rule gives it nothing
            where[k] = int(np.argmax(np.where(np.isnan(gaps), -1, gaps)))
            if not live.any() and not np.nanmax(gaps, initial=0.0):
                if place.library and len(groups) > 1:
                    continue
                if place.marked and not holds_rule(place.eqn):
                    outcomes[k] = Outcome(EXACT, 0.0, "", k)  # every derivative is JAX's own
                    continue
                if self._trial(place).constant(k):
                    outcomes[k] = Outcome(EXACT, 0.0, "its values do not change with it", k)
                    continue
                words = "derivative zero here in every probe: other inputs, please"
                outcomes[k] = Outcome(UNTESTED, 0.0, words, k)
            else:
                words = "by forward mode, paired" if maps.mode == "forward" else ""
                outcomes[k] = Outcome(EXACT, float(np.nanmax(gaps, initial=0.0)), words, k)
            if self.program.order == 2 and self.backward:
                outcomes[k] = self._second(place, k, flat, outcomes[k])
        rows = [(k, o, where[k]) for k, o in outcomes.items()]
        if not disputed.size:
            return rows
        tried = self._try(place, disputed, flat, groups, set(outcomes))
        return [*(row for row in rows if row[0] not in {k for k, *_ in tried}), *tried]

    def _disputed(self, place: Place, flat: np.ndarray, groups: Any) -> np.ndarray:
        """Iterations in dispute, worst first."""
        trial = self._trial(place)
        limits = self._limits(place, groups)
        outs = [v.aval.dtype for v in place.eqn.outvars if is_float(v.aval)]
        value_limit = UNITS * min(eps_of(d) for d in outs)
        gaps = flat[:, : len(groups), GAP]
        over = (~(gaps <= limits)).any(axis=1) | (flat[:, 0, VALUES] > value_limit)
        over |= trial.maps.mode == "forward" and place.kind != "equation"  # pairing hides elements
        over |= (flat[:, : len(groups), APART] > self._shares(place, groups)).any(axis=1)
        low = trial.arithmetic is not None and eps_of(trial.arithmetic) > 1e-6
        far = unusual(flat[:, 0, REACH])
        over = (over | far | (low and place.kind != "equation")) & (flat[:, 0, VISITS] > 0)
        worst = np.where(np.isnan(gaps), np.inf, gaps / limits).max(axis=1)
        worst = np.where(np.isinf(worst), 1e300 + flat[:, 0, REACH], worst)
        chosen = np.flatnonzero(over)
        furthest = np.where(far, np.abs(np.log(np.where(far, flat[:, 0, REACH], 1.0))), 0.0)
        return chosen[np.lexsort((-furthest[chosen], -worst[chosen]))]

    def _limits(self, place: Place, groups: Any) -> np.ndarray:
        """Gaps above these are in dispute, by argument."""
        inputs = self.program.maps[place.index].inputs
        avals = [place.eqn.invars[inputs[g[0]]].aval for g in groups]
        return np.asarray([UNITS * eps_of(a.dtype) for a in avals])

    def _shares(self, place: Place, groups: Any) -> np.ndarray:
        """Shares of elements, far off beside their own size, that sums which cancel explain."""
        return np.sqrt(self._limits(place, groups) / UNITS)

    def _library(self, place: Place, flat: np.ndarray) -> list[tuple[int, Outcome, int | None]]:
        """Without a costate that arrives, a library's rule speaks only for the user's rules inside it."""
        if not holds_users_rule(place):
            return []
        at = (0,) * len(place.lengths)
        ins, _ = self._recorded(place, at, int(flat[0, 0, SECOND]))
        q = [
            drawn(v.aval.shape, v.aval.dtype, self.seed, j)
            for j, v in enumerate(place.eqn.outvars)
            if is_float(v.aval)
        ]
        rows = self._inside(place, ins, q)
        return [(0, Outcome.of_rows(rows, 0), 0)] if rows else []

    def _trial(self, place: Place) -> Trial:
        trials = self.program.trials
        if place.index not in trials:
            trials[place.index] = Trial(
                self.program.maps[place.index], self.program.groups[place.index]
            )
        return trials[place.index]

    def _try(
        self, place: Place, disputed: Any, flat: Any, groups: Any, known: set[int]
    ) -> list[tuple[int, Outcome, int | None]]:
        trial, chosen = self._trial(place), disputed[:TRIED]
        tell(f"trying {place.name} alone, of {place.source}")
        unravel = lambda t: tuple(int(j) for j in np.unravel_index(t, place.lengths))
        at = [unravel(t) if place.lengths else () for t in chosen]
        told: dict[int, list[tuple[Outcome, int]]] = {}
        records = self._records(place, at, chosen, flat)
        for t, (ins, p) in zip(chosen, records, strict=True):
            if not p:
                outs = [v.aval for v in place.eqn.outvars if is_float(v.aval)]
                p = [jnp.zeros(a.shape, a.dtype) for a in outs]
            r, factor = of_order_one(p)
            judged = trial.judge(ins, r, self.seed, lambda ins, r: self._inside(place, ins, r))
            judged = excused_if_impure(judged, trial, ins, r, self.seed)
            if trial.maps.mode == "forward" and len(judged) == 1:  # paired, all arguments at once
                over = ~(flat[t, : len(groups), GAP] <= self._limits(place, groups))
                ks = np.flatnonzero(over) if over.any() else range(len(groups))
                judged = [dataclasses.replace(judged[0], argument=int(k)) for k in ks]
            for o in judged:
                if not (place.library and o.argument not in known):
                    gap, apart = float(flat[t, o.argument, GAP]), float(flat[t, 0, VALUES])
                    doubted = o.beside(gap, apart)
                    kink = doubted is not o and apart <= o.room_of_values
                    if kink and gap <= 2 * jumps(trial, ins, r, self.seed)[o.argument]:
                        doubted = o  # a kink within roundoff
                    if o.verdict == EXACT and (doubted is not o or unusual(flat[t, 0, REACH])):
                        doubted = lost(trial, ins, p, r, factor, o) or doubted
                    o = doubted
                    told.setdefault(o.argument, []).append((o, int(t)))
        found: list[tuple[int, Outcome, int | None]] = []
        for k, outcomes in told.items():
            o, t = min(outcomes, key=lambda f: (ORDER.index(f[0].verdict), -f[0].gap))
            if len(disputed) > len(chosen) and o.verdict == EXACT and o.kink:
                words = f"{o.reason}; {len(chosen)} of {len(disputed)} iterations in dispute tried"
                left = float(np.max(flat[disputed[TRIED:], k, GAP]))  # not excused by the others
                o = dataclasses.replace(o, verdict=CONSISTENT, gap=left, reason=words)
            ins = records[list(chosen).index(t)][0]
            found += [(k, told_apart, t) for told_apart in self._told_apart(place, ins, o)]
            if not place.marked:
                continue
            told_too = lambda p: p.kink or p.verdict in (REFUTED, UNDEFINED, CONSISTENT)
            found += [(k, p, s) for p, s in outcomes if s != t and told_too(p)]
            if o.verdict == REFUTED:  # the stages in dispute that were not tried: the same rule
                limit = self._limits(place, groups)[k]
                rest = [int(s) for s in disputed[TRIED:] if flat[s, k, GAP] > limit]
                found += [(k, dataclasses.replace(o, gap=float(flat[s, k, GAP])), s) for s in rest]
        return found

    def _told_apart(self, place: Place, ins: Any, o: Outcome) -> list[Outcome]:
        """An outcome; of a refuted `shard_map`, one for each rule inside that is wrong."""
        if place.kind != "shard_map" or o.verdict != REFUTED:
            return [o]
        wrong = wrong_inside(place, ins, self.seed)
        return [dataclasses.replace(o, inner=(row,)) for row in wrong] or [o]

    def _records(self, place: Place, at: Any, chosen: Any, flat: Any) -> list[Any]:
        if self.backward:
            return self.program.record(place.index, self.leaves, at, self.weights)
        turns = [int(flat[t, 0, SECOND]) for t in chosen]
        return [self._recorded(place, a, turn) for a, turn in zip(at, turns, strict=True)]

    def _inside(self, place: Place, ins: list[Any], r: list[Any]) -> list[Row]:
        """Rows of the rules inside a place's primal, for this costate of its results."""
        inner = self.program.inner
        if place.index not in inner:
            settings = {"labels": place.arguments}
            body = opened(place.eqn)
            inner[place.index] = (
                Program(body, place.active, **settings),
                Program(body, place.active, whiles=True, **settings),
            )
        reverse, forward = inner[place.index]
        try:
            found = examine(reverse, ins, seed=self.seed, weights=r)
        except (ValueError, NotImplementedError):  # a loop of dynamic length: only forward
            found = examine(forward, ins, seed=self.seed, backward=False)
        # A library may meet NaN where it then looks away: what comes out of the place is finite.
        away = lambda row: row.verdict == UNDEFINED and row.source.library
        return [row for row in found.rows if not away(row)]

    def _second(self, place: Place, k: int, flat: np.ndarray, first: Outcome) -> Outcome:
        gaps = flat[:, k, SECOND]
        if np.isnan(gaps).any():
            return Outcome(UNTESTED, 0.0, "the rule itself cannot be differentiated", k)
        size = 8 if jax.config.jax_enable_x64 else 4
        if gaps.max(initial=0.0) > TWICE[size]:
            words = "second order: the derivative of the rule is not that of the derivative"
            return Outcome(REFUTED, float(gaps.max()), words, k)
        return first

    def _moved(self) -> list[dict[int, np.ndarray]]:
        if not self._again:
            self._again = moved_tables(self.program, self.leaves, self.seed, self.weights)
        return self._again

    def _row(self, place: Place, k: int, o: Outcome, flat: np.ndarray, at: int | None) -> Row:
        return as_row(self.program, place, k, o, flat, at, self.backward)

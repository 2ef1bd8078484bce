r"""One engine for every program: measure all places where they run, try those in dispute, give rows.

    disputed   gap > 64 eps |T r|  in some argument at some iteration,  or values that differ,
               or a dtype below float32 inside, or no derivative of the primal to compare with

One gradient measures; a trial is compiled only for places in dispute, at up to `TRIED` of their
iterations, worst first.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hjcontrol.verification.arithmetic import drawn, eps_of, hashed, is_float
from hjcontrol.verification.certificate import Row
from hjcontrol.verification.places import Place, holds_rule, holds_users_rule
from hjcontrol.verification.program import Measured, Program
from hjcontrol.verification.rule import GAP, GUILTY, LIVE, REACH, SECOND, VALUES, VISITS
from hjcontrol.verification.slots import _number, restored
from hjcontrol.verification.trial import UNITS, Trial, opened
from hjcontrol.verification.verdicts import (
    CONSISTENT,
    DETACHED,
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
    measured: Measured | None
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
    if backward:
        measured = program.measure(leaves, seed, random, weights)
        tables = {i: np.asarray(t) for i, t in jax.device_get(measured.tables).items()}
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

        run = program._program("walk", lambda: walk)
        found = jax.device_get(run(self.leaves, jnp.asarray(self.seed, jnp.int32)))
        return {i: np.asarray(t) for i, t in found.items()}

    def _recorded(
        self, place: Place, at: tuple[int, ...], turn: int
    ) -> tuple[list[Any], list[Any]]:
        avals = [v.aval for v in place.eqn.invars]
        room = tuple(
            jnp.zeros(a.shape, a.dtype) for a in (jax.eval_shape(_number, v) for v in avals)
        )

        def walk(leaves: list[Any], turn: Any) -> Any:
            notes = recording(place.index, room, turn, _number)
            return notes(self.program.closed, self.program.plan, leaves)[1][place.index]

        run = self.program._program(("walked", place.index), lambda: walk)
        ins, _ = jax.device_get(run(self.leaves, jnp.asarray(turn)))
        return [restored(a[at], aval) for a, aval in zip(ins, avals, strict=True)], []

    # ------------------------------------------------------------------ rows

    def rows(self, i: int, table: np.ndarray, tables: Any, measured: Any) -> list[Row]:
        place = self.program.places[i]
        if place.ends:
            return [self._ended(place, table, tables, measured)] if self.backward else []
        groups = self.program.groups.get(i, ())
        if not groups:
            return []
        flat = table.reshape(-1, *table.shape[-2:])
        visited = flat[:, 0, VISITS] > 0
        if not visited.any():
            why = (
                "the scan has no iteration" if 0 in place.lengths else "not run: a branch not taken"
            )
            return [self._row(place, 0, Outcome(UNTESTED, 0.0, why, 0), flat, None)]
        return [
            self._row(place, k, o, flat, at) for k, o, at in self._outcomes(place, flat, groups)
        ]

    def _outcomes(
        self, place: Place, flat: np.ndarray, groups: Any
    ) -> list[tuple[int, Outcome, int | None]]:
        """Argument, outcome, iteration: one an argument, of a chain's stages one an iteration in dispute."""
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
        maps = self.program.maps[place.index]
        limits = self._limits(place, groups)
        outs = [v.aval.dtype for v in place.eqn.outvars if is_float(v.aval)]
        value_limit = UNITS * min(eps_of(d) for d in outs)
        gaps = flat[:, : len(groups), GAP]
        over = (~(gaps <= limits)).any(axis=1) | (flat[:, 0, VALUES] > value_limit)
        low = trial.arithmetic is not None and eps_of(trial.arithmetic) > 1e-6
        over = (over | (low and place.kind != "equation")) & (flat[:, 0, VISITS] > 0)
        worst = np.where(np.isnan(gaps), np.inf, gaps / limits).max(axis=1)
        worst = np.where(np.isinf(worst), 1e300 + flat[:, 0, REACH], worst)
        chosen = np.flatnonzero(over)
        return chosen[np.argsort(-worst[chosen], kind="stable")]

    def _limits(self, place: Place, groups: Any) -> np.ndarray:
        """Gaps above these are in dispute, by argument."""
        inputs = self.program.maps[place.index].inputs
        avals = [place.eqn.invars[inputs[g[0]]].aval for g in groups]
        return np.asarray([UNITS * eps_of(a.dtype) for a in avals])

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
        unravel = lambda t: tuple(int(j) for j in np.unravel_index(t, place.lengths))
        at = [unravel(t) if place.lengths else () for t in chosen]
        told: dict[int, list[tuple[Outcome, int]]] = {}
        for t, (ins, p) in zip(chosen, self._records(place, at, chosen, flat), strict=True):
            if not p:
                outs = [v.aval for v in place.eqn.outvars if is_float(v.aval)]
                p = [jnp.zeros(a.shape, a.dtype) for a in outs]
            judged = trial.judge(ins, p, self.seed, lambda ins, r: self._inside(place, ins, r))
            if trial.maps.mode == "forward":  # one trial for all the arguments in dispute
                over = ~(flat[t, : len(groups), GAP] <= self._limits(place, groups))
                ks = np.flatnonzero(over) if over.any() else range(len(groups))
                judged = [dataclasses.replace(judged[0], argument=int(k)) for k in ks]
            for o in judged:
                if not (place.library and o.argument not in known):
                    told.setdefault(o.argument, []).append((o, int(t)))
        found: list[tuple[int, Outcome, int | None]] = []
        for k, outcomes in told.items():
            o, t = min(outcomes, key=lambda f: (ORDER.index(f[0].verdict), -f[0].gap))
            if len(disputed) > len(chosen) and o.verdict == EXACT and o.kink:
                words = f"{o.reason}; {len(chosen)} of {len(disputed)} iterations in dispute tried"
                o = dataclasses.replace(o, verdict=CONSISTENT, reason=words)
            found.append((k, o, t))
            if not place.marked:
                continue
            worse = [(k, p, s) for p, s in outcomes if s != t and p.verdict in (REFUTED, UNDEFINED)]
            found += worse
            if o.verdict == REFUTED:  # the stages in dispute that were not tried: the same rule
                limit = self._limits(place, groups)[k]
                rest = [int(s) for s in disputed[TRIED:] if flat[s, k, GAP] > limit]
                found += [(k, dataclasses.replace(o, gap=float(flat[s, k, GAP])), s) for s in rest]
        return found

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
            body = opened(place)
            inner[place.index] = (
                Program(body, place.active, **settings),
                Program(body, place.active, whiles=True, **settings),
            )
        reverse, forward = inner[place.index]
        try:
            found = examine(reverse, ins, seed=self.seed, weights=r)
        except Exception:  # a loop without a fixed length: only forward
            found = examine(forward, ins, seed=self.seed, backward=False)
        return found.rows

    def _second(self, place: Place, k: int, flat: np.ndarray, first: Outcome) -> Outcome:
        gaps = flat[:, k, SECOND]
        if np.isnan(gaps).any():
            return Outcome(UNTESTED, 0.0, "the rule itself cannot be differentiated", k)
        size = 8 if jax.config.jax_enable_x64 else 4
        if gaps.max(initial=0.0) > TWICE[size]:
            words = "second order: the derivative of the rule is not that of the derivative"
            return Outcome(REFUTED, float(gaps.max()), words, k)
        return first

    # ------------------------------------------------------------------ stop_gradient

    def _ended(self, place: Place, table: np.ndarray, tables: Any, measured: Any) -> Row:
        flat = table.reshape(-1, *table.shape[-2:])
        reach, visited = (
            float(flat[..., REACH].max(initial=0.0)),
            flat[..., VISITS].max(initial=0.0) > 0,
        )
        at = int(np.argmax(flat[:, 0, REACH])) if flat.size else None
        if not visited:
            return self._row(place, 0, Outcome(UNTESTED, 0.0, "not run", 0), flat, at)
        if not np.isfinite(reach):
            words = "the costate that arrives is not finite"
            return self._row(place, 0, Outcome(UNTESTED, 0.0, words, 0), flat, at)
        if self._roundoff(place, flat, reach, tables, measured):
            words = "the costate it cuts is roundoff" if reach else "the costate it cuts is zero"
            return self._row(place, 0, Outcome(EXACT, 0.0, words, 0), flat, at)
        words = f"cuts a costate of size {reach:.0e}"
        return self._row(place, 0, Outcome(DETACHED, 1.0, words, 0), flat, at)

    def _roundoff(
        self, place: Place, flat: np.ndarray, reach: float, tables: Any, measured: Any
    ) -> bool:
        """Whether a cut costate is no larger than 64 times its change when the arguments move by one
        eps. JAX's own shifts (`logsumexp`) are first compared with the costates around them."""
        if reach == 0:
            return True
        eps = max((eps_of(v.aval.dtype) for v in place.eqn.outvars), default=0.0)
        if place.source.inside_jax:
            others = [t[..., REACH].max(initial=0.0) for i, t in tables.items() if i != place.index]
            grads = [float(jnp.max(jnp.abs(g), initial=0.0)) for g in measured.gradient]
            scale = max([*others, *grads], default=0.0)
            if np.isfinite(scale) and reach <= UNITS * eps * scale:
                return True
        here = flat[..., SECOND]
        moves = [
            np.abs(t[place.index].reshape(flat.shape)[..., SECOND] - here) for t in self._moved()
        ]
        change = max(float(m.max(initial=0.0)) for m in moves)
        return reach <= UNITS * change

    def _moved(self) -> list[dict[int, np.ndarray]]:
        """The tables again, every floating argument moved by one eps, twice."""
        if not self._again:
            for salt in (1, 2):
                leaves = [
                    a
                    * (
                        1 + eps_of(a.dtype) * jnp.where(hashed(a.shape, salt, k) < 0.5, -1.0, 1.0)
                    ).astype(a.dtype)
                    if is_float(a)
                    else a
                    for k, a in enumerate(self.leaves)
                ]
                found = self.program.measure(leaves, self.seed, True, self.weights).tables
                self._again.append({i: np.asarray(t) for i, t in jax.device_get(found).items()})
        return self._again

    # ------------------------------------------------------------------ one row

    def _row(self, place: Place, k: int, o: Outcome, flat: np.ndarray, at: int | None) -> Row:
        groups = self.program.groups.get(place.index, ((0,),)) or ((0,),)
        maps = self.program.maps[place.index]
        position = maps.inputs[groups[k][0]] if maps.inputs and k < len(groups) else 0
        trial = self.program.trials.get(place.index)
        gaps = flat[:, k, GAP] if flat.size else np.zeros(0)
        iteration = None
        if place.lengths and at is not None and flat.size:
            iteration = tuple(int(j) for j in np.unravel_index(at, place.lengths))
        elif (
            not self.backward and flat.size and max(flat[0, 0, VISITS] - 1, flat[0, k, SECOND]) > 0
        ):
            iteration = (int(flat[0, k, SECOND]),)
        index = o.index
        shape = place.eqn.invars[position].aval.shape
        name = place.arguments[position] if position < len(place.arguments) else ""
        leaf = _leaf(o.inner) if o.verdict != EXACT else None
        if leaf is not None:  # a rule inside speaks: its own line, and where it sits
            return dataclasses.replace(
                leaf,
                reach=float(flat[:, 0, REACH].max(initial=0.0)) if self.backward else None,
                iteration=((iteration or ()) + (leaf.iteration or ())) or None,
                reason=leaf.reason
                if place.marked
                else f"{leaf.reason}; inside {place.name} at {place.source}",
                inner=tuple(o.inner),
                place=place.index,
                entered=position,
            )
        return Row(
            verdict=o.verdict,
            gap=o.gap,
            reach=float(flat[:, 0, REACH].max(initial=0.0)) if self.backward else None,
            live=None if place.ends or not flat.size else float(flat[:, k, LIVE].max(initial=0.0)),
            rule=place.name,
            kind=place.kind,
            source=place.source,
            iteration=iteration,
            argument=position,
            parameter=name,
            index=index,
            shape=tuple(shape),
            arithmetic=_dtype(trial, place),
            reason=o.reason,
            gaps=gaps.reshape(place.lengths) if flat.size else gaps,
            reaches=flat[:, 0, REACH].reshape(place.lengths) if flat.size else np.zeros(0),
            series=o.series,
            kink=o.kink,
            inner=tuple(o.inner),
            place=place.index,
        )


def _leaf(rows: Sequence[Row]) -> Row | None:
    """The innermost row of the worst."""
    if not rows:
        return None
    worst = min(rows, key=lambda r: (ORDER.index(r.verdict), -r.gap))
    return _leaf(worst.inner) or worst


def _dtype(trial: Trial | None, place: Place) -> str:
    found = trial.arithmetic if trial is not None else None
    if found is None:
        dtypes = [v.aval.dtype for v in (*place.eqn.invars, *place.eqn.outvars) if is_float(v.aval)]
        found = max(dtypes, key=eps_of, default=None)
    return "" if found is None else np.dtype(found).name

r"""A disputed place, tried on its own at the very point where the program ran it.

In order, until one explains the gap or it is refuted:

    noise        64 times what the roundoff of every equation changes, element by element
    formula      rule and derivative replayed in 64 bits, where a dtype is below float32 or the rule is
                 lower than its primal
    inside       rules inside the primal: the place is right up to them, and they are tried in turn
    loops        both run on past the end of every `while`
    slopes       one-sided, from values alone, at the 16 worst elements: kinks, programs without tangents
    differences  along random directions, where no derivative of the primal exists
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr

from hjcontrol._ground.jaxprs import bodies, equations
from hjcontrol.verification.arithmetic import drawn, eps_of, is_float, lowest, noisy
from hjcontrol.verification.authorship import users_rule
from hjcontrol.verification.bounded import Lengths, bounded, lengths
from hjcontrol.verification.calling import along, primal, pulled
from hjcontrol.verification.degree import degrees
from hjcontrol.verification.elements import Dispute, Spot, by_slopes
from hjcontrol.verification.formula import by_formula, in_double, is_low, other_values
from hjcontrol.verification.further import LOOSE, Loops, converging, holds_iteration, holds_loop
from hjcontrol.verification.gaps import UNITS, beyond, furthest, relative
from hjcontrol.verification.gaps import largest as largest_of
from hjcontrol.verification.inlining import opened, replay_plain, written
from hjcontrol.verification.joint import against
from hjcontrol.verification.places import holds_users_rule
from hjcontrol.verification.pushed import by_differences, by_forward_mode
from hjcontrol.verification.roundoff import SALTS, hidden_by, moves, noise_between, room_for, shaken
from hjcontrol.verification.rule import Maps, exponent, largest, random_costate, whole_numbers
from hjcontrol.verification.verdicts import (
    CONSISTENT,
    DETACHED,
    EXACT,
    REFUTED,
    ROUGH,
    UNTESTED,
    Outcome,
)

LENIENT, SINGLE = 1e-9, 1e-4
# Of eps: faults that roundoff may hide, from which on it is said, and decides; and no less than LEAST.
SAID, HIDDEN = 1e3, 1e4
LEAST = 1e-6, 1e-4
NEARER = 1e-6  # a rule that is not the user's may be that of the function its program approximates


@dataclasses.dataclass
class Sides:
    """One costate's two images, by argument: the rule's and the derivative's."""

    r: list[Any]
    ours: list[Any]
    theirs: list[Any] | None


class Trial:
    """A place's compiled programs, kept with the program that holds it."""

    def __init__(
        self, maps: Maps, groups: tuple[tuple[int, ...], ...], restated: ClosedJaxpr | None = None
    ):
        """`restated`: the primal with scans for its loops, the same at one point."""
        self.maps, self.groups, self.place = maps, groups, maps.place
        self.judged = maps.inputs
        avals = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in self.place.eqn.invars]
        self.closed = jax.make_jaxpr(lambda *ins: primal(self.place, ins))(*avals)
        self.looping = self.closed  # its loops as they are written
        self.closed = restated or self.closed
        self.arithmetic = lowest(self.closed)
        # Rules inside a shard_map are not told apart: it is one place.
        self.holds_own_rule = self.place.kind != "shard_map" and holds_users_rule(self.place)
        inside = [eqn for body in bodies(self.place.eqn) for eqn in equations(body)]
        self.users_inside = any(written(eqn) and users_rule(eqn) for eqn in inside)
        self.programs: dict[str, Callable] = {}
        self.told_lowest: list[Any] = []
        self.loops: Loops | None = None
        self.bounded: dict[Lengths, Trial] = {}  # restated, by the steps that its loops took
        self.at_point = jax.jit(self._at_point)
        self.again = jax.jit(self._again)

    # ------------------------------------------------------------------ maps

    def _x(self, ins: Sequence[Any]) -> list[Any]:
        return [ins[i] for i in self.judged]

    def rule(self, ins: Sequence[Any], r: Sequence[Any]) -> list[Any]:
        """`G(x) r`, of the judged inputs."""
        _, pull = pulled(self.place, ins, self.judged)
        return list(pull(self.full(r)))

    def lowest_of_rule(self, ins: Sequence[Any], r: Sequence[Any]) -> Any:
        """The lowest precision that the rule computes in; it is traced once to tell."""
        if not self.told_lowest:
            self.told_lowest.append(lowest(jax.make_jaxpr(self.rule)(ins, r)))
        return self.told_lowest[0]

    def transposed(self, closed: ClosedJaxpr, ins: Sequence[Any], r: Sequence[Any]) -> list[Any]:
        """`T(x) r`, of the judged inputs, for a replay of the primal."""
        function = along(lambda full: replay_plain(closed, full), ins, self.judged)
        _, pull = jax.vjp(function, *self._x(ins))
        return list(pull(self.full(r)))

    def constant(self, k: int) -> bool:
        """Whether the derivative in argument `k` is the same everywhere: the primal is linear in it."""
        own = {self.judged[i] for i in self.groups[k]}
        inputs = [float(i in own) for i in range(len(self.place.eqn.invars))]
        return max(degrees(self.closed, inputs), default=0.0) <= 1.0

    def full(self, r: Sequence[Any]) -> list[Any]:
        """Costates of the floating outputs, with the void ones of the others."""
        given, full = iter(r), []
        for v in self.place.eqn.outvars:
            zero = np.zeros(v.aval.shape, jax.dtypes.float0)
            full.append(next(given) if is_float(v.aval) else zero)
        return full

    def summed(self, parts: Sequence[Any]) -> list[Any]:
        """One array an argument."""
        return [sum((parts[i] for i in g[1:]), parts[g[0]]) for g in self.groups]

    # ------------------------------------------------------------------ at the point

    def _at_point(self, ins: Any, p: Any, seed: Any) -> Any:
        floats = lambda outs: [o for o in outs if is_float(o)]
        outs, _ = pulled(self.place, ins, self.judged)
        values = replay_plain(self.closed, ins)
        q = floats(random_costate(self.place, values, seed))
        scale, fit = exponent(largest(p))
        fit = fit & jnp.isfinite(largest(p))
        p = [jnp.where(fit, a * scale.astype(a.real.dtype), 0) for a in p]
        found: dict[str, Any] = {"p": p, "q": q}
        moved = [floats(noisy(self.closed, s)(*ins)) for s in (1, 2)]
        found["values"] = [
            (
                _largest(a - b),
                jnp.max(
                    jnp.stack([*(_largest(m[k] - b) for m in moved), eps_of(b.dtype) * _largest(b)])
                ),
                _largest(b),
            )
            for k, (a, b) in enumerate(zip(floats(outs), floats(values), strict=True))
        ]
        found["values"] += whole_numbers(self.place.told, outs, values, self.closed, ins)
        for name in ("p", "q"):
            r = found[name]
            ours, theirs = self.summed(self.rule(ins, r)), None
            if self.maps.mode == "reverse":
                theirs = self.summed(self.transposed(self.closed, ins, r))
            found[f"{name} sides"] = (ours, theirs)
        return found

    def _again(self, ins: Any, r: Any, salt: Any) -> Any:
        """The derivative's image and the rule's, rounded at random."""
        derivative = jax.make_jaxpr(functools.partial(self.transposed, self.closed))(ins, r)
        programs = derivative, jax.make_jaxpr(self.rule)(ins, r)
        sides = shaken(programs, jax.tree.leaves((ins, r)), salt)
        return [None if side is None else self.summed(side) for side in sides]

    # ------------------------------------------------------------------ the trial

    def judge(self, ins: list[Any], p: list[Any], seed: int, inside: Callable) -> list[Outcome]:
        """One outcome an argument. `inside(ins, r)`: the rows of the rules inside the primal."""
        if (other := self._restated(ins)) is not None:
            return other.judge(ins, p, seed, inside)
        try:
            found = jax.device_get(self.at_point(ins, p, seed))
        except jax.errors.JaxRuntimeError:
            words = "a guard of the program's own raises where its values are rounded otherwise"
            return [Outcome(UNTESTED, 0.0, words, k) for k in range(len(self.groups))]
        for gap, noise, _ in found["values"]:
            if gap > UNITS * noise:
                words = f"the rule's forward pass returns other values: they differ by {gap:.1e}"
                return [Outcome(REFUTED, float(gap), words, k) for k in range(len(self.groups))]
        if is_low(self.arithmetic) and (apart := other_values(self, ins)):
            words = f"the rule's forward pass returns other values: in float64 they differ by {apart:.1e}"
            return [Outcome(REFUTED, apart, words, k) for k in range(len(self.groups))]
        if self.maps.mode == "reverse":
            for name in ("p", "q"):
                run = lambda salt, r=found[name]: jax.device_get(self.again(ins, r, salt))
                ours, theirs = found[f"{name} sides"]
                found[f"{name} sides"] = ours, theirs, noise_between(ours, theirs, run)
            told = [self._argument(k, ins, found, seed, inside) for k in range(len(self.groups))]
            told = self._together(told, ins, found)
        else:
            told = self._whole(ins, found, inside)
        room = max((room_for(noise, size) for _, noise, size in found["values"]), default=np.inf)
        return [dataclasses.replace(o, room_of_values=room) for o in told]

    def _together(self, told: list[Outcome], ins: Any, found: Any) -> list[Outcome]:
        """Arguments whose kinks are right one by one, refuted where they are wrong together."""
        tied = [k for k, o in enumerate(told) if o.kink and o.verdict == EXACT and not o.inner]
        if not tied or is_low(self.arithmetic):
            return told
        sides = {n: list(zip(*found[f"{n} sides"], strict=True)) for n in ("p", "q")}
        name = "q" if any(beyond(*sides["q"][k]).any() for k in tied) else "p"
        runs = [jax.device_get(self.again(ins, found[name], salt))[1] for salt in SALTS[0]]
        rounding = moves(found[f"{name} sides"][0], runs)
        words = against(self.spot(ins, found[name]), self.groups, sides[name], rounding)
        if not words:
            return told
        wrong = lambda k: dataclasses.replace(told[k], verdict=REFUTED, gap=1.0, reason=words)
        return [wrong(k) if k in tied else o for k, o in enumerate(told)]

    def _restated(self, ins: list[Any]) -> "Trial | None":
        """The same place with scans for loops, which reverse mode can follow."""
        if self.maps.mode != "forward" or self.holds_own_rule or not holds_loop(self.closed):
            return None
        steps = lengths(self.closed, ins)
        if steps is not None and steps not in self.bounded:
            closed = bounded(self.closed, steps, ins)
            self.bounded[steps] = Trial(self.maps._replace(mode="reverse"), self.groups, closed)
        return None if steps is None else self.bounded[steps]

    def _argument(self, k: int, ins: Any, found: Any, seed: int, inside: Callable) -> Outcome:
        sides = {n: tuple(part[k] for part in found[f"{n} sides"]) for n in ("p", "q")}
        gaps = {n: self._size(a, b, noise) for n, (a, b, noise) in sides.items()}
        over = {n: beyond(*side).any() for n, side in sides.items()}
        worst = max(gaps, key=lambda n: gaps[n])
        low = is_low(self.arithmetic)
        ours, theirs, _ = sides["q"]
        if not any(over.values()) and not np.any(ours) and not np.any(theirs):
            return Outcome(UNTESTED, 0.0, "derivative zero here in every probe", k)
        if self.place.library and not over["p"] and any(map(np.any, found["p"])):
            words = f"{self.place.library}'s own: judged by the costate that arrives"
            return Outcome(EXACT, gaps["p"], words, k)
        if not any(over.values()) and not low:
            rough = not any((np.abs(t) > UNITS * e).any() for _, t, e in sides.values())
            hidden = min(map(hidden_by, sides.values()))
            eps = 0.0 if self.arithmetic is None else eps_of(self.arithmetic)
            said, hides = hidden > max(LEAST[0], SAID * eps), hidden > max(LEAST[1], HIDDEN * eps)
            words = f"roundoff hides a fault of up to {hidden:.0e}" if said else ""
            # A stage of a chain may have weights that do nothing.
            if gaps[worst] and (rough or hides) and not self.place.marked:
                apart = max(relative(a, b) for a, b, _ in sides.values())
                if (told := in_double(self, k, ins, found["q"], apart)) is not None:
                    return told
                if rough:
                    return Outcome(UNTESTED, 0.0, ROUGH, k)
                return Outcome(CONSISTENT, apart, words, k)
            noise = sum(largest_of(side[2]) for side in sides.values())
            room = room_for(noise, max(largest_of(side[1]) for side in sides.values()))
            return Outcome(EXACT, gaps[worst], words or self.roundoff(), k, room=room)
        name = next((n for n in ("q", "p") if over[n]), "q")
        exceeds = any(over.values())
        if (told := by_formula(self, k, ins, found[name], gaps[worst], exceeds)) is not None:
            return told
        if not any(over.values()):
            return Outcome(EXACT, gaps[worst], self.roundoff(), k)
        return self._disputed(k, ins, found, name, sides, seed, inside)

    def _size(self, a: Any, b: Any, noise: Any) -> float:
        """The gap relative to what was summed: where larger terms cancel in a derivative, noise
        is larger than one eps of it, and tells their size."""
        floor, gap = largest_of(noise), furthest(a, b)
        eps = eps_of(self.arithmetic) if self.arithmetic is not None else 0.0
        within = gap <= UNITS * floor and floor > 0
        return min(relative(a, b), gap / floor * eps) if within else relative(a, b)

    def _disputed(
        self, k: int, ins: Any, found: Any, name: str, sides: Any, seed: int, inside: Callable
    ) -> Outcome:
        ours, theirs, noise = sides[name]
        r = found[name]
        if self.holds_own_rule and (told := self._up_to_rules(k, ins, r, ours, noise, inside)):
            return told
        if holds_loop(self.looping):
            limit = self.run_on(k, ins, r, beyond(ours, theirs, noise))
            if limit.verdict != UNTESTED and (limit.verdict != REFUTED or np.any(theirs)):
                return limit
            # No derivative of the primal is finite, or all of it is zero, as of a bisection.
            values = by_differences(self, k, ins, r, ours)
            return values if values.verdict == CONSISTENT else limit
        told = by_slopes(self.spot(ins, r), self.dispute(k, ours, theirs, noise))
        if told.verdict == CONSISTENT or (told.verdict == REFUTED and told.gap <= LOOSE):
            told = in_double(self, k, ins, r, told.gap, over=True) or told
        if told.verdict == REFUTED and told.gap <= NEARER and not users_rule(self.place.eqn):
            words = (
                f"{told.reason}: a rule of JAX's or of a library's, whose values are approximate"
            )
            return dataclasses.replace(told, verdict=CONSISTENT, reason=words)
        if told.verdict == REFUTED and not np.any(sides["q"][0]) and not np.any(sides["p"][1]):
            words = "the rule gives nothing to this argument, and this cost loses nothing by it"
            return Outcome(DETACHED, 1.0, words, k, told.index)
        if told.verdict == REFUTED and told.gap <= LOOSE and holds_iteration(self.closed):
            limit = self.run_on(k, ins, r, beyond(ours, theirs, noise), fixed=True)
            return limit if limit.verdict == CONSISTENT else told
        return told

    def roundoff(self) -> str:
        if self.arithmetic is None or eps_of(self.arithmetic) <= eps_of(jnp.zeros(()).dtype):
            return ""
        return f"to roundoff of {np.dtype(self.arithmetic).name}"

    # ------------------------------------------------------------------ rules inside

    def _up_to_rules(
        self, k: int, ins: Any, r: Any, ours: Any, noise: Any, inside: Callable
    ) -> Outcome | None:
        """Right up to the rules inside the primal, and then as right as they are."""
        try:
            kept = jax.device_get(self.compiled("with rules", self._with_rules)(ins, r))
        except (ValueError, NotImplementedError):  # a loop: reverse mode of it does not exist
            return None
        if beyond(ours, kept[k], noise).any():
            return None
        rows = inside(ins, r)
        return Outcome.of_rows(rows, k) if rows else None

    def _with_rules(self, ins: Any, r: Any) -> Any:
        body = opened(self.place.eqn)
        _, pull = jax.vjp(
            along(lambda full: replay_plain(body, full), ins, self.judged), *self._x(ins)
        )
        return self.summed(pull(self.full(r)))

    # ------------------------------------------------------------------ loops

    def run_on(
        self, k: int, ins: Any, r: Any, only: np.ndarray | None = None, fixed: bool = False
    ) -> Outcome:
        """`only`: the elements of argument `k` that are paired; all of every argument if `None`."""
        v = self.direction(ins)
        if only is not None:
            mine = self.groups[k]
            v = [jnp.where(only, a, 0) if i in mine else jnp.zeros_like(a) for i, a in enumerate(v)]

        if self.loops is None:
            rule, pushed = jax.make_jaxpr(self.rule)(ins, r), jax.make_jaxpr(self._push)(ins, v)
            self.loops = Loops(rule, pushed, self.looping)
        users, eps = users_rule(self.place.eqn), eps_of(self.arithmetic)
        return converging(self.loops, (ins, r, v), eps, k, users, fixed)

    def _push(self, ins: Any, v: Any) -> Any:
        function = along(lambda full: replay_plain(self.looping, full), ins, self.judged)
        return jax.jvp(function, self._x(ins), list(v))[1]

    def direction(self, ins: Any) -> list[Any]:
        v = [drawn(a.shape, a.dtype, 5, i) for i, a in enumerate(self._x(ins))]
        for g in self.groups:
            for i in g[1:]:
                v[i] = v[g[0]]
        return v

    # ------------------------------------------------------------------ elements

    def spot(self, ins: Any, r: Any) -> Spot:
        function = lambda x, held: along(lambda f: replay_plain(self.closed, f), held, self.judged)(
            *x
        )
        return Spot(function, self._x(ins), list(ins), list(r), self.full(r), self.compiled)

    def compiled(self, name: str, function: Callable) -> Callable:
        if name not in self.programs:
            self.programs[name] = jax.jit(function)
        return self.programs[name]

    def dispute(self, k: int, ours: Any, theirs: Any, noise: Any) -> Dispute:
        double = eps_of(jnp.zeros((), self.arithmetic).dtype) < 1e-12
        tol = LENIENT if double else SINGLE
        return Dispute(k, self.groups[k], ours, theirs, np.asarray(noise, float), tol)

    # ------------------------------------------------------------------ no reverse mode of the primal

    def _whole(self, ins: Any, found: Any, inside: Callable) -> list[Outcome]:
        if self.maps.mode == "forward":
            return [by_forward_mode(self, ins, found, inside)]
        images, q = found["q sides"][0], found["q"]
        return [by_differences(self, k, ins, q, images[k]) for k in range(len(self.groups))]


def _largest(a: Any) -> Any:
    return jnp.max(jnp.where(jnp.isfinite(a), jnp.abs(a), 0), initial=0.0)

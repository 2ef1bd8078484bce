r"""A rule tried alone, in NumPy: the judge of backward passes that JAX cannot trace.

    exact        max |G r - T r| <= 64 noise   for the costate that arrives and for a random one
    kink         D+ != D-  at an element in dispute, and the rule between them
    consistent   the body is opaque: directional differences of its values agree with the rule

`G` is the rule, `T` the transposed derivative of the body, noise what the roundoff of the body's own
operations changes in each element of `T r`. What a rule rounds itself cannot be drawn: an element that is
off by less than the largest noise is refuted only by the values. The caller that runs the program states
an `Alone`, which is called with arrays only. Inner products are `Re <r, y> = Re sum conj(r) y`.
"""

import dataclasses
from typing import Any

import numpy as np

from hjcontrol.verification.gaps import UNITS, beyond, by_element, largest, relative, worst_first
from hjcontrol.verification.host_differences import central, slope
from hjcontrol.verification.images import FAR
from hjcontrol.verification.place_alone import WORST, Alone, Arrays, Sides, drawn, scaled, sides_of
from hjcontrol.verification.roundoff import SALTS, moves
from hjcontrol.verification.verdicts import (
    CONSISTENT,
    DETACHED,
    EXACT,
    ORDER,
    REFUTED,
    ROUGH,
    UNDEFINED,
    UNTESTED,
    Outcome,
)

SWEEPS = (0, 8, 64, 512)
CONVERGED, LOOSE = 1e-9, 1e-2  # of the gap once a loop has run on; of the values, which move little
LENIENT, SINGLE = 1e-9, 1e-4  # of differences, in float64 and below
RESOLVED = 1e-2  # a relative error of differences above this decides nothing
QUIET = "the rule gives nothing to this argument, and this cost loses nothing by it"
SILENT = "derivative zero here in every probe: other inputs, please"
STAIRS = "; the values are piecewise constant: a straight-through estimator? Declare it deliberate"
EMPTY = "the argument is empty: it has no element to differentiate; other inputs, please"
RESTLESS = "its values are others when it is run again: it depends on a state that is not passed"
BOUNDLESS = "an argument is not finite"
LOW = 1e-6  # an eps above this is replayed in float64


@dataclasses.dataclass
class Judged:
    """Outcomes by argument, and the share of elements with a derivative."""

    outcomes: list[Outcome]
    live: dict[int, float]


def judge(alone: Alone, recorded: Arrays, arrived: Arrays, seed: int = 0) -> Judged:
    """Every argument of a place.

    **Arguments:** `recorded`: its outputs when the program ran. `arrived`: the costates that reached
    them, zeros where none did. `seed`: of the random costate.
    """
    if any(np.isnan(a).any() for a in alone.x):
        return Judged([Outcome(UNTESTED, 0.0, BOUNDLESS, 0)], {})
    p = scaled(arrived)
    sides = {}
    for name, r in (("p", p), ("q", drawn(recorded, alone.live, seed))):
        if name == "q" or any(np.any(a) for a in r):
            sides[name] = sides_of(alone, r)
    if (told := _guilty(recorded, sides)) is not None:
        finite = all(np.isfinite(a).all() for a in alone.x)
        return Judged([told if finite else Outcome(UNTESTED, 0.0, BOUNDLESS, 0)], {})
    if (told := _values(alone, recorded)) is not None:
        return Judged([told], {})
    outcomes, live = [], {}
    for k, a in enumerate(alone.x):
        outcome = _argument(k, alone, sides, seed) if a.size else Outcome(UNTESTED, 0.0, EMPTY, k)
        if outcome is not None and outcome.verdict == REFUTED:
            outcome = _run_on(k, alone, sides, outcome, seed)
        if outcome is not None:
            outcomes.append(outcome)
            image = sides["q"].theirs[k]
            image = sides["q"].ours[k] if image is None else image
            live[k] = float(np.mean(image != 0)) if image.size else 0.0
    if not outcomes:
        outcomes = [Outcome(UNTESTED, 0.0, SILENT, 0)]
    return Judged(outcomes, live)


def _guilty(recorded: Arrays, sides: dict[str, Sides]) -> Outcome | None:
    words = "inputs and costate are finite, values or the rule's result are not"
    for side in sides.values():
        spoilt = any(
            np.any(~np.isfinite(y) & (r != 0)) for y, r in zip(recorded, side.r, strict=True)
        )
        images = [g for g in side.ours if g is not None]
        if spoilt or not all(np.isfinite(g).all() for g in images):
            return Outcome(UNDEFINED, np.inf, words, 0)
    if not all(np.isfinite(y).all() for y in recorded) and "p" not in sides:
        return Outcome(UNDEFINED, np.inf, words, 0)
    return None


def _values(alone: Alone, recorded: Arrays) -> Outcome | None:
    """The forward pass under the rule against the body, both run again."""
    under, plain = alone.applied(), alone.values(alone.x)
    far = lambda a, b: max(
        [relative(u, v) for u, v in zip(a, b, strict=True)] if len(a) == len(b) else [np.inf]
    )
    limit = UNITS * alone.eps
    if far(under, recorded) > limit:
        return Outcome(UNTESTED, 0.0, RESTLESS, 0)
    gap = far(under, plain)
    if gap > limit:
        words = f"the rule's forward pass returns other values: they differ by {gap:.1e}"
        return Outcome(REFUTED, gap, words, 0)
    return None


def _argument(k: int, alone: Alone, sides: dict[str, Sides], seed: int) -> Outcome | None:
    if any(s.theirs[k] is None for s in sides.values()):
        return _opaque(k, alone, sides, seed)
    gaps = {n: relative(s.ours[k], s.theirs[k]) for n, s in sides.items()}
    if alone.eps > LOW:
        return _formula(k, alone, sides, max(gaps.values()), seed)
    over, rough, told, noise = None, False, False, np.zeros(())
    for name, s in sides.items():
        noise = np.asarray(alone.eps * largest(s.theirs[k]))
        if beyond(s.ours[k], s.theirs[k], noise).any() or _far(s.ours[k], s.theirs[k], alone.eps):
            noise, rough = _noise(k, alone, s), True
        told = told or (np.abs(s.theirs[k]) > UNITS * noise).any()
        if beyond(s.ours[k], s.theirs[k], noise).any():
            over = name, noise  # the random costate, which comes last, where both are
    hidden = over is None or bool(
        not beyond(sides[over[0]].ours[k], sides[over[0]].theirs[k], largest(over[1])).any()
    )
    if rough and hidden and alone.eps > 1e-12 and alone.wide() is not None:
        return _formula(k, alone, sides, max(gaps.values()), seed)  # roundoff may hide a fault
    if over is not None:
        return _disputed(k, alone, sides, *over, hidden)
    if rough and (tie := _tie(k, alone, sides, noise)) is not None:
        return tie
    if rough and not told:
        return Outcome(UNTESTED, 0.0, ROUGH, k)
    if not any(np.any(s.ours[k]) or np.any(s.theirs[k]) for s in sides.values()):
        return Outcome(UNTESTED, 0.0, SILENT, k)
    words = f"to roundoff of {alone.arithmetic}" if alone.eps > 1e-12 else ""
    return Outcome(EXACT, max(gaps.values()), words, k)


def _run_on(k: int, alone: Alone, sides: dict[str, Sides], before: Outcome, seed: int) -> Outcome:
    """A rule of a limit is right once the loops of the body, and those of the rule, have come to it."""
    base, gap = alone.wide() or alone, np.inf
    start = base.applied()
    for sweeps in SWEEPS[1:]:
        try:
            far = base.further(sweeps)
            if far is None or not max(map(relative, far.applied(), start)) <= LOOSE:
                break
            last, gap = gap, max(_apart(k, far, s.r, seed) for s in sides.values())
        except Exception:  # a guard of the loop's own: it bears no more sweeps
            break
        if gap <= CONVERGED:
            words = (
                f"{sweeps} sweeps further its loops have come to their limit: the gap falls from"
            )
            return Outcome(CONSISTENT, gap, f"{words} {before.gap:.0e} to {gap:.0e}", k)
        if gap > 0.9 * last:
            break
    return before


def _apart(k: int, alone: Alone, r: Arrays, seed: int) -> float:
    """How far the rule is from the derivative, or from a difference of the values."""
    side = sides_of(alone, r)
    if side.theirs[k] is not None:
        return relative(side.ours[k], side.theirs[k])
    ours = np.zeros_like(alone.x[k]) if side.ours[k] is None else side.ours[k]
    v = np.random.default_rng([seed, k]).choice([-1.0, 1.0], alone.x[k].size)
    gap, error, _ = _gap(alone, k, r, np.ravel(ours), v)
    return max(gap, error)


def _tie(k: int, alone: Alone, sides: dict[str, Sides], noise: np.ndarray) -> Outcome | None:
    """Where roundoff moves the derivative as far as it is large, it breaks a tie: the values decide."""
    ours, theirs = sides["q"].ours[k], sides["q"].theirs[k]
    bare = alone.eps * largest(theirs)
    broken = beyond(ours, theirs, bare) & (np.abs(theirs) <= UNITS * noise)
    if not broken.any():
        return None
    told = _disputed(k, alone, sides, "q", np.where(broken, bare, np.inf), True)
    return told if told.kink or told.verdict == REFUTED else None


def _far(a: Any, b: Any, eps: float) -> bool:
    """Whether elements are far off beside their own size: more than sums which cancel explain."""
    far = by_element(a, b) > FAR * eps**0.5
    return bool(np.mean(far) > eps**0.5) if far.size else False


def _noise(k: int, alone: Alone, side: Sides) -> np.ndarray:
    """Change of each element of `T r` when the roundoff of every operation is drawn."""
    runs = [alone.derivative(side.r, salt)[k] for salts in SALTS for salt in salts]
    return moves([side.theirs[k]], [[a] for a in runs if a is not None])[0]


def _formula(
    k: int, alone: Alone, sides: dict[str, Sides], bare: float, seed: int
) -> Outcome | None:
    """Rule and body replayed in float64: where roundoff is large, a wrong formula looks like it."""
    wide = alone.wide()
    if wide is None:
        verdict = CONSISTENT if bare <= UNITS * alone.eps else REFUTED
        words = f"to roundoff of {alone.arithmetic}: the place cannot be replayed in float64"
        return Outcome(verdict, bare, words, k)
    found = {n: sides_of(wide, s.r) for n, s in sides.items()}
    told = _argument(k, wide, found, seed)
    if told is None or told.verdict == UNTESTED:
        return told
    if told.verdict == EXACT:
        told.reason = (
            f"formula exact in float64 ({told.gap:.0e}); roundoff of {alone.arithmetic} inside: "
            f"{bare:.0e}"
        )
    else:
        told.reason = f"in float64: {told.reason}"
    return told


# ------------------------------------------------------------------ elements in dispute


def _disputed(
    k: int, alone: Alone, sides: dict[str, Sides], name: str, noise: np.ndarray, hidden: bool
) -> Outcome:
    """`hidden`: where the largest noise explains every gap."""
    side = sides[name]
    g, t, noise = (np.ravel(a) for a in (side.ours[k], side.theirs[k], noise))
    noise = np.broadcast_to(noise.astype(float), g.shape)
    disputed = worst_first(g, t, noise)
    chosen = disputed[:WORST]
    told = [_element(k, alone, side.r, int(i), g[i], t[i], noise[i], hidden) for i in chosen]
    worst = min(told, key=lambda o: ORDER.index(o.verdict))
    many = f"; {len(disputed)} elements" if len(disputed) > 1 else ""
    worst = dataclasses.replace(worst, reason=worst.reason + many)
    if worst.verdict == REFUTED:
        worst.gap = float(np.max(by_element(g, t)[disputed])) if hidden else relative(g, t)
        quiet = not np.any(sides["q"].ours[k])
        if quiet and ("p" not in sides or not np.any(sides["p"].theirs[k])):
            return Outcome(DETACHED, 1.0, QUIET, k, worst.index)
    if len(disputed) > WORST and worst.verdict == EXACT:
        worst = dataclasses.replace(
            worst, verdict=CONSISTENT, reason=f"{worst.reason}, {WORST} tried"
        )
    elif len(disputed) > WORST and worst.verdict == CONSISTENT:
        return _along(k, alone, sides, 0)
    return worst


def _element(
    k: int, alone: Alone, r: Arrays, i: int, rule: Any, own: Any, noise: float, hidden: bool
) -> Outcome:
    """One element: the rule's value and the derivative's (`None` if opaque) against both slopes."""
    right, right_error = slope(alone, k, r, i, +1)
    left, left_error = slope(alone, k, r, i, -1)
    doubt = 10 * (right_error + left_error) + UNITS * noise
    at = tuple(int(j) for j in np.unravel_index(i, alone.x[k].shape)) if alone.x[k].shape else ()
    numbers = f"rule {np.real(rule):.6g}, slopes of the values {right:.6g} | {left:.6g}"
    if not np.isfinite([right, left, doubt]).all():
        return Outcome(UNDEFINED, np.inf, f"no one-sided slope: {numbers}", k, at)
    low, high = min(right, left), max(right, left)
    value, size = np.real(rule), max(abs(right), abs(left), abs(rule), np.finfo(float).tiny)
    inside = low - doubt <= value <= high + doubt
    near = own is None or not np.isfinite(own) or abs(value - np.real(own)) <= 2 * (high - low)
    if high - low > doubt and inside and near:
        words = f"kink: {numbers}; the sum of such choices need not be a subgradient"
        return Outcome(EXACT, 0.0, words, k, at, kink=True)
    settled = own is None or not low - doubt <= np.real(own) <= high + doubt
    if high - low <= doubt and inside and settled:
        gap = abs(value - (low + high) / 2) / size
        words = f"{numbers}: the values agree with the rule, the body's own derivative does not"
        return Outcome(CONSISTENT, float(gap), words, k, at)
    if hidden and inside:
        return Outcome(EXACT, 0.0, f"{numbers}: the rule may round so", k, at)
    if right == left == 0 and rule != 0:
        numbers += STAIRS
    return Outcome(REFUTED, float(abs(value - (low + high) / 2) / size), numbers, k, at)


# ------------------------------------------------------------------ opaque bodies


def _opaque(k: int, alone: Alone, sides: dict[str, Sides], seed: int) -> Outcome | None:
    if alone.eps > 1e-12 and (wide := _widely(k, alone, sides, seed)) is not None:
        return wide
    told = _along(k, alone, sides, seed)
    if told is None or told.verdict != CONSISTENT or told.gap <= LENIENT:
        return told
    wide = _widely(k, alone, sides, seed)  # a part of it may have fewer bits
    return wide if wide and wide.verdict == CONSISTENT and wide.gap < told.gap else told


def _widely(k: int, alone: Alone, sides: dict[str, Sides], seed: int) -> Outcome | None:
    """By differences in float64, if the place has them."""
    wide = alone.wide()
    found = {} if wide is None else {n: sides_of(wide, s.r) for n, s in sides.items()}
    if wide is None or found["q"].theirs[k] is not None:
        return None
    return _along(k, wide, found, seed)


def _along(k: int, alone: Alone, sides: dict[str, Sides], seed: int) -> Outcome | None:
    """The rule against differences of the values along random directions."""
    worst, doubt, moved = 0.0, 0.0, False
    given = any(s.ours[k] is not None for s in sides.values())
    empty = np.zeros_like(alone.x[k])
    ours = {n: np.ravel(empty if s.ours[k] is None else s.ours[k]) for n, s in sides.items()}
    kinks: list[int] = []
    limit = LENIENT if alone.eps < 1e-12 else SINGLE
    for turn in range(alone.directions):
        v = np.random.default_rng([seed, k, turn]).choice([-1.0, 1.0], alone.x[k].size)
        name = "p" if turn == 0 and "p" in sides else "q"
        r, g = sides[name].r, ours[name]
        while True:
            v[kinks] = 0.0
            gap, error, at_all = _gap(alone, k, r, g, v)
            moved = moved or at_all
            if gap <= limit + 10 * error and error <= RESOLVED:
                worst, doubt = max(worst, gap), max(doubt, error)
                break
            i = _located(alone, k, r, g, v)
            told = _element(k, alone, r, i, g[i], None, alone.eps * largest(g), False)
            if not told.kink:
                quiet = "p" not in sides and not np.any(g)
                return _blamed(told, max(gap, error), quiet)
            kinks.append(i)
            if len(kinks) > alone.patience:
                words = f"more than {alone.patience} kinks: {told.reason}"
                return Outcome(CONSISTENT, 0.0, words, k, told.index, kink=True)
    if not moved and not any(np.any(g) for g in ours.values()):
        return Outcome(UNTESTED, 0.0, SILENT, k) if given else None
    words = f"by differences of the values, along random directions (their error {doubt:.0e})"
    if kinks:
        words += f"; kinks at {len(kinks)} elements, the rule between their slopes"
    return Outcome(CONSISTENT, worst, words, k, kink=bool(kinks))


def _blamed(told: Outcome, gap: float, quiet: bool) -> Outcome:
    """A direction in dispute: what its worst element says."""
    if told.verdict == REFUTED and quiet:
        return Outcome(DETACHED, 1.0, QUIET, told.argument, told.index)
    if told.verdict == UNDEFINED:
        return told
    numbers = told.reason.partition(":")[0]
    if told.verdict == CONSISTENT:
        words = (
            f"along a random direction off by {gap:.1e}, and no element alone shows it: {numbers}"
        )
        return Outcome(CONSISTENT, gap, words, told.argument, told.index)
    words = f"{numbers}; along a random direction off by {gap:.1e}"
    return Outcome(REFUTED, max(gap, told.gap), words, told.argument, told.index)


def _gap(
    alone: Alone, k: int, r: Arrays, g: np.ndarray, v: np.ndarray
) -> tuple[float, float, bool]:
    """Of one direction: gap to the rule and error of the differences, relative; whether values move."""
    value, error = central(alone, k, r, v)
    size = float(np.sum(np.abs(g * v))) or 1.0
    gap = abs(value - float(np.sum(np.real(g) * v))) / size
    return (gap if np.isfinite(gap) else np.inf), error / size, bool(value != 0)


def _located(alone: Alone, k: int, r: Arrays, g: np.ndarray, v: np.ndarray) -> int:
    """An element in dispute, by halving the direction."""
    at = np.flatnonzero(v)
    off = lambda part: abs(
        central(alone, k, r, np.where(np.isin(np.arange(v.size), part), v, 0.0))[0]
        - float(np.sum((np.real(g) * v)[part]))
    )
    while at.size > 1:
        halves = np.array_split(at, 2)
        at = max(halves, key=lambda part: np.nan_to_num(off(part), nan=np.inf))
    return int(at[0])

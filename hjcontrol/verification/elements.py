r"""Elements in dispute, judged by the values: is it a kink, a program without a tangent, or a wrong rule?

    D+ != D-    a kink: the rule must lie between them
    D+ == D-    no kink, whatever the primal's own derivative says: the rule must be that slope

The values excuse a rule only where they resolve the dispute: the rule inside their interval and the
primal's derivative outside it. Otherwise a fault smaller than their error would pass.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hjcontrol.verification.arithmetic import drawn, is_float
from hjcontrol.verification.directional import differences
from hjcontrol.verification.gaps import UNITS, beyond, by_element, relative, worst_first
from hjcontrol.verification.slopes import Slopes, slopes, together
from hjcontrol.verification.verdicts import CONSISTENT, EXACT, REFUTED, UNDEFINED, Outcome

WORST = 16  # elements whose slopes are taken one by one
KINK, VALUES, WRONG, NO_SLOPE = "kink", "values", "wrong", "undefined"
_RANK = {WRONG: 0, NO_SLOPE: 1, VALUES: 2, KINK: 3}
HINT = "; the values are piecewise constant: a straight-through estimator? Declare it deliberate"


class Spot(NamedTuple):
    """A place at one point. `function(x, held)`: its values for the judged inputs `x`, the others of all
    inputs `held`; `r`: one a floating output, `full`: one an output; `compiled(name, function)`: jitted
    once a place."""

    function: Callable[[list[Any], list[Any]], Any]
    x: list[Any]
    held: list[Any]
    r: list[Any]
    full: list[Any]
    compiled: Callable[[str, Callable], Callable]


class Dispute(NamedTuple):
    """One argument: its number, inputs, the rule's image, the derivative's, and the noise of each
    element."""

    argument: int
    group: tuple[int, ...]
    ours: np.ndarray
    theirs: np.ndarray
    noise: np.ndarray
    tol: float

    @property
    def gap(self) -> float:
        """Relative to the argument's largest element; where that explains it, to the element itself."""
        whole = beyond(self.ours, self.theirs, np.max(self.noise, initial=0.0))
        if whole.any():
            return relative(self.ours, self.theirs)
        off = beyond(self.ours, self.theirs, self.noise)
        return float(np.max(by_element(self.ours, self.theirs), initial=0.0, where=off))


def by_slopes(spot: Spot, d: Dispute) -> Outcome:
    """The outcome of an argument in dispute, from one-sided slopes of the values."""
    shape = np.shape(spot.x[d.group[0]])
    g, t = np.ravel(d.ours), np.ravel(d.theirs)
    noise = np.ravel(d.noise)
    ranked = worst_first(g, t, noise)
    chosen = ranked[:WORST]
    ask = spot.compiled(
        f"slopes {d.argument}",
        lambda x, held, r, chosen: slopes(
            lambda x: spot.function(x, held), x, d.group, voids(spot, r), chosen
        ),
    )
    padded = jnp.asarray(np.resize(chosen, WORST))
    found = jax.device_get(ask(spot.x, spot.held, spot.r, padded))
    told = [judged(g[i], t[i], j, found, noise[i]) for j, i in enumerate(chosen)]
    worst = min(range(len(chosen)), key=lambda j: _RANK[told[j][0]])
    verdict, gap = told[worst]
    i = int(chosen[worst])
    numbers = _numbers(g[i], found.right[worst], found.left[worst], len(ranked))
    at = index(i, shape)
    if verdict == WRONG:
        flat = not np.any(found.right) and not np.any(found.left) and bool(np.any(g))
        words = numbers + (HINT if flat else "")
        return Outcome(REFUTED, d.gap, words, d.argument, at)
    if verdict == NO_SLOPE:
        return Outcome(UNDEFINED, np.inf, f"no one-sided slope: {numbers}", d.argument, at)
    if len(ranked) > WORST:
        return _many(spot, d, np.sort(ranked), verdict, numbers, i)
    if verdict == KINK:
        words = f"kink: {numbers}; the sum of such choices need not be a subgradient"
        return Outcome(EXACT, max(gap, 0.0), words, d.argument, at, kink=True)
    words = f"{numbers}: the values agree with the rule, the program's own derivative does not"
    return Outcome(CONSISTENT, max(gap, 0.0), words, d.argument, at)


def voids(spot: Spot, r: Any) -> list[Any]:
    """`r` with the void costates of outputs that are not floating."""
    given = iter(r)
    return [next(given) if is_float(a) else a for a in spot.full]


def judged(g: Any, t: Any, j: int, found: Slopes, noise: float) -> tuple[str, float]:
    """One element: the rule's value `g`, the derivative's `t`, the `j`-th slopes."""
    right, left = float(found.right[j]), float(found.left[j])
    doubt = 10 * float(found.right_error[j] + found.left_error[j]) + UNITS * float(noise)
    if not np.isfinite([right, left, doubt]).all():
        return NO_SLOPE, np.inf
    low, high = min(right, left), max(right, left)
    kink = high - low > doubt
    if kink:  # of several outputs each may take a side of its own
        low, high = min(low, float(found.low[j])), max(high, float(found.high[j]))
    value, own = np.real(g), np.real(t)
    inside = low - doubt <= value <= high + doubt
    if kink:
        dispute = abs(value - own) if np.isfinite(own) else 0.0
        return (KINK, 0.0) if inside and dispute <= 2 * (high - low) else (WRONG, np.inf)
    if inside and not low - doubt <= own <= high + doubt:
        size = max(abs(low), abs(high), abs(value), np.finfo(float).tiny)
        return VALUES, float(abs(value - (low + high) / 2) / size)
    return WRONG, np.inf


def _many(spot: Spot, d: Dispute, disputed: Any, verdict: str, numbers: str, i: int) -> Outcome:
    """More elements in dispute than are tried one by one: all at once where they cannot meet, else one
    direction through all of them."""
    shape = np.shape(spot.x[d.group[0]])
    g, t = np.ravel(d.ours), np.ravel(d.theirs)
    at = index(i, shape)
    noise, found = np.ravel(d.noise), _at_once(spot, d, disputed)
    if found is not None:
        told = [judged(g[e], t[e], j, found, noise[e])[0] for j, e in enumerate(disputed)]
        bad = [j for j, v in enumerate(told) if v in (WRONG, NO_SLOPE)]
        if bad:
            e = int(disputed[bad[0]])
            words = _numbers(g[e], found.right[bad[0]], found.left[bad[0]], len(bad))
            kind = UNDEFINED if told[bad[0]] == NO_SLOPE else REFUTED
            return Outcome(kind, d.gap, words, d.argument, index(e, shape))
        if all(v == KINK for v in told):
            words = (
                f"kinks: {numbers}, all tried; the sum of such choices need not be a subgradient"
            )
            return Outcome(EXACT, 0.0, words, d.argument, at, kink=True)
        return Outcome(CONSISTENT, 0.0, f"{numbers}, all tried", d.argument, at)
    if verdict == KINK:
        words = f"kinks: {numbers}, {WORST} tried"
        return Outcome(CONSISTENT, d.gap, words, d.argument, at, kink=True)
    gap, doubt, own = direction(spot, d)
    if gap <= d.tol + 10 * doubt and own > 10 * max(gap, doubt):
        words = f"{numbers}, {WORST} tried; along a random direction the values agree to {gap:.0e}"
        return Outcome(CONSISTENT, gap, words, d.argument, at)
    return Outcome(REFUTED, max(gap, own, d.gap), numbers, d.argument, at)


def _at_once(spot: Spot, d: Dispute, disputed: np.ndarray) -> Slopes | None:
    at = spot.x[d.group[0]]
    shape = np.shape(at)
    values = lambda x, held: [o for o in spot.function(x, held) if is_float(o)]
    outs = jax.eval_shape(values, spot.x, spot.held)
    if len(outs) != 1 or not shape:
        return None
    mask = np.zeros(int(np.prod(shape)), bool)
    mask[disputed] = True
    width = mask.size // shape[0]
    positions = np.unique(disputed % width)
    trials = []
    if outs[0].shape == shape:
        trials.append(None)
    if outs[0].shape[:1] == shape[:1] and len(positions) <= WORST:
        trials.append(np.resize(positions, WORST))
    for choice in trials:
        ask = spot.compiled(
            f"together {d.argument} {choice is None}",
            lambda x, held, r, mask, choice: together(
                lambda x: spot.function(x, held), x, d.group, r, mask, choice
            ),
        )
        asked = (spot.x, spot.held, spot.r[0], mask.reshape(shape), choice)
        found, alone = jax.device_get(ask(*asked))
        if alone and choice is None:
            return Slopes(*(np.ravel(a)[disputed] for a in found))
        if alone:
            order = {int(p): j for j, p in reversed(list(enumerate(choice)))}
            rows = [order[int(e % width)] for e in disputed]
            return Slopes(*(np.asarray(a)[rows, disputed // width] for a in found))
    return None


def direction(spot: Spot, d: Dispute) -> tuple[float, float, float]:
    """Of differences along one random direction: gap to the rule, their error, gap to the derivative; all
    relative."""

    def differenced(x: Any, held: Any, r: Any) -> Any:
        at = x[d.group[0]]
        v = drawn(at.shape, at.dtype, 3, d.argument)

        def contracted(a: Any) -> Any:
            inputs = list(x)
            for i in d.group:
                inputs[i] = a
            floats = [o for o in spot.function(inputs, held) if is_float(o)]
            return sum(jnp.sum((o * w).real) for o, w in zip(floats, r, strict=True))

        return v, *differences(contracted, at, v)

    ask = spot.compiled(f"direction {d.argument}", differenced)
    v, slope, error = jax.device_get(ask(spot.x, spot.held, spot.r))
    along = lambda side: float(np.sum((np.asarray(side) * v).real))
    size = float(np.sum(np.abs(np.asarray(d.ours) * v))) or 1.0
    sound = d.theirs is not None and np.isfinite(d.theirs).all()  # a derivative that may be right
    own = abs(slope - along(d.theirs)) / size if sound else np.inf
    return abs(float(slope) - along(d.ours)) / size, float(error) / size, float(own)


def index(flat: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    """An element's place in its array."""
    return tuple(int(i) for i in np.unravel_index(flat, shape)) if shape else ()


def _numbers(rule: Any, right: Any, left: Any, count: int) -> str:
    own = f"{rule.real:.6g}{rule.imag:+.6g}j" if np.iscomplexobj(rule) else f"{rule:.6g}"
    many = f"; {count} elements" if count > 1 else ""
    return f"rule {own}, slopes of the values {right:.6g} | {left:.6g}{many}"

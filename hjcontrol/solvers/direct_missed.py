"""What a point of a nonlinear program misses: rows and bounds, in the problem's words, the user's first.

    row     max(lower - g(x), g(x) - upper, 0)          bound     max(lower - x, x - upper, 0)

A plugin that fails may leave its variables outside their bounds while every row holds: both are asked. Or
it holds each state within its bounds and breaks the dynamics instead, F_k(x_k) - x_{k+1}: a constraint on
states is asked at F_k(x_k) too, for it is the constraint that cannot be met. What the user imposed comes
before the dynamics, unless it is `SMALL` beside them; each kind the largest first.
"""

from typing import Any

import casadi as ca
import numpy as np

SMALL = 1e-3


def missed(t: Any, x: Any, most: int, above: float) -> list[str]:
    """At most `most` lines of what the point `x` of a transcription misses by more than `above`."""
    x = np.asarray(x, float).ravel()
    rows = ca.Function("g", [t.nlp["x"]], [t.nlp["g"]])
    g = np.array(rows(x)).ravel()
    values, dynamics = np.concatenate([g, x]), np.zeros(g.size + x.size, bool)
    led = x.copy()  # every state where the stage before leads
    for name, place in t.constraints.items():
        dynamics[place] |= name.startswith(("F[", "collocation["))
        if name.startswith("F["):
            led[t.variables[name.split(" - ")[1]]] += g[place]
    size = _beyond(t, values)
    later = np.concatenate([np.array(rows(led)).ravel(), led])
    led_on = np.where(dynamics | ~np.isfinite(later), 0.0, _beyond(t, later)) > size * (1 + SMALL)
    size = np.where(led_on, _beyond(t, later), size)
    size[g.size :] = np.where(np.isfinite(x), size[g.size :], 0.0)  # such a one shows in its rows
    late = dynamics | (size < SMALL * size.max(initial=0.0))
    worst, lines = np.lexsort((-size, late))[:most], []
    for i in (int(i) for i in worst[size[worst] > above]):
        place = _row(t, i) if i < g.size else _bound(t, i - g.size)
        place += ", where the stage before leads" if led_on[i] else ""
        finite = led_on[i] or np.isfinite(values[i])
        lines.append(f"{place}: {f'{size[i]:.3g}' if finite else f'not finite ({values[i]})'}")
    return lines


def _beyond(t: Any, values: np.ndarray) -> np.ndarray:
    """By how much rows and variables miss their bounds; infinite where they are not finite."""
    low, high = np.concatenate([t.lbg, t.lbx]), np.concatenate([t.ubg, t.ubx])
    beyond = np.maximum(np.maximum(low - values, values - high), 0.0)
    return np.where(np.isfinite(values), beyond, np.inf)


def kept_from(t: Any, end: Any, words: str, sizes: tuple[float, float, float]) -> list[str]:
    """What keeps an end point from being an answer: the constraints that it misses by most; where all of
    them hold, the optimality conditions, unless `words` say so.

    `sizes`: the tolerance of constraints, what is missed of the conditions, and what is allowed of them.
    """
    tol, worst, allowed = sizes
    broken = t.violations(end["x"], most=3, above=tol)
    if broken or "optimality" in words or not np.isfinite(worst):
        return broken
    return [
        f"the constraints hold to {tol:.2g}, the optimality conditions are missed by {worst:.2g}, for "
        f"{allowed:.2g}"
    ]


def _named(slots: dict[str, slice], i: int) -> tuple[str, slice]:
    return next((m, s) for m, s in slots.items() if s.start <= i < s.stop)


def _row(t: Any, i: int) -> str:
    """Of an entry of g."""
    (name, place), n = _named(t.constraints, i), t.programs.num_samples
    if name in t.sets.heights:
        return f"{name}, row {i - place.start}"
    if name.startswith("budget: "):
        return f"{name[8:]!r}"
    if name.startswith("path: "):
        (at, k), m = name[6:-1].rsplit("[", 1), (place.stop - place.start) // n
        sample, coordinate = divmod(i - place.start, m)
        return f"{at!r} at depth {k}, sample {sample}, coordinate {coordinate}"
    d = (place.stop - place.start) // n
    if name != "terminal":
        d = t.programs.steps[int(name.split("[")[1].split("]")[0])].size1_out(0)
    sample, coordinate = divmod((i - place.start) % (n * d), d)
    return f"{name}, sample {sample}, coordinate {coordinate}"


def _bound(t: Any, i: int) -> str:
    """Of a variable."""
    name, place = _named(t.variables, i)
    if not name.startswith("x["):
        return f"a bound of {name}, entry {i - place.start}"
    k = int(name[2:-1])
    boxes = [box for box in t.programs.paths.boxes if t.programs.paths.places[box][k]]
    d = (place.stop - place.start) // t.programs.num_samples
    sample, coordinate = divmod(i - place.start, d)
    return f"{boxes[0]!r} at depth {k}, sample {sample}, coordinate {coordinate}"

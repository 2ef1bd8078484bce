"""What a point of a nonlinear program misses: rows and bounds, the largest first, in the problem's words.

    row     max(lower - g(x), g(x) - upper, 0)          bound     max(lower - x, x - upper, 0)

A plugin that fails may leave its variables outside their bounds while every row holds: both are asked.
"""

from typing import Any

import casadi as ca
import numpy as np


def missed(t: Any, x: Any, most: int, above: float) -> list[str]:
    """At most `most` lines of what the point `x` of a transcription misses by more than `above`."""
    x = np.asarray(x, float).ravel()
    g = np.array(ca.Function("g", [t.nlp["x"]], [t.nlp["g"]])(x)).ravel()
    values, rows = np.concatenate([g, x]), g.size
    low, high = np.concatenate([t.lbg, t.lbx]), np.concatenate([t.ubg, t.ubx])
    beyond = np.maximum(np.maximum(low - values, values - high), 0.0)
    size = np.where(np.isfinite(values), beyond, np.inf)
    size[rows:] = beyond[rows:]  # a variable that is not finite shows in its rows
    worst, lines = np.argsort(-size, kind="stable")[:most], []
    for i in (int(i) for i in worst[size[worst] > above]):
        place = _row(t, i) if i < rows else _bound(t, i - rows)
        found = f"{size[i]:.3g}" if np.isfinite(values[i]) else f"not finite ({values[i]})"
        lines.append(f"{place}: {found}")
    return lines


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

r"""Which basins join when a fold takes one away.

At a fold a saddle meets an extremum (on a line: a minimum meets a maximum) and both vanish. Just
there H is monotone along the null vector v: the flow of grad H, down if a minimum vanished and up
if a maximum did, runs from the fold to the extremum whose basin inherits; or out of every window,
to an atom that rules at infinity.
"""

from typing import NamedTuple

import numpy as np

from hjcontrol.analysis.bifurcation.pairs import Pairs


class Merge(NamedTuple):
    """At `eps` the basin of `child` joins that of `parent`, both branches.

    `parent` is `None` where the flow left every window, towards the rule of `atom`, or where it was
    `undetermined`.
    """

    eps: float
    child: int
    parent: int | None
    atom: int
    ending: str  # extremum, infinity, undetermined


def entropy_of(pairs: Pairs, x: np.ndarray, eps: float) -> tuple[float, np.ndarray]:
    """H, and its gradient times eps over `1 - max pi`: of order one in the coldest cell too."""
    s = (pairs.W @ x + pairs.b) / eps
    top = int(np.argmax(s))
    c, w = s - s[top], pairs.W - pairs.W[top]
    p = np.exp(c)
    total = p.sum()
    p = p / total
    mean = p @ c
    rest = max(p[:top].sum() + p[top + 1 :].sum(), 1e-300)
    return float(np.log(total) - mean), -((p / rest * c) @ w - (p / rest @ w) * mean)


def inherits(
    pairs: Pairs,
    x: np.ndarray,
    eps: float,
    null: np.ndarray,
    sign: int,
    targets: np.ndarray,
    window: np.ndarray,
) -> tuple[int | None, np.ndarray, str]:
    """Follow the flow from a fold at `x`, `sign` 1 up or -1 down, to one of `targets` (m, d)."""
    size = np.max(window[1] - window[0])
    null = null / np.linalg.norm(null)
    step, rise = 0.0, 0.0
    for step in 10.0 ** np.arange(-4.0, -1.5, 0.5) * size:
        rise = (
            entropy_of(pairs, x + step * null, eps)[0] - entropy_of(pairs, x - step * null, eps)[0]
        )
        if abs(rise) > 1e-9:
            break
    place = x + step * null * np.sign(rise) * sign
    from scipy.integrate import solve_ivp

    if len(x) == 1:  # the next one in that direction
        ahead = (targets[:, 0] - x[0]) * np.sign(place[0] - x[0])
        if np.any(ahead > 0):
            return int(np.argmin(np.where(ahead > 0, ahead, np.inf))), place, "extremum"
        return None, x + np.sign(place - x) * size, "infinity"
    middle, reach = window.mean(axis=0), 1.5 * (window[1] - window[0]) / 2
    flow = lambda t, y: sign * entropy_of(pairs, y, eps)[1]
    close = lambda y: np.min(np.linalg.norm(targets - y, axis=1), initial=np.inf) - 1e-3 * size
    arrive, leave = lambda t, y: close(y), lambda t, y: np.min(reach - np.abs(y - middle))
    for event in (arrive, leave):
        setattr(event, "terminal", True)  # noqa: B010  # how SciPy is told to stop there
    # A ridge is stiff: fast across, slow along. Time runs long because the slow part is exponentially so.
    run = solve_ivp(flow, (0.0, 1e12), place, "BDF", events=(arrive, leave), rtol=1e-6, atol=1e-9)
    place = run.y[:, -1]
    if run.t_events is not None and len(run.t_events[0]):
        near = np.linalg.norm(targets - place, axis=1)
        return int(near.argmin()), place, "extremum"
    outside = run.t_events is not None and len(run.t_events[1]) > 0
    return None, place, "infinity" if outside else "undetermined"


def written(merges: list[Merge], names: list[str]) -> list[str]:
    """The forest as indented lines, the latest merge first; the survivor of each tree at its root."""
    below: dict[str, list[Merge]] = {}
    for m in merges:
        beyond = f"atom {m.atom} at infinity" if m.ending == "infinity" else "undetermined"
        parent = beyond if m.parent is None else names[m.parent]
        below.setdefault(parent, []).append(m)
    gone = {names[m.child] for m in merges}
    lines: list[str] = []

    def write(name: str, indent: int, text: str) -> None:
        lines.append("  " * indent + text)
        for m in sorted(below.get(name, ()), key=lambda m: -m.eps):
            child = names[m.child]
            write(child, indent + 1, f"{child} joins at eps = {m.eps:.6f}")

    for root in [name for name in below if name not in gone]:
        write(root, 0, root)
    return lines

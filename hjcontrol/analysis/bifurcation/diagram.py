r"""The bifurcation diagram: every branch of critical points of the entropy over a range of eps.

    grad H(x, eps) = 0 for eps in [low, high]          folds: det hess H = 0, located by Newton

Branches start from certified lists at both ends and at levels between, and are followed by
continuation; what is certified at a level but lies on no branch yet starts one. So the diagram is
complete at those levels by proof, and between them but for closed loops that live between two
levels.
"""

import itertools

import numpy as np
from numpy.typing import ArrayLike

from hjcontrol._ground.arguments import admits
from hjcontrol._ground.record import Record, Told
from hjcontrol._ground.shown import Shown
from hjcontrol.analysis.bifurcation.continuation import FoldPoint, Path, follow
from hjcontrol.analysis.bifurcation.critical import as_window, first_window, search, table
from hjcontrol.analysis.bifurcation.merging import Merge, inherits, written
from hjcontrol.analysis.bifurcation.pairs import Pairs, kind, polish
from hjcontrol.networks.trained import AnyHead, affine_head_of


class Branch(Shown):
    """The life of one critical point: `eps` (n,) monotone, `points` (n, d), its kind, its folds."""

    eps: np.ndarray
    points: np.ndarray
    kind: str
    folds: tuple[int, ...]

    def at(self, pairs: Pairs, eps: float) -> np.ndarray | None:
        """The point at `eps`, by Newton from the neighbours; `None` outside its life."""
        if not self.eps.min() <= eps <= self.eps.max():
            return None
        order = np.argsort(self.eps)
        columns = self.points[order].T
        guess = np.array([np.interp(np.log(eps), np.log(self.eps[order]), c) for c in columns])
        found = polish(pairs, guess, float(np.log(eps)))[0]
        near = np.abs(found - guess).max() <= 0.1 * (1 + np.ptp(self.points, axis=0).max())
        return found if near else guess


class Fold(Shown):
    """Where two branches meet and vanish as eps grows, or appear (`birth`)."""

    eps: float
    point: np.ndarray
    null: np.ndarray
    branches: tuple[int, int]
    kinds: tuple[str, str]
    birth: bool
    step: float  # the last Newton step: how well it is located
    simple: bool  # both nondegeneracies hold; else branches cross, as symmetry makes them

    @property
    def story(self) -> str:
        """What happens as eps grows, in words. Only a simple fold takes both points away."""
        one, other = self.kinds
        if self.simple:
            return f"{one} and {other} {'appear' if self.birth else 'annihilate'}"
        if one == other:
            return f"pitchfork: one {one} {'parts into two' if self.birth else 'is left of two'}"
        return f"branches cross: {one} and {other} meet, not in a simple fold"


class Bifurcation(Told, Shown):
    """Branches, folds in order of eps, the basin-merge tree, and at which eps completeness is proved."""

    eps: tuple[float, float]
    window: np.ndarray
    branches: tuple[Branch, ...]
    folds: tuple[Fold, ...]
    merges: tuple[Merge, ...]
    levels: tuple[tuple[float, int, bool], ...]  # eps, certified count, agrees with the branches
    left: int  # ends of branches at the window's edge
    pairs: Pairs

    @property
    def complete(self) -> bool:
        """Whether every level was certified and agrees with the branches."""
        return all(agrees for _, _, agrees in self.levels)

    @property
    def names(self) -> list[str]:
        """A name for each branch: kind and number."""
        return [f"{b.kind} {k}" for k, b in enumerate(self.branches)]

    def at(self, eps: float) -> tuple[np.ndarray, tuple[str, ...], tuple[int, ...]]:
        """Critical points at `eps`, their kinds, and the branches they lie on."""
        found = [(k, b.at(self.pairs, eps)) for k, b in enumerate(self.branches)]
        here = [(k, x) for k, x in found if x is not None]
        points = np.array([x for _, x in here]).reshape(-1, self.window.shape[1])
        return points, tuple(self.branches[k].kind for k, _ in here), tuple(k for k, _ in here)

    def counts(self) -> list[int]:
        """How many critical points there are below the first fold, between folds, and above the last."""
        edges = [self.eps[0], *(f.eps for f in self.folds), self.eps[1]]
        return [len(self.at(np.sqrt(a * b))[1]) for a, b in itertools.pairwise(edges)]

    def merge_tree(self) -> str:
        """The basin-merge tree as indented text."""
        return "\n".join(written(list(self.merges), self.names)) or "no basin merges"

    def as_record(self) -> Record:
        """What this result says of itself."""
        row = lambda f: {
            "eps": f"{f.eps:.9f}",
            "what": f.story,
            "at": np.array2string(f.point, precision=6),
        }
        proved = ", ".join(f"{e:.4g}" for e, _, ok in self.levels if ok)
        wrong = ", ".join(f"{e:.4g}" for e, _, ok in self.levels if not ok)
        edge = f"{self.left} ends of branches lie at the window's edge"
        return Record(
            f"Entropy landscape for eps in [{self.eps[0]:g}, {self.eps[1]:g}]",
            f"{len(self.branches)} branches, {len(self.folds)} folds",
            facts={
                "critical points as eps grows": " -> ".join(map(str, self.counts())),
                "complete at eps": (proved or "none") + (f"; NOT at {wrong}" if wrong else ""),
            },
            rows={"": [row(f) for f in self.folds]},
            notes=(edge,) if self.left else (),
        )


@admits(eps=">= 0", levels=">= 1", most_boxes=">= 1")
def bifurcation_diagram(
    layer: AnyHead,
    eps: tuple[float | int, float | int],
    window: ArrayLike | None = None,
    *,
    levels: int = 1,
    most_boxes: int = 400_000,
) -> Bifurcation:
    """All branches and folds of the entropy's critical points for `eps` in `(low, high)`; d is 1 or 2.

    The layer's own `eps` is not used. `levels`: how many values between the ends get a certified
    list as well. `window=None`: as in `critical_points`, four times as wide. The time goes into the
    certified list at `low`.

    **Raises:** `ValueError` unless `0 < low < high`, and as `critical_points`.
    """
    low, high = float(eps[0]), float(eps[1])
    if not 0 < low < high < np.inf or levels < 0:
        raise ValueError(
            f"bifurcation_diagram: 0 < low < high and levels >= 0 are needed; found {eps}, {levels}."
        )
    pairs = table("bifurcation_diagram", affine_head_of("bifurcation_diagram", layer))
    if window is None:
        box = first_window(pairs)
        box = box.mean(axis=0) + 4 * (box - box.mean(axis=0))
    else:
        box = as_window("bifurcation_diagram", pairs, window)
    span = float(np.log(low)), float(np.log(high))
    between = np.linspace(*span, levels + 2)
    branches, folds, checked, left = [], [], [], 0
    for lam in [between[0], between[-1], *between[1:-1]]:
        found = search(pairs, float(np.exp(lam)), box, most_boxes)
        for x in found.points:
            if not _on_a_branch(pairs, branches, x, float(np.exp(lam)), box):
                path, ends = _both_ways(pairs, x, float(lam), span, box)
                left += ends
                _cut(pairs, path, branches, folds)
        checked.append((lam, found))
    order = np.argsort([f.eps for f in folds])
    rank = np.argsort(order)
    folds = tuple(folds[k] for k in order)
    lives = tuple(
        Branch(b.eps, b.points, b.kind, tuple(int(rank[f]) for f in b.folds)) for b in branches
    )
    shell = Bifurcation((low, high), box, lives, folds, (), (), left, pairs)
    agree = [
        (f.eps, len(f.points), f.certified and len(shell.at(f.eps)[1]) == len(f.points))
        for _, f in sorted(checked, key=lambda pair: pair[0])
    ]
    merges = tuple(m for f in folds if (m := _merge(shell, f)) is not None)
    return Bifurcation((low, high), box, lives, folds, merges, tuple(agree), left, pairs)


def _on_a_branch(pairs: Pairs, branches: list, x: np.ndarray, eps: float, box: np.ndarray) -> bool:
    size = 1e-6 * np.max(box[1] - box[0])
    places = (b.at(pairs, eps) for b in branches)
    return any(p is not None and np.abs(p - x).max() < size for p in places)


def _both_ways(
    pairs: Pairs, x: np.ndarray, lam: float, span: tuple[float, float], box: np.ndarray
) -> tuple[Path, int]:
    """The whole branch through a point, as one path; how many of its ends are at the window's edge."""
    there = lambda heading: follow(pairs, x, lam, heading, span, box)
    if lam in span:
        only = there(1 if lam == span[0] else -1)
        return only, int(only.end not in ("top", "bottom"))
    up, down = there(1), there(-1)
    n = len(down.lam)
    folds = [(n - 2 - k, f) for k, f in down.folds] + [(n - 1 + k, f) for k, f in up.folds]
    points = np.concatenate([down.points[::-1], up.points[1:]])
    lams = np.concatenate([down.lam[::-1], up.lam[1:]])
    ends = sum(p.end not in ("top", "bottom") for p in (up, down))
    return Path(points, lams, sorted(folds, key=lambda pair: pair[0]), up.end), ends


def _cut(pairs: Pairs, path: Path, branches: list, folds: list) -> None:
    """Split a path at its folds into lives, and record both."""
    starts = [0, *(k + 1 for k, _ in path.folds)]
    ends = [*(k + 1 for k, _ in path.folds), len(path.lam)]
    reach: list[tuple[int, int]] = []  # first and last life of each stretch
    for n, (a, b) in enumerate(zip(starts, ends, strict=True)):
        at = [len(folds) + k for k in (n - 1, n) if 0 <= k < len(path.folds)]
        before = [path.folds[n - 1][1]] if n else []
        after = [path.folds[n][1]] if n < len(path.folds) else []
        lam = np.concatenate([[f.lam for f in before], path.lam[a:b], [f.lam for f in after]])
        points = np.concatenate([*([f.x[None] for f in before]), path.points[a:b],
                                 *([f.x[None] for f in after])])  # fmt: skip
        here = [
            kind(pairs, x, float(m)) for x, m in zip(path.points[a:b], path.lam[a:b], strict=True)
        ]
        kinds = here[:1] * len(before) + here + here[-1:] * len(after)
        lives = _lives(pairs, lam, points, kinds, tuple(at))
        reach.append((len(branches), len(branches) + len(lives) - 1))
        branches.extend(lives)
    for n, (k, f) in enumerate(path.folds):
        mates = reach[n][1], reach[n + 1][0]
        folds.append(_fold(f, mates, branches, birth=bool(path.lam[k] > f.lam)))


def _lives(
    pairs: Pairs, lam: np.ndarray, points: np.ndarray, kinds: list[str], folds: tuple[int, ...]
) -> list[Branch]:
    """One branch a run of equal kinds: off a fold the kind changes only where branches cross."""
    turns = [k for k in range(1, len(kinds)) if kinds[k] != kinds[k - 1]]
    out, head = [], None
    for start, end in itertools.pairwise([0, *turns, len(kinds)]):
        stretch, place = lam[start:end], points[start:end]
        if head is not None:
            stretch, place = np.append(head[1], stretch), np.vstack([head[0], place])
        if end < len(kinds):
            two = slice(end - 1, end + 1)
            head = _crossing(pairs, points[two], lam[two], kinds[start])
            stretch, place = np.append(stretch, head[1]), np.vstack([place, head[0]])
        out.append(Branch(np.exp(stretch), place, kinds[start], folds))
    return out


def _crossing(
    pairs: Pairs, points: np.ndarray, lam: np.ndarray, before: str
) -> tuple[np.ndarray, float]:
    """Where the kind changes between two points of a branch, by bisection in lam."""
    (x0, x1), (low, high) = points, lam
    for _ in range(45):
        middle = (low + high) / 2
        x = polish(pairs, (x0 + x1) / 2, middle)[0]
        if kind(pairs, x, middle) == before:
            x0, low = x, middle
        else:
            x1, high = x, middle
    return (x0 + x1) / 2, float((low + high) / 2)


def _fold(f: FoldPoint, mates: tuple[int, int], branches: list, birth: bool) -> Fold:
    kinds = tuple(sorted(branches[m].kind for m in mates))
    simple = min(f.crossing, f.bending) > 1e-5 and f.step < 1e-9
    return Fold(float(np.exp(f.lam)), f.x, f.null, mates, kinds, birth, f.step, simple)


def _merge(whole: Bifurcation, fold: Fold) -> Merge | None:
    """Whose basin inherits that of the extremum which a fold takes away."""
    if fold.birth or not fold.simple:
        return None
    on_line = whole.window.shape[1] == 1
    vanishing = "minimum" if on_line else next(k for k in fold.kinds if k != "saddle")
    child = next(m for m in fold.branches if whole.branches[m].kind == vanishing)
    points, kinds, at = whole.at(fold.eps)
    keep = [n for n, k in enumerate(at) if kinds[n] == vanishing and k not in fold.branches]
    sign = -1 if vanishing == "minimum" else 1
    targets = points[keep].reshape(-1, points.shape[1])
    hit, place, ending = inherits(
        whole.pairs, fold.point, fold.eps, fold.null, sign, targets, whole.window
    )
    atom = int(np.argmax(whole.pairs.W @ place + whole.pairs.b))
    return Merge(fold.eps, child, None if hit is None else at[keep[hit]], atom, ending)

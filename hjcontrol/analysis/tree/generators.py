r"""Convex regions by vertices and directions: what a hyperplane cuts is read off, without a program.

A region {x : A x + c >= 0} is the slice t = 1 of a cone over (x, t). The cone is what its lines and its
extreme rays span; a ray with t > 0 is a vertex, one with t = 0 a direction in which the region goes on
for ever. A hyperplane cuts the region exactly if rays lie on both its sides; the new rays lie between
neighbours, which are pairs with rows in common that no third ray has (the double description method:
Motzkin et al. 1953, Fukuda and Prodon 1996).
"""

from typing import NamedTuple

import numpy as np

TOUCHES = 1e-10  # of a ray of unit length: what lies nearer to a hyperplane lies on it
MOST = 400  # rays; in many dimensions there are more vertices than a linear program costs


class Generators(NamedTuple):
    """A cone over (x, t)."""

    lines: np.ndarray  # (k, d + 1)
    rays: np.ndarray  # (m, d + 1), unit length
    tight: np.ndarray  # (m, rows): which rows each ray meets with equality


def of_everything(d: int) -> Generators:
    """All of space."""
    basis = np.eye(d + 1)
    return Generators(basis[:d], basis[d:], np.zeros((1, 1), bool))


def of_a_box(A: np.ndarray, c: np.ndarray) -> Generators | None:
    """Of the box `A x + c >= 0`, rows of unit length; `None` if it has more than `MOST` vertices."""
    whole = of_everything(A.shape[1]) if 2 ** A.shape[1] <= MOST else None
    for a, offset in zip(A, c, strict=True):
        whole = whole and cut(whole, a, offset)[1]
    return whole


def unless_many(found: Generators) -> Generators | None:
    """`None` where they cost more than linear programs do."""
    return found if len(found.rays) <= MOST else None


def center(found: Generators) -> np.ndarray:
    """An interior point."""
    total = found.rays.sum(axis=0)
    return total[:-1] / total[-1]


def sides(whole: Generators, h: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether each hyperplane `h.(x, 1)`, rows of unit length but for the last entry, leaves anything of
    the region on its negative side, and on its positive one."""
    height = whole.rays @ h.T
    below, above = height.min(axis=0) < -TOUCHES, height.max(axis=0) > TOUCHES
    if len(whole.lines):
        across = (np.abs(whole.lines @ h.T) > TOUCHES).any(axis=0)
        return below | across, above | across
    return below, above


def cut(whole: Generators, a: np.ndarray, c: float) -> tuple[Generators | None, Generators | None]:
    """The parts where `a.x + c` is negative and not, |a| = 1; `None` for one without interior."""
    h = np.concatenate([a, [c]])
    if len(whole.lines):
        along = whole.lines @ h
        k = int(np.abs(along).argmax())
        if abs(along[k]) > TOUCHES:
            return _across(whole, h, along, k)
    height = whole.rays @ h
    above, below = height > TOUCHES, height < -TOUCHES
    if not above.any():
        return whole, None
    if not below.any():
        return None, whole
    new, met = _between(whole, height, above.nonzero()[0], below.nonzero()[0])
    on = ~(above | below)
    parts = []
    for side in (below, above):
        keep = side | on
        rays = np.concatenate([whole.rays[keep], new])
        tight = np.zeros((len(rays), whole.tight.shape[1] + 1), bool)
        n = len(rays) - len(new)
        tight[:n, :-1], tight[:n, -1] = whole.tight[keep], on[keep]
        tight[n:, :-1], tight[n:, -1] = met, True
        parts.append(Generators(whole.lines, rays, tight))
    return parts[0], parts[1]


def _across(
    whole: Generators, h: np.ndarray, along: np.ndarray, k: int
) -> tuple[Generators, Generators]:
    """A line crosses the hyperplane: the other generators slide along it until they lie there."""
    line = whole.lines[k] / along[k]
    others = np.delete(whole.lines, k, axis=0)
    others = _unit(others - np.outer(np.delete(along, k), line))
    rays = _unit(whole.rays - np.outer(whole.rays @ h, line))
    m, rows = whole.tight.shape
    tight = np.ones((m + 1, rows + 1), bool)
    tight[:m, :-1] = whole.tight
    tight[m, -1] = False
    line = line / np.linalg.norm(line)
    below, above = (np.concatenate([rays, [sign * line]]) for sign in (-1.0, 1.0))
    return Generators(others, below, tight), Generators(others, above, tight)


def _between(
    whole: Generators, height: np.ndarray, above: np.ndarray, below: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Rays on the hyperplane between neighbours on its two sides, and the rows that they meet."""
    tight = whole.tight.astype(np.float32)
    common = tight[above] @ tight[below].T
    least = whole.rays.shape[1] - len(whole.lines) - 2  # an edge of the cone meets so many rows
    i, j = (common > least - 0.5).nonzero()
    i, j = above[i], below[j]
    shared = whole.tight[i] & whole.tight[j]
    # (pairs, rays): rows that a ray does not meet
    lacking = shared.astype(np.float32) @ (1 - tight).T
    neighbours = (lacking < 0.5).sum(axis=1) == 2
    i, j = i[neighbours], j[neighbours]
    new = height[i, None] * whole.rays[j] - height[j, None] * whole.rays[i]
    return _unit(new), shared[neighbours]


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.sqrt((rows * rows).sum(axis=1, keepdims=True))

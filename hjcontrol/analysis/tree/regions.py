r"""Convex regions `A x + c >= 0` with an interior point, and the linear program that finds one.

    maximise r  subject to  A_k.x + c_k >= r |A_k|,  r <= 1          (HiGHS, through SciPy)

r > 0 exactly if the region has an interior; x is then a point of it, and r its distance to the boundary
(at most 1). Regions need not be bounded. What is thinner than `THIN` counts as empty.
"""

from typing import NamedTuple

import numpy as np

from hjcontrol.analysis.tree.generators import (
    Generators,
    center,
    cut,
    of_a_box,
    of_everything,
    sides,
    unless_many,
)

THIN = 1e-9


class Region(NamedTuple):
    """Rows of unit length `A` (m, d), `c` (m,), and an interior point."""

    A: np.ndarray
    c: np.ndarray
    inside: np.ndarray
    generators: Generators | None = None  # unless they are too many
    box: np.ndarray | None = None  # (2, d), where the region lies


def everywhere(d: int, box: np.ndarray | None = None) -> Region:
    """The whole space, or a box (2, d)."""
    if box is None:
        return Region(np.zeros((0, d)), np.zeros(0), np.zeros(d), of_everything(d))
    A, c = np.vstack([np.eye(d), -np.eye(d)]), np.concatenate([-box[0], box[1]])
    return Region(A, c, box.mean(axis=0), of_a_box(A, c), box)


def reached(region: Region, h: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Whether the negative side of each hyperplane `h.(x, 1)`, rows, meets the region, and the positive
    one: by its generators, or by its box, which may say so of a side that does not. `None`: unknown."""
    if region.generators is not None:
        return sides(region.generators, h)
    if region.box is None:
        return None
    low, high = region.box
    at = h[:, :-1] @ ((low + high) / 2) + h[:, -1]
    reach = np.abs(h[:, :-1]) @ ((high - low) / 2) + THIN
    return at < reach, at > -reach


def unit(a: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows scaled to unit length."""
    length = np.linalg.norm(a, axis=-1)
    return a / length[..., None], c / length


def interior(A: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, float]:
    """A point deepest inside, and its depth (at most 1); a depth <= `THIN` means none."""
    from scipy.optimize import Bounds, LinearConstraint, milp

    d = A.shape[1]
    if not len(A):
        return np.zeros(d), 1.0
    rows = np.column_stack([A, -np.ones(len(A))])
    found = milp(
        np.append(np.zeros(d), -1.0),
        constraints=LinearConstraint(rows, -c, np.inf),
        bounds=Bounds(np.full(d + 1, -np.inf), np.append(np.full(d, np.inf), 1.0)),
    )
    if found.x is None:
        raise RuntimeError(f"interior: HiGHS on {len(A)} rows in dimension {d}: {found.message}")
    x = found.x[:d]
    return x, float(np.min(A @ x + c))  # judged by us, not by the solver's tolerance


def halves(region: Region, a: np.ndarray, c: float) -> tuple[Region | None, Region | None]:
    """The parts where `a.x + c` is negative, and not; `None` for one without interior."""
    length = float(np.sqrt(a @ a))
    if length == 0:
        return (region, None) if c < 0 else (None, region)
    a, c = a / length, c / length
    if region.generators is not None:
        return _read_off(region, a, c)
    height = float(a @ region.inside + c)
    parts = []
    for sign in (-1.0, 1.0):
        A, offsets = np.vstack([region.A, sign * a]), np.append(region.c, sign * c)
        if sign * height > 10 * THIN:
            parts.append(Region(A, offsets, region.inside, box=region.box))
            continue
        x, depth = interior(A, offsets)
        parts.append(Region(A, offsets, x, box=region.box) if depth > THIN else None)
    if parts[0] is not None and parts[1] is not None:
        return parts[0], parts[1]
    # One side is empty: the row cuts nothing off. Both are: the thin region lies where its point does.
    lower = parts[1] is None and (parts[0] is not None or height < 0)
    return (region, None) if lower else (None, region)


def _read_off(region: Region, a: np.ndarray, c: float) -> tuple[Region | None, Region | None]:
    """The two parts by the region's generators."""
    below, above = cut(region.generators, a, c)
    if below is None or above is None:
        return (region, None) if above is None else (None, region)
    height = float(a @ region.inside + c)
    parts = []
    for sign, part in ((-1.0, below), (1.0, above)):
        inside = region.inside if sign * height > 10 * THIN else center(part)
        A, offsets = (
            np.concatenate([region.A, sign * a[None]]),
            np.concatenate([region.c, [sign * c]]),
        )
        parts.append(Region(A, offsets, inside, unless_many(part), region.box))
    return parts[0], parts[1]


def touching(A: np.ndarray, c: np.ndarray, a: np.ndarray, at: float) -> bool:
    """Whether `A x + c > 0` somewhere on the hyperplane `a.x + at = 0`."""
    foot = -at * a / (a @ a)
    basis = np.linalg.svd(a[None])[2][1:].T  # (d, d - 1)
    A, c = A @ basis, A @ foot + c
    length = np.linalg.norm(A, axis=1)
    flat = length <= 1e-12
    if np.any(c[flat] <= THIN):
        return False
    return interior(*unit(A[~flat], c[~flat]))[1] > THIN


def minimal(A: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Indices of rows that cannot be left out: facets of the region."""
    keep = np.ones(len(c), bool)
    for k in range(len(c)):
        keep[k] = False  # is there a point that violates row k and no other?
        outside = interior(np.vstack([A[keep], -A[k]]), np.append(c[keep], -c[k]))[1]
        keep[k] = outside > THIN
    return np.flatnonzero(keep)

r"""Branches of critical points in (x, lam), lam = log eps, through their folds.

    g(x, lam) = 0           pseudo-arclength: tangent (x', lam') spans the kernel of [g_x, g_lam]
    fold:  g = 0,  g_x v = 0,  |v|^2 = 1        (Moore and Spence: regular there, so Newton is quadratic)

A fold shows as a change of sign of lam' between two steps; Newton on the augmented system, started from
there, then locates it: no scan over eps. The fold is simple if neither l.g_lam nor l.g_xx v v
vanishes (l the left null vector); by symmetry the first can, and branches then cross instead.
"""

from typing import NamedTuple

import numpy as np

from hjcontrol.analysis.bifurcation.pairs import Pairs, field, polish


class FoldPoint(NamedTuple):
    """One fold: place, log eps, null vector, size of the last Newton step, both nondegeneracies."""

    x: np.ndarray
    lam: float
    null: np.ndarray
    step: float
    crossing: float  # l.g_lam, over |g_lam|
    bending: float  # l.g_xx v v, over |g_xx v v|


class Path(NamedTuple):
    """One branch: `points` (n, d), `lam` (n,), its folds and the steps they follow; how it ended."""

    points: np.ndarray
    lam: np.ndarray
    folds: list[tuple[int, FoldPoint]]
    end: str


def locate_fold(pairs: Pairs, x: np.ndarray, lam: float, steps: int = 60) -> FoldPoint | None:
    """Newton on the augmented system from a point near a fold; `None` if it does not converge.

    Where branches cross the system is singular: steps stop shrinking at a root of roundoff. The best
    iterate is taken then, its `step` saying how well it is known.
    """
    d = len(x)
    v = np.linalg.svd(field(pairs, x, lam).jacobian)[2][-1]
    size, best = np.inf, (np.inf, x, v, lam)
    singular = False
    for _ in range(steps):
        f = field(pairs, x, lam)
        residual = np.concatenate([f.value, f.jacobian @ v, [(v @ v - 1) / 2]])
        J = np.zeros((2 * d + 1, 2 * d + 1))
        J[:d, :d], J[:d, -1] = f.jacobian, f.slope
        J[d:-1, :d] = np.einsum("abc,b->ac", f.bend, v)
        J[d:-1, d:-1], J[d:-1, -1] = f.jacobian, f.twist @ v
        J[-1, d:-1] = v
        try:
            step = np.linalg.solve(J, residual)
        except np.linalg.LinAlgError:
            return None
        x, v, lam = x - step[:d], v - step[d:-1], lam - step[-1]
        size = float(np.max(np.abs(np.append(step[:d], step[-1]))))
        if not np.isfinite(size) or size > 1e3:
            return None
        singular = singular or np.linalg.cond(J) > 1e8
        if size < best[0]:
            best = size, x, v, lam
        elif best[0] < 1e-10:
            break
    size, x, v, lam = best
    if not size < (1e-4 if singular else 1e-9):
        return None
    f = field(pairs, x, lam)
    left = np.linalg.svd(f.jacobian)[0][:, -1]
    curve = np.einsum("abc,b,c->a", f.bend, v, v)
    ratio = lambda a: float(abs(left @ a) / max(np.linalg.norm(a), 1e-300))
    return FoldPoint(x, float(lam), v, size, ratio(f.slope), ratio(curve))


def follow(
    pairs: Pairs,
    x: np.ndarray,
    lam: float,
    heading: int,
    span: tuple[float, float],
    window: np.ndarray,
    *,
    most_steps: int = 4000,
) -> Path:
    """The branch through `(x, lam)`, started towards larger (`heading` 1) or smaller (-1) `lam`."""
    scale = np.max(window[1] - window[0]) / 10
    u = np.append(x / scale, lam)
    tangent = _tangent(pairs, u, scale, np.append(np.zeros(len(x)), float(heading)))
    points, folds = [u], []
    ds, end = 0.02, "step limit"
    for _ in range(most_steps):
        after, turned = _step(pairs, u, tangent, ds, scale)
        if after is None or turned @ tangent < 0.97:
            ds /= 2
            if ds < 1e-9:
                end = "stuck"
                break
            continue
        if tangent[-1] * turned[-1] < 0:
            seed = u if abs(tangent[-1]) < abs(turned[-1]) else after
            fold = locate_fold(pairs, seed[:-1] * scale, seed[-1])
            near = (
                fold is not None
                and np.linalg.norm(np.append(fold.x / scale, fold.lam) - u) < 3 * ds
            )
            if not near and ds > 1e-6:
                ds /= 2
                continue
            if near:
                folds.append((len(points) - 1, fold))
        u, tangent = after, turned
        points.append(u)
        ds = min(1.4 * ds, 0.1)
        place = u[:-1] * scale
        if not span[0] <= u[-1] <= span[1]:
            end = "top" if u[-1] > span[1] else "bottom"
            break
        if np.any(place < window[0]) or np.any(place > window[1]):
            end = "left the window"
            break
    track = np.array(points)
    track, lam_track = track[:, :-1] * scale, track[:, -1]
    if end in ("top", "bottom") and len(points) > 1:  # end exactly on the edge
        edge = span[1] if end == "top" else span[0]
        share = (edge - lam_track[-2]) / (lam_track[-1] - lam_track[-2])
        guess = track[-2] + share * (track[-1] - track[-2])
        track[-1], lam_track[-1] = polish(pairs, guess, edge)[0], edge
    return Path(track, lam_track, folds, end)


def _tangent(pairs: Pairs, u: np.ndarray, scale: float, along: np.ndarray) -> np.ndarray:
    """Unit kernel of [scale g_x, g_lam] at `u = (x/scale, lam)`, on the side of `along`."""
    f = field(pairs, u[:-1] * scale, u[-1])
    tangent = np.linalg.svd(np.column_stack([f.jacobian * scale, f.slope]))[2][-1]
    return tangent if tangent @ along >= 0 else -tangent


def _step(
    pairs: Pairs, u: np.ndarray, tangent: np.ndarray, ds: float, scale: float
) -> tuple[np.ndarray | None, np.ndarray]:
    """Predict along the tangent, correct across it by Newton."""
    guess = u + ds * tangent
    v = guess
    for _ in range(6):
        f = field(pairs, v[:-1] * scale, v[-1])
        J = np.vstack([np.column_stack([f.jacobian * scale, f.slope]), tangent])
        residual = np.append(f.value, tangent @ (v - guess))
        try:
            step = np.linalg.solve(J, residual)
        except np.linalg.LinAlgError:
            return None, tangent
        v = v - step
        size = np.linalg.norm(step)
        if not np.isfinite(size) or np.linalg.norm(v - guess) > 0.5 * ds:
            return None, tangent
        if size < 1e-12:
            return v, _tangent(pairs, v, scale, tangent)
    return None, tangent

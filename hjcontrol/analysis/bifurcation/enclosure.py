r"""All zeros of the pair sum g in a box, by subdivision that is a proof.

On a box with centre c and half-widths h every s_ij and E_ij is linear, so its range is exact; with them
g and its Jacobian J are enclosed. A box is settled when

    empty    0 is outside g(B) or g(c) + J(B)(B - c), or K = c - Y g(c) + (I - Y J(B))(B' - c) misses B
    one      K lies inside B', B grown by half: Krawczyk, exactly one zero in B', Y ~ J(c)^{-1}

and halved otherwise. Sums are widened by a bound on their rounding errors, so the count is a proof
for the weights given, their differences rounded to float64. A box neither settled nor wider than
`finest` stays open: near a fold two zeros are closer than any fixed width.
"""

from typing import NamedTuple

import numpy as np

from hjcontrol.analysis.bifurcation.pairs import Pairs, frame, leading, polish

UNIT = np.finfo(float).eps / 2
AT_ONCE = 400_000  # boxes times pairs held in memory


class Enclosed(NamedTuple):
    """Zeros `points` (m, d), each proved; boxes left `open` (r, 2, d), as centre and half-widths."""

    points: np.ndarray
    open: np.ndarray
    boxes: int


class Bounds(NamedTuple):
    """Enclosures over a batch of boxes: g at the centre, g over the box, its Jacobian over the box."""

    centre: tuple[np.ndarray, np.ndarray]
    value: tuple[np.ndarray, np.ndarray]
    jacobian: tuple[np.ndarray, np.ndarray]


def enclose(
    pairs: Pairs, eps: float, window: np.ndarray, *, finest: float = 1e-7, most_boxes: int = 400_000
) -> Enclosed:
    """Every zero of g in `window` (2, d): its lower and upper corner."""
    low, high = window
    d = len(low)
    cuts = {1: 16, 2: 12}[d]
    # Off the centre: symmetric data have zeros on symmetric cuts.
    at = [lo + (hi - lo) * (np.arange(cuts) + 0.5) / cuts for lo, hi in zip(low, high, strict=True)]
    centres = np.stack([m.ravel() for m in np.meshgrid(*at, indexing="ij")], axis=1)
    halves = np.broadcast_to((high - low) / (2 * cuts), centres.shape).copy()
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    unsettled: list[np.ndarray] = []
    batch, seen = max(1, AT_ONCE // len(pairs.first)), 0
    while len(centres):
        c, h = centres[:batch], halves[:batch]
        centres, halves = centres[batch:], halves[batch:]
        seen += len(c)
        empty, one = _settle(pairs, eps, c, h)
        for k in np.flatnonzero(one):
            found.append((c[k], h[k], polish(pairs, c[k], np.log(eps))[0]))
        left = ~(empty | one)
        c, h = c[left], h[left]
        small = np.all(h <= finest * (high - low), axis=1)
        if seen + len(centres) > most_boxes:
            small[:] = True
        unsettled.extend(np.stack([c[small], h[small]], axis=1))
        c, h = c[~small], h[~small]
        widest = np.argmax(h / (high - low), axis=1)
        half = h.copy()
        half[np.arange(len(h)), widest] /= 2
        shift = np.zeros_like(h)
        shift[np.arange(len(h)), widest] = half[np.arange(len(h)), widest]
        centres = np.concatenate([centres, c - shift, c + shift])
        halves = np.concatenate([halves, half, half])
    points = _distinct(found, window)
    open_boxes = np.array(unsettled).reshape(-1, 2, d)
    return Enclosed(points, open_boxes, seen)


def _distinct(found: list, window: np.ndarray) -> np.ndarray:
    """Zeros without repetition: two are one when each lies in the other's box of uniqueness."""
    kept: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    slack = 1e-12 * (window[1] - window[0])
    for c, h, x in found:
        again = any(
            np.all(np.abs(x - c2) <= GROWN * h2 + slack) or np.allclose(x, x2, rtol=0, atol=1e-13)
            for c2, h2, x2 in kept
        )
        if not again and np.all((x >= window[0] - slack) & (x <= window[1] + slack)):
            kept.append((c, h, x))
    points = np.array([x for _, _, x in kept]).reshape(-1, window.shape[1])
    return points[np.lexsort(points.T[::-1])]


GROWN = 1.5


def _settle(
    pairs: Pairs, eps: float, c: np.ndarray, h: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Which boxes hold no zero, and which (grown by half) hold exactly one."""
    at = bounds(pairs, eps, c, h)
    spread = np.maximum(np.abs(at.jacobian[0]), np.abs(at.jacobian[1]))
    reach = np.einsum("mab,mb->ma", spread, h) * (1 + 8 * UNIT)
    low = np.maximum(at.value[0], at.centre[0] - reach)
    high = np.minimum(at.value[1], at.centre[1] + reach)
    empty = np.any((low > 0) | (high < 0), axis=1)
    one = np.zeros(len(c), bool)
    todo = np.flatnonzero(~empty)
    if len(todo):
        _, width, missed = _krawczyk(at, c, h, todo)
        empty[todo] |= missed
        # only where J is regular enough on the box itself is it worth a second look, on the grown one
        todo = todo[np.all(width < h[todo], axis=1) & ~missed]
    if len(todo):
        wide = bounds(pairs, eps, c[todo], GROWN * h[todo])
        image, _, _ = _krawczyk(wide, c[todo], GROWN * h[todo], np.arange(len(todo)))
        one[todo] = np.all(image < GROWN * h[todo], axis=1)
    return empty, one & ~empty


def _krawczyk(
    at: Bounds, c: np.ndarray, h: np.ndarray, todo: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Largest |K - c| a coordinate, the half-width of K, and whether K misses the box."""
    lo, hi = at.jacobian[0][todo], at.jacobian[1][todo]
    mid, rad = (lo + hi) / 2, (hi - lo) / 2
    well = np.abs(np.linalg.det(mid)) > 0
    Y = np.zeros_like(mid)
    Y[well] = np.linalg.inv(mid[well])
    g = (at.centre[0][todo] + at.centre[1][todo]) / 2
    g_rad = (at.centre[1][todo] - at.centre[0][todo]) / 2
    absY = np.abs(Y)
    d = mid.shape[1]
    defect = np.abs(np.eye(d) - Y @ mid) + absY @ (rad + 8 * d * UNIT * np.abs(mid))
    step = np.einsum("mab,mb->ma", Y, g)
    width = np.einsum("mab,mb->ma", absY, g_rad) + np.einsum("mab,mb->ma", defect, h[todo])
    width = width * (1 + 16 * UNIT) + 8 * UNIT * (np.abs(step) + np.abs(c[todo]))
    missed = well & np.any(np.abs(step) - width > h[todo], axis=1)
    image = np.where(well[:, None], np.abs(step) + width, np.inf)
    return image, np.where(well[:, None], width, np.inf), missed


def bounds(pairs: Pairs, eps: float, c: np.ndarray, h: np.ndarray) -> Bounds:
    """Enclosures of g and J over boxes `c +- h` (m, d), each in its own frame and scale."""
    k = leading(c @ pairs.W.T + pairs.b)  # (m,)
    p = pairs.slope / eps
    s = c @ p.T + pairs.offset / eps  # (m, K)
    s_rad = h @ np.abs(p).T
    D = (pairs.slope_sum[None] - pairs.slope_sum[k][:, None]) / eps  # (m, K, d)
    E = np.einsum("mkd,md->mk", D, c) + (pairs.offset_sum - pairs.offset_sum[k][:, None]) / eps
    E_rad = np.einsum("mkd,md->mk", np.abs(D), h)
    P = np.einsum("kd,mad->mka", pairs.slope, frame(pairs.slope[k]))
    P[np.arange(len(k)), k, 1:] = 0.0
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        small, mid, large = np.exp(E - E_rad), np.exp(E), np.exp(E + E_rad)
        # every logit is a sum of d + 1 products: its error, then that of the exponential
        most = np.abs(pairs.W).max() * np.abs(c).max(axis=1) + np.abs(pairs.b).max()
        error = 16 * UNIT * (len(pairs.first) + 8 + 4 * (most / eps))[:, None]
        middle = np.einsum("mka,mk->ma", P, s * mid)
        slack = error * np.einsum("mka,mk->ma", np.abs(P), (np.abs(s) + 2) * mid)
        centre = middle - slack, middle + slack
        value = _sum(P, s - s_rad, s + s_rad, small, large, error)
        jac_lo, jac_hi = [], []
        for b in range(c.shape[1]):
            at, rad = p[:, b] + s * D[..., b], s_rad * np.abs(D[..., b])
            lo, hi = _sum(P, at - rad, at + rad, small, large, error, np.abs(D[..., b]))
            jac_lo.append(lo)
            jac_hi.append(hi)
    jacobian = np.stack(jac_lo, axis=-1), np.stack(jac_hi, axis=-1)
    return Bounds(centre, value, jacobian)


def _sum(P, lo, hi, small, large, error, scale=1.0):
    """Range of `sum_k P_ka q_k w_k` for `q` in [lo, hi], `w` in [small, large], rounding included."""
    down = np.where(lo >= 0, lo * small, lo * large)
    up = np.where(hi >= 0, hi * large, hi * small)
    size = (np.maximum(np.abs(lo), np.abs(hi)) + 1 + scale) * large * error
    plus, minus = np.maximum(P, 0.0), np.minimum(P, 0.0)
    over = lambda A, q: np.matmul(q[:, None, :], A)[:, 0]  # sum over pairs
    least = over(plus, down) + over(minus, up)
    most = over(plus, up) + over(minus, down)
    slack = over(plus - minus, size)
    low, high = least - slack, most + slack
    bad = ~(np.isfinite(low) & np.isfinite(high))
    return np.where(bad, -np.inf, low), np.where(bad, np.inf, high)

r"""The pricing problem: is there a slope, anywhere in a ball, that would improve a Hopf-Cole fit?

    q(w) = E_{pi_w}[s],   pi_w = Gibbs state over the samples at logits (w . x_i - y_i)/eps,   |w| <= R

q(w) <= 1 for all w   the scores are feasible for *all* slopes of the ball: no atom improves the fit
grad q = Cov_pi(s, x)/eps          D2 q[h, h] = E_pi[(s - Es)((x - Ex).h)^2]/eps^2

q is not concave. `ascend` finds local maxima; `bound` proves an upper bound by branching on cubes:
over |w - w0|_inf <= h a tilt multiplies p_i by at most exp(+-h |x_i - Ex|_1/eps), and the largest mean
of s under such tilts (a fractional linear program), or Taylor's second order with its remainder so
bounded, bounds q. Cost grows like (R/h)^d: tight in one and two dimensions, weak beyond.
"""

import time
from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp

from hjcontrol.solvers.convex.nonnegative import Loss

ENTRIES = 2_000_000  # numbers in one batch of cubes


class Ball(NamedTuple):
    """What is known of the largest price over `|w| <= radius`: `attained <= max q <= bound`."""

    radius: float
    attained: float
    bound: float
    slope: np.ndarray
    cubes: int
    seconds: float


class Pricing(NamedTuple):
    """Samples, temperature and scores (`log s` for `kullback`) of one pricing problem."""

    x: np.ndarray
    y: np.ndarray
    eps: float
    loss: Loss
    scores: np.ndarray

    def states(self, slopes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Gibbs states `p` and `p s` of each slope, both `(slopes, n)`."""
        L = (slopes @ self.x.T - self.y) / self.eps
        logp = L - np.asarray(logsumexp(L, axis=1, keepdims=True))
        p = np.exp(logp)
        with np.errstate(over="ignore"):
            return p, p * self.scores if self.loss == "squared" else np.exp(logp + self.scores)

    def price(self, slopes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`q` and its gradient at each slope."""
        p, ps = self.states(slopes)
        q = ps.sum(axis=1)
        return q, (ps @ self.x - q[:, None] * (p @ self.x)) / self.eps


def ascend(
    pricing: Pricing, slopes: np.ndarray, radius: float, steps: int = 8
) -> tuple[np.ndarray, np.ndarray]:
    """Local ascent of the price from each slope, inside the ball: slopes and their prices.

    Steps along the gradient, longer after each success and shorter after each failure.
    """
    w = slopes.copy()
    q, g = pricing.price(w)
    length = np.full(len(w), pricing.eps / max(float(np.abs(pricing.x).max()), 1e-12))
    for _ in range(steps):
        size = np.linalg.norm(g, axis=1, keepdims=True)
        tried = w + length[:, None] * g / np.where(size > 0, size, 1.0)
        norm = np.linalg.norm(tried, axis=1, keepdims=True)
        tried = tried * np.minimum(1.0, radius / np.where(norm > 0, norm, 1.0))
        q2, g2 = pricing.price(tried)
        better = q2 > q
        w = np.where(better[:, None], tried, w)
        g = np.where(better[:, None], g2, g)
        q = np.where(better, q2, q)
        length = np.where(better, 1.5 * length, 0.35 * length)
    return w, q


def bound(
    pricing: Pricing,
    radius: float,
    *,
    starts: np.ndarray,
    tol: float = 1e-3,
    max_cubes: int = 20_000,
) -> Ball:
    """Bound the price over the ball, to within `tol` or until `max_cubes` cubes were looked at.

    The answer holds either way: a small budget gives a weaker bound, never a wrong one.
    """
    clock = time.perf_counter()
    d = pricing.x.shape[1]
    w, q = ascend(pricing, starts, radius, steps=40)
    best, slope = float(q.max()), w[np.argmax(q)]
    centres, half = np.zeros((1, d)), radius
    corners = np.stack(np.meshgrid(*[[-0.5, 0.5]] * d, indexing="ij"), axis=-1).reshape(-1, d)
    ceiling, open_, cubes, closed = np.array([np.inf]), centres, 0, -np.inf
    while len(open_):
        if cubes + len(open_) * len(corners) > max_cubes:
            break
        half *= 0.5
        children = (open_[:, None, :] + 2 * half * corners[None]).reshape(-1, d)
        nearest = np.linalg.norm(np.maximum(np.abs(children) - half, 0.0), axis=1)
        parents = np.repeat(ceiling, len(corners))
        children, parents = children[nearest <= radius], parents[nearest <= radius]
        upper, centre_price = _over_cubes(pricing, children, half)
        upper = np.minimum(upper, parents)
        cubes += len(children)
        inside = np.linalg.norm(children, axis=1) <= radius
        if inside.any():
            k = int(np.argmax(np.where(inside, centre_price, -np.inf)))
            if centre_price[k] > best:
                best, slope = float(centre_price[k]), children[k]
        keep = upper > best + tol
        closed = max(closed, float(upper[~keep].max(initial=-np.inf)))
        open_, ceiling = children[keep], upper[keep]
    top = max(closed, best, float(ceiling.max(initial=-np.inf)) if len(open_) else -np.inf)
    return Ball(radius, best, top, slope, cubes, time.perf_counter() - clock)


def _over_cubes(
    pricing: Pricing, centres: np.ndarray, half: float
) -> tuple[np.ndarray, np.ndarray]:
    """Upper bounds of the price over cubes of half-width `half`, and the prices of their centres."""
    batch = max(1, ENTRIES // len(pricing.x))
    parts = [_batch(pricing, centres[i : i + batch], half) for i in range(0, len(centres), batch)]
    return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])


def _batch(pricing: Pricing, centres: np.ndarray, half: float) -> tuple[np.ndarray, np.ndarray]:
    p, ps = pricing.states(centres)
    q = ps.sum(axis=1)
    mean = p @ pricing.x
    gradient = np.abs(ps @ pricing.x - q[:, None] * mean).sum(axis=1) / pricing.eps
    spread = np.abs(pricing.x[None] - mean[:, None]).sum(axis=2)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        up = np.exp(np.minimum(half * spread / pricing.eps, 700.0))
        low = np.sum(p / up, axis=1)
        first = _largest_mean(p, ps, up, q, low)
        s = pricing.scores if pricing.loss == "squared" else np.exp(pricing.scores)
        variance = half**2 * np.sum(p * up * spread**2, axis=1) / (low * pricing.eps**2)
        second = q + half * gradient + 0.5 * (s.max() - s.min()) * variance
    both = np.fmin(first, second)
    return np.where(np.isnan(both), np.inf, np.maximum(both, q)), q


def _largest_mean(
    p: np.ndarray, ps: np.ndarray, up: np.ndarray, q: np.ndarray, low: np.ndarray
) -> np.ndarray:
    """Upper bound of `sum t p s / sum t p` over `1/up <= t <= up`, by Dinkelbach's iteration.

    With `g(v) = max_t sum t p (s - v)` and g(v) >= 0, the largest mean is at most `v + g(v)/sum p/up`.
    """
    value = q
    for _ in range(6):
        excess = ps - value[:, None] * p
        t = np.where(excess > 0, up, 1.0 / up)
        value = np.maximum(value, np.sum(t * ps, axis=1) / np.sum(t * p, axis=1))
    excess = ps - value[:, None] * p
    g = np.sum(np.where(excess > 0, up, 1.0 / up) * excess, axis=1)
    return value + np.maximum(g, 0.0) / low

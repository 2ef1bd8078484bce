r"""Exponents of an error in the width N and in eps, measured on a grid of both.

    error ~ N^-alpha eps^beta          along a schedule eps = N^-gamma:   exponent alpha + gamma beta

A fit along one schedule sees the sum only: with eps = N^{-1/d} a law in eps alone looks like
N^{-1/d}. So errors are taken on a grid; alpha is read at fixed eps, beta at fixed N, and an
exponent along a schedule is split into what the width does and what the schedule imposes. Error
bars: percentile bootstrap over repeats, or over residuals of the additive fit where there is one
repeat.

    published loss exponents:  loss ~ rmse^p,  rmse ~ N^{-s/d}   =>   alpha = p s/d,   d = p s/alpha

s is the smoothness of the target (1 Lipschitz, 2 with bounded second derivatives), p the power of
the root-mean-square error that the loss is (1 itself, 2 squared error or cross-entropy near the
optimum). Neither is known for published exponents: they are arguments without defaults.
"""

from collections.abc import Callable

import jax
import numpy as np
from jaxtyping import Array, Key
from numpy.typing import ArrayLike

from hjcontrol._ground.arguments import admits
from hjcontrol._ground.record import Record, Told, figure
from hjcontrol._ground.shown import Shown

# Exponents of loss in a size, as quoted with the theory; what the size is differs from row to row.
PUBLISHED = {
    "language, parameters (Kaplan 2020)": 0.076,
    "language, compute-optimal (Hoffmann 2022)": 0.35,
    "video 16x16x16 VQ (Henighan 2020)": 0.24,
    "mathematics (Henighan 2020)": 0.38,
}


class Estimate(Shown):
    """A number with its bootstrap interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"

    def holds(self, value: float) -> bool:
        """Whether `value` lies in the interval."""
        return self.low <= value <= self.high


class Schedule(Told, Shown):
    """An exponent along `eps = N^-gamma` through the grid, and its two parts."""

    gamma: float
    exponent: Estimate
    width: Estimate  # what the width does at the schedule's eps
    imposed: Estimate  # gamma times what eps does at the schedule's width

    def as_record(self) -> Record:
        """What this result says of itself."""
        share = self.imposed.value / self.exponent.value if self.exponent.value else np.nan
        return Record(
            f"Along eps = N^-{self.gamma:g}",
            f"exponent {self.exponent}; the schedule imposes {100 * share:.0f} %",
            facts={"width": str(self.width), "imposed": str(self.imposed)},
        )


class Scaling(Told, Shown):
    """Exponents on the grid: pooled, and one per row and per column, each with its interval."""

    widths: np.ndarray
    epsilons: np.ndarray
    log_errors: np.ndarray  # (resamples + 1, N, eps): the data first, then bootstrap replicates
    level: float

    @property
    def alpha(self) -> Estimate:
        """Exponent in N, pooled over eps: `error ~ N^-alpha`."""
        return self._interval(lambda e: -_pooled(self.widths, self.epsilons, e)[0])

    @property
    def beta(self) -> Estimate:
        """Exponent in eps, pooled over N: `error ~ eps^beta`."""
        return self._interval(lambda e: _pooled(self.widths, self.epsilons, e)[1])

    @property
    def separable(self) -> float:
        """Root-mean-square of what `N^-alpha eps^beta` leaves of log error: 0 if the law is a product."""
        e = self.log_errors[0]
        slopes = _pooled(self.widths, self.epsilons, e)
        n, s = np.log(self.widths), np.log(self.epsilons)
        rest = e - slopes[0] * n[:, None] - slopes[1] * s[None, :]
        return float(np.std(rest))

    def alpha_at(self, column: int) -> Estimate:
        """Exponent in N at the fixed `epsilons[column]`."""
        return self._interval(lambda e: -_slope(np.log(self.widths), e[:, column]))

    def beta_at(self, row: int) -> Estimate:
        """Exponent in eps at the fixed `widths[row]`."""
        return self._interval(lambda e: _slope(np.log(self.epsilons), e[row]))

    def schedule(self, gamma: float | int, prefactor: float | int = 1.0) -> Schedule:
        """The exponent that a study with `eps = prefactor N^-gamma` would report, split in two.

        Log error is interpolated bilinearly in log N and log eps, and both partial derivatives are
        averaged along the schedule's path through the grid: their sum is the exponent between the
        path's ends.

        **Raises:** `ValueError` if the schedule crosses the grid nowhere.
        """
        n, s = np.log(self.widths), np.log(self.epsilons)
        path = np.linspace(n[0], n[-1], 257)
        eps = np.log(prefactor) - gamma * path
        inside = (eps >= s.min()) & (eps <= s.max())
        if inside.sum() < 2:
            raise ValueError(
                f"schedule: eps = {prefactor:g} N^-{gamma:g} stays outside the grid's "
                f"[{self.epsilons.min():g}, {self.epsilons.max():g}] for N in "
                f"[{self.widths[0]:g}, {self.widths[-1]:g}]. Choose another prefactor or widen the grid."
            )
        path, eps = path[inside], eps[inside]
        middle = (path[1:] + path[:-1]) / 2, (eps[1:] + eps[:-1]) / 2
        partials = lambda e: _partials(n, s, e, *middle)
        return Schedule(
            float(gamma),
            self._interval(lambda e: float(np.mean(-partials(e)[0] + gamma * partials(e)[1]))),
            self._interval(lambda e: float(np.mean(-partials(e)[0]))),
            self._interval(lambda e: float(gamma * np.mean(partials(e)[1]))),
        )

    def _interval(self, of: Callable[[np.ndarray], float]) -> Estimate:
        found = np.array([of(e) for e in self.log_errors])
        tail = (1 - self.level) / 2
        low, high = np.quantile(found[1:], [tail, 1 - tail])
        return Estimate(float(found[0]), float(low), float(high))

    def as_record(self) -> Record:
        """What this result says of itself."""
        some = lambda n: np.unique(np.linspace(0, n - 1, min(5, n)).astype(int)).tolist()
        return Record(
            "Error on a grid",
            f"{len(self.widths)} widths and {len(self.epsilons)} eps, {100 * self.level:g} % intervals",
            facts={
                "pooled": f"error ~ N^-alpha eps^beta, alpha {self.alpha}, beta {self.beta}",
                "what a product leaves": f"{figure(self.separable, 3)} in log error",
            }
            | {
                f"alpha at eps = {self.epsilons[k]:.4g}": str(self.alpha_at(k))
                for k in some(len(self.epsilons))
            }
            | {
                f"beta at N = {self.widths[k]:.4g}": str(self.beta_at(k))
                for k in some(len(self.widths))
            },
        )


@admits(resamples=">= 1", level="> 0, < 1")
def scaling(
    widths: ArrayLike,
    epsilons: ArrayLike,
    errors: ArrayLike,
    *,
    key: Key[Array, ""],
    resamples: int = 400,
    level: float = 0.95,
) -> Scaling:
    """Exponents of `errors` (N, eps) or (N, eps, repeats), positive, with bootstrap intervals.

    Repeats are averaged in log error (their geometric mean).

    **Raises:** `ValueError` for a schedule instead of a grid (fewer than two eps or two widths),
    errors that are not positive, values that repeat or disagree in number.
    """
    n, s, e = (np.asarray(a, float) for a in (widths, epsilons, errors))
    if e.ndim == 1 and n.shape == s.shape == e.shape:
        raise ValueError(
            "scaling: errors on a grid (N, eps) are needed; found one error for each of "
            f"{len(e)} pairs, a schedule. Along a schedule the exponent of N and that of eps cannot "
            "be told apart: measure every width at every eps."
        )
    if n.ndim != 1 or s.ndim != 1 or e.shape[:2] != (len(n), len(s)) or e.ndim > 3:
        raise ValueError(
            f"scaling: errors ({n.size}, {s.size}) or ({n.size}, {s.size}, repeats) are needed; found "
            f"{e.shape}."
        )
    if min(len(np.unique(n)), len(np.unique(s))) < 2 or len(np.unique(n)) < len(n):
        raise ValueError(
            f"scaling: two different widths and two different eps at least are needed, none twice; found "
            f"{n.tolist()} and {s.tolist()}."
        )
    if not (np.all(n > 0) and np.all(s > 0) and np.all(e > 0) and np.all(np.isfinite(e))):
        raise ValueError("scaling: positive finite widths, eps and errors are needed.")
    order, columns = np.argsort(n), np.argsort(s)
    logs = np.log(e.reshape(*e.shape[:2], -1))[order][:, columns]
    n, s = n[order], s[columns]
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel().tolist())
    replicates = _resampled(rng, n, s, logs, resamples)
    return Scaling(n, s, np.concatenate([logs.mean(axis=2)[None], replicates]), level)


def _resampled(rng, n, s, logs: np.ndarray, resamples: int) -> np.ndarray:
    count = logs.shape[2]
    if count > 1:
        pick = rng.integers(0, count, (resamples, *logs.shape))
        return np.take_along_axis(logs[None], pick, axis=3).mean(axis=3)
    e = logs[:, :, 0]
    slopes = _pooled(n, s, e)
    plane = slopes[0] * np.log(n)[:, None] + slopes[1] * np.log(s)[None, :]
    rest = e - plane
    rest = rest - rest.mean()
    pick = rng.integers(0, rest.size, (resamples, *rest.shape))
    return plane + (e - plane).mean() + rest.ravel()[pick]


def _slope(x: np.ndarray, y: np.ndarray) -> float:
    x = x - x.mean()
    return float(x @ y / (x @ x))


def _pooled(widths: np.ndarray, epsilons: np.ndarray, e: np.ndarray) -> tuple[float, float]:
    """On a full grid the two regressors are orthogonal: each slope is that of the margin's mean."""
    return _slope(np.log(widths), e.mean(axis=1)), _slope(np.log(epsilons), e.mean(axis=0))


def _partials(
    n, s, e: np.ndarray, at_n: np.ndarray, at_s: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Derivatives in log N and log eps of the bilinear interpolant."""
    i = np.clip(np.searchsorted(n, at_n) - 1, 0, len(n) - 2)
    j = np.clip(np.searchsorted(s, at_s) - 1, 0, len(s) - 2)
    u, v = (at_n - n[i]) / (n[i + 1] - n[i]), (at_s - s[j]) / (s[j + 1] - s[j])
    dn, ds = n[i + 1] - n[i], s[j + 1] - s[j]
    corner = e[i, j], e[i, j + 1], e[i + 1, j], e[i + 1, j + 1]
    along_n = ((corner[2] - corner[0]) * (1 - v) + (corner[3] - corner[1]) * v) / dn
    along_s = ((corner[1] - corner[0]) * (1 - u) + (corner[3] - corner[2]) * u) / ds
    return along_n, along_s


@admits(alpha="finite", smoothness="> 0", loss_power="> 0")
def effective_dimension(
    alpha: float | int, *, smoothness: float | int, loss_power: float | int
) -> float:
    """The dimension `d = loss_power smoothness/alpha` that would give the exponent `alpha`.

    **Raises:** `ValueError` unless all are positive.
    """
    if not min(alpha, smoothness, loss_power) > 0:
        raise ValueError(
            "effective_dimension: positive alpha, smoothness and loss_power are needed; found "
            f"{alpha}, {smoothness}, {loss_power}."
        )
    return loss_power * smoothness / alpha

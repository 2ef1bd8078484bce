r"""Max-affine regression: `f(x) = max_j W_j x + b_j`, convex and no more.

    1. soft maxima at falling temperatures, by L-BFGS                    eps = 1, .3, .1, .03
    2. least squares on the cell of each piece, cells anew, while the error falls (Magnani and Boyd, 2009)

Pieces whose cell is empty are dropped. Not convex in the weights: a local minimum from several starts.
"""

from typing import Any

import jax
import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils import check_random_state

from hjcontrol._ground.arguments import fits
from hjcontrol.estimators.answers import Answers
from hjcontrol.estimators.descent import Descent, cut, descend, joined, soft_maxima, units_of
from hjcontrol.estimators.targets import real_targets, whole
from hjcontrol.layers import LSE
from hjcontrol.networks import AffineWeights, Chain, Dense, LSEUnits, Trained

COOLING = (1.0, 0.3, 0.1, 0.03)


class MaxAffineRegressor(Answers, RegressorMixin, BaseEstimator):
    """A convex, piecewise affine regressor with at most `atoms` pieces. It fits convex functions only.

    - `alpha`: ridge on slopes, in standardised features and targets. `starts`: how many, the best kept.
    - `max_iter`, `tol`: of each temperature's descent. `random_state`: of the starting slopes.

    Fitted: `W_` (pieces, features), `b_` (pieces,), in units of `X` and `y`; `model_`, `network_`.
    """

    def __init__(
        self,
        atoms: Any = 8,
        *,
        alpha: Any = 1e-2,
        starts: Any = 2,
        max_iter: Any = 200,
        tol: Any = 1e-5,
        random_state: Any = None,
    ):
        self.atoms, self.alpha, self.starts = atoms, alpha, starts
        self.max_iter, self.tol, self.random_state = max_iter, tol, random_state

    def fit(self, X: Any, y: Any) -> "MaxAffineRegressor":
        """Train on `X` (n, features) and real targets `y` (n,).

        **Raises:** `ValueError` for NaN, a parameter out of its range.
        """
        whole(self, "atoms", "starts", "max_iter")
        fits("MaxAffineRegressor", "alpha", self.alpha, float, ">= 0")
        fits("MaxAffineRegressor", "tol", self.tol, float, ">= 0")
        X, y = real_targets(self, X, y)
        Z, target = self._began(X), units_of(y[:, None])
        t = target(y[:, None])[:, 0]
        draw = check_random_state(self.random_state)
        limits = (self.max_iter, self.tol)
        found = [cooled(Z, t, self.atoms, self.alpha, draw, limits) for _ in range(self.starts)]
        W, b, descent = min(found, key=lambda f: f[2].value)
        self._ended(descent, self.max_iter, problem=f"max of {len(b)} affine pieces, convex in x")
        spread = target.scale[0]
        self.W_, b = self.units_.back(spread * W, spread * b)
        self.b_ = b + target.centre[0]
        self.rmse_ = float(np.sqrt(np.mean((self._values(X) - y) ** 2)))
        return self

    def _values(self, X: np.ndarray) -> np.ndarray:
        return (X @ self.W_.T + self.b_).max(axis=1)

    def predict(self, X: Any) -> np.ndarray:
        """The value at each sample (n,)."""
        return self._values(self._points(X))

    @property
    def model_(self) -> LSE:
        """The regressor as `hj.analysis` takes it: an `LSE` at `eps = 0`."""
        return LSE(self.W_, self.b_, 0.0)

    @property
    def network_(self) -> Trained:
        """The same as a chain of one stage."""
        theta = AffineWeights(jax.numpy.asarray(self.W_), jax.numpy.asarray(self.b_))
        chain = Chain([Dense(self.W_.shape[1], 1, LSEUnits(len(self.b_), 0.0))], theta.W[0])
        return Trained(chain, chain.stack([theta]), None)

    @property
    def _hard(self) -> LSE:
        return self.model_


def cooled(
    Z: np.ndarray, t: np.ndarray, atoms: int, alpha: float, draw: Any, limits: tuple[int, float]
) -> tuple[np.ndarray, np.ndarray, Descent]:
    """Slopes and offsets of the pieces, from one start: soft maxima at falling temperatures, then
    polished. `limits`: steps and tolerance of each descent."""
    n, d = Z.shape
    shapes = [(atoms, d), (atoms,)]
    theta, steps, slope = draw.normal(size=atoms * (d + 1)) / np.sqrt(d + 1), 0, 0.0
    for eps in COOLING:

        def loss(theta: np.ndarray, eps: float = eps) -> tuple[float, np.ndarray]:
            W, b = cut(theta, shapes)
            value, pi = soft_maxima(Z @ W.T + b, eps)
            r = value - t
            dz = r[:, None] * pi / n
            ridge = np.append(theta[: W.size], np.zeros(b.size))
            pull = joined([dz.T @ Z, dz.sum(axis=0)]) + alpha * ridge
            return 0.5 * float(np.mean(r**2) + alpha * ridge @ ridge), pull

        found = descend(loss, theta, *limits)
        theta, steps, slope = found.theta, steps + found.steps, found.slope
    W, b = cut(theta, shapes)
    W, b, value = polished(Z, t, W, b, alpha)
    return W, b, Descent(theta, value, slope, steps, True)


def polished(
    Z: np.ndarray, t: np.ndarray, W: np.ndarray, b: np.ndarray, alpha: float
) -> tuple[np.ndarray, np.ndarray, float]:
    """Least squares on each cell, as long as the whole error falls."""
    rows = np.column_stack([Z, np.ones(len(Z))])
    ridge = alpha * len(Z) * np.diag(np.append(np.ones(Z.shape[1]), 0.0))
    value = _error(Z, t, W, b, alpha)
    for _ in range(50):
        cell = (Z @ W.T + b).argmax(axis=1)
        used = np.unique(cell)
        new = [
            np.linalg.lstsq(
                rows[cell == j].T @ rows[cell == j] + ridge + 1e-12 * np.eye(rows.shape[1]),
                rows[cell == j].T @ t[cell == j],
                rcond=None,
            )[0]
            for j in used
        ]
        tried = np.array(new)
        least = _error(Z, t, tried[:, :-1], tried[:, -1], alpha)
        if not least < value:
            break
        W, b, value = tried[:, :-1], tried[:, -1], least
    kept = np.unique((Z @ W.T + b).argmax(axis=1))
    return W[kept], b[kept], value


def _error(Z: np.ndarray, t: np.ndarray, W: np.ndarray, b: np.ndarray, alpha: float) -> float:
    r = (Z @ W.T + b).max(axis=1) - t
    return 0.5 * float(np.mean(r**2) + alpha * np.sum(W**2))

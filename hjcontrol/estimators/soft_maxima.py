r"""Soft maxima as estimators: a score a class, or a difference of two.

    classes      score_c(x) = lse over class c's atoms of W_j x + b_j,   P(c) = softmax(score/eps)
    regression   f(x) = m + lse(W+ x + b+, eps) - lse(W- x + b-, eps)

Training is in units of eps: with one atom a class eps changes no decision, and training is convex.
"""

from typing import Any

import jax
import numpy as np
from scipy.special import logsumexp, softmax
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import validate_data

from hjcontrol._ground.arguments import fits
from hjcontrol.estimators.answers import Answers
from hjcontrol.estimators.descent import (
    Descent,
    cut,
    descend,
    joined,
    pieces,
    soft_maxima,
    units_of,
)
from hjcontrol.estimators.targets import Classifying, encoded, real_targets, whole
from hjcontrol.layers import LSE, ClassHead
from hjcontrol.networks import AffineWeights, Chain, Dense, LSEUnits, Trained, readout
from hjcontrol.solvers.convex.logistic import newton_on_host, objective_and_bound


class LSEClassifier(Classifying, Answers, ClassifierMixin, BaseEstimator):
    """A classifier whose score of a class is a soft maximum of `atoms` affine functions.

    - `atoms`: affine functions a class. One: multinomial logistic regression, solved to a proven gap.
      More: regions that are not convex; trained from samples of the class, a local minimum.
    - `eps`: temperature > 0. `alpha`: ridge on the weights, per standard deviation of a feature.
    - `max_iter`, `tol`: of training. `random_state`: of the starting atoms.

    Fitted: `W_` (classes, atoms, features), `b_` (classes, atoms), in units of `X`; `model_`, `network_`.
    """

    def __init__(
        self,
        atoms: Any = 1,
        eps: Any = 1.0,
        *,
        alpha: Any = 1e-3,
        max_iter: Any = 500,
        tol: Any = 1e-6,
        random_state: Any = None,
    ):
        self.atoms, self.eps, self.alpha = atoms, eps, alpha
        self.max_iter, self.tol, self.random_state = max_iter, tol, random_state

    def fit(self, X: Any, y: Any) -> "LSEClassifier":
        """Train on `X` (n, features) and classes `y` (n,).

        **Raises:** `ValueError` for one class, NaN, a parameter out of its range.
        """
        whole(self, "atoms", "max_iter")
        fits("LSEClassifier", "eps", self.eps, float, "> 0")
        fits("LSEClassifier", "alpha", self.alpha, float, "> 0")
        fits("LSEClassifier", "tol", self.tol, float, ">= 0")
        X, y = validate_data(self, X, y, dtype=float, ensure_min_samples=2)
        y = encoded(self, y)
        Z = self._began(X)
        W, b = self._convex(Z, y) if self.atoms == 1 else self._descended(Z, y)
        W, b = self.units_.back(self.eps * W, self.eps * b)
        count = len(self.classes_)
        self.W_, self.b_ = W.reshape(count, self.atoms, -1), b.reshape(count, self.atoms)
        return self

    def _convex(self, Z: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows = np.column_stack([Z, np.ones(len(Z))])
        start = np.zeros((len(self.classes_), rows.shape[1]))
        theta, steps = newton_on_host(rows, y, self.alpha, start, self.max_iter)
        value, bound, _, slope = objective_and_bound(rows, y, self.alpha, theta)
        left, done = float(np.abs(slope).max()), value - bound <= 1e-6 * max(1.0, value)
        found = Descent(theta, value, left, max(1, steps), done)
        self._ended(found, self.max_iter, bound=bound, problem="convex: one atom a class")
        return theta[:, :-1], theta[:, -1]

    def _descended(self, Z: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        count, (n, d) = len(self.classes_), Z.shape
        draw = check_random_state(self.random_state)
        rows = [draw.choice(np.flatnonzero(y == c), self.atoms) for c in range(count)]
        start = Z[np.concatenate(rows)] / d
        shapes = [(count * self.atoms, d), (count * self.atoms,)]
        own = np.repeat(np.arange(count), self.atoms)[None, :] == y[:, None]

        def loss(theta: np.ndarray) -> tuple[float, np.ndarray]:
            W, b = cut(theta, shapes)
            z = Z @ W.T + b
            inside = np.where(own, z, -np.inf)
            value = np.mean(
                np.asarray(logsumexp(z, axis=1)) - np.asarray(logsumexp(inside, axis=1))
            )
            dz = (softmax(z, axis=1) - softmax(inside, axis=1)) / n
            ridge = 0.5 * self.alpha * float(theta @ theta)
            return float(value) + ridge, joined([dz.T @ Z, dz.sum(axis=0)]) + self.alpha * theta

        begin = joined([start, -0.5 * np.sum(start**2, axis=1)])
        found = descend(loss, begin, self.max_iter, self.tol)
        self._ended(found, self.max_iter, problem=f"{self.atoms} atoms a class")
        W, b = cut(found.theta, shapes)
        return W, b

    def _scores(self, X: np.ndarray) -> np.ndarray:
        z = pieces(X, self.W_, self.b_)
        return soft_maxima(z, self.eps)[0] / self.eps

    @property
    def model_(self) -> ClassHead:
        """The classifier as `hj.analysis` takes it: a `ClassHead` over an `LSE`."""
        flat = self.W_.reshape(-1, self.W_.shape[-1])
        atoms = np.repeat(np.arange(len(self.classes_)), self.atoms)
        return ClassHead(LSE(flat, self.b_.ravel(), self.eps), atoms)

    @property
    def network_(self) -> Trained:
        """The same as a chain of one stage whose units are the classes' soft maxima."""
        count, d = len(self.classes_), self.W_.shape[-1]
        stage = Dense(d, count, LSEUnits(self.atoms, self.eps))
        theta = AffineWeights(
            *(jax.numpy.asarray(a) for a in (self.W_.reshape(-1, d), self.b_.ravel()))
        )
        chain = Chain([stage], theta.W[0])
        return Trained(chain, chain.stack([theta]), tuple(self.classes_.tolist()))

    @property
    def _certified(self) -> ClassHead:
        return self.model_

    @property
    def _hard(self) -> ClassHead:
        return self.model_


class LSERegressor(Answers, RegressorMixin, BaseEstimator):
    """A regressor that is the difference of two soft maxima of `atoms` affine functions each.

    Differences of convex functions approximate any continuous one on a bounded set.

    - `eps`: temperature > 0, in standard deviations of the targets. `alpha`: ridge on the weights, in
      standardised features and targets.
    - `max_iter`, `tol`: of training, which is not convex. `random_state`: of the starting atoms.

    Fitted: `W_` (2, atoms, features), `b_` (2, atoms), `eps_`, in units of `X` and `y`; `network_`.
    """

    def __init__(
        self,
        atoms: Any = 8,
        eps: Any = 0.1,
        *,
        alpha: Any = 1e-2,
        max_iter: Any = 500,
        tol: Any = 1e-6,
        random_state: Any = None,
    ):
        self.atoms, self.eps, self.alpha = atoms, eps, alpha
        self.max_iter, self.tol, self.random_state = max_iter, tol, random_state

    def fit(self, X: Any, y: Any) -> "LSERegressor":
        """Train on `X` (n, features) and real targets `y` (n,).

        **Raises:** `ValueError` for NaN, a parameter out of its range.
        """
        whole(self, "atoms", "max_iter")
        fits("LSERegressor", "eps", self.eps, float, "> 0")
        fits("LSERegressor", "alpha", self.alpha, float, ">= 0")
        fits("LSERegressor", "tol", self.tol, float, ">= 0")
        X, y = real_targets(self, X, y)
        Z, target = self._began(X), units_of(y[:, None])
        t, (n, d) = target(y[:, None])[:, 0], Z.shape
        draw = check_random_state(self.random_state)
        shapes = [(2, self.atoms, d), (2, self.atoms)]
        sign = np.array([1.0, -1.0])

        def loss(theta: np.ndarray) -> tuple[float, np.ndarray]:
            W, b = cut(theta, shapes)
            value, pi = soft_maxima(pieces(Z, W, b), self.eps)
            r = value @ sign - t
            dz = (r[:, None] * sign)[:, :, None] * pi / n
            slope = joined([dz.reshape(n, -1).T @ Z, dz.sum(axis=0)])
            ridge = 0.5 * self.alpha * float(theta @ theta)
            return 0.5 * float(np.mean(r**2)) + ridge, slope + self.alpha * theta

        start = draw.normal(size=2 * self.atoms * (d + 1)) / np.sqrt(d + 1)
        found = descend(loss, start, self.max_iter, self.tol)
        self._ended(found, self.max_iter, problem="difference of two soft maxima")
        W, b = cut(found.theta, shapes)
        spread = target.scale[0]
        W, b = self.units_.back(spread * W, spread * b)
        self.W_, self.b_, self.eps_ = W, b, self.eps * spread
        self.offset_ = float(target.centre[0])
        self.rmse_ = float(np.sqrt(np.mean((self._values(X) - y) ** 2)))
        return self

    def _values(self, X: np.ndarray) -> np.ndarray:
        both = soft_maxima(pieces(X, self.W_, self.b_), self.eps_)[0]
        return self.offset_ + both[:, 0] - both[:, 1]

    def predict(self, X: Any) -> np.ndarray:
        """The value at each sample (n,)."""
        return self._values(self._points(X))

    @property
    def network_(self) -> Trained:
        """The same as a chain: both soft maxima, and their difference."""
        d, array = self.W_.shape[-1], jax.numpy.asarray
        thetas = [
            AffineWeights(array(self.W_.reshape(-1, d)), array(self.b_.ravel())),
            AffineWeights(array([[1.0, -1.0]]), array([self.offset_])),
        ]
        stages = [Dense(d, 2, LSEUnits(self.atoms, self.eps_)), readout(2, 1)]
        chain = Chain(stages, thetas[0].W[0])
        return Trained(chain, chain.stack(thetas), None)

r"""Residual networks as estimators: depth is time, training is optimal control.

    x_0 = A x + a,   x_{k+1} = x_k + h sigma(W_k x_k + b_k),  h = 1/depth,   out = C x_K + c
    J = mean of the terminal cost + alpha/2 |theta|^2,     dJ/dtheta by costates

By default L-BFGS on the host. `solver` names any solver of `hj.solve` instead ("newton", "gradient", or
an object): the same problem, stated as a `ControlProblem`; each new shape of the data then compiles.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import logsumexp, softmax
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import validate_data

from hjcontrol._ground.arguments import fits
from hjcontrol.control import ControlProblem, Ridge, least_squares, softmax_cross_entropy
from hjcontrol.estimators.answers import Answers
from hjcontrol.estimators.descent import (
    ACTIVATIONS,
    Descent,
    by_costates,
    cut,
    descend,
    joined,
    residual_network,
    units_of,
)
from hjcontrol.estimators.targets import Classifying, encoded, real_targets, whole
from hjcontrol.networks import AffineWeights, Chain, Dense, Residual, Trained, lift, readout
from hjcontrol.solvers import solve

_SIGMA = {"relu": jax.nn.relu, "tanh": jnp.tanh}


class ControlledNet(Answers):
    """What the classifier and the regressor share."""

    def _trained(
        self,
        Z: np.ndarray,
        targets: np.ndarray,
        outputs: int,
        terminal: Callable[[np.ndarray], tuple[float, np.ndarray]],
        cost: Any,
    ) -> None:
        """Train and keep `weights_` in units of `X` (the readout in those of training)."""
        who = type(self).__name__
        whole(self, "width", "depth", "max_iter")
        fits(who, "alpha", self.alpha, float, ">= 0")
        fits(who, "tol", self.tol, float, ">= 0")
        if self.activation not in ACTIVATIONS:
            raise ValueError(
                f"{who}: `activation` is one of {', '.join(ACTIVATIONS)}; found {self.activation!r}."
            )
        d, w = Z.shape[1], self.width
        shapes = [(w, d), (w,), *[(w, w), (w,)] * self.depth, (outputs, w), (outputs,)]
        draw = check_random_state(self.random_state)
        first = [
            draw.normal(size=s) / np.sqrt(s[-1]) if len(s) == 2 else np.zeros(s) for s in shapes
        ]
        if self.solver is None:
            found = self._descended(Z, first, shapes, terminal)
        else:
            found = self._solved(Z, targets, first, shapes, cost)
        self._ended(found, self.max_iter, problem=f"residual network, {self.depth} steps of depth")
        theta = cut(found.theta, shapes)
        theta[:2] = self.units_.back(theta[0], theta[1])
        self.weights_ = theta

    def _descended(
        self, Z: np.ndarray, first: list, shapes: list, terminal: Callable[..., Any]
    ) -> Descent:
        def loss(theta: np.ndarray) -> tuple[float, np.ndarray]:
            parts = cut(theta, shapes)
            value, slope = by_costates(parts, Z, 1 / self.depth, self.activation, terminal)
            ridge = 0.5 * self.alpha * float(theta @ theta)
            return value + ridge, joined(slope) + self.alpha * theta

        return descend(loss, joined(first), self.max_iter, self.tol)

    def _solved(
        self, Z: np.ndarray, targets: np.ndarray, first: list, shapes: list, cost: Any
    ) -> Descent:
        with jax.enable_x64(True):
            stages = self._stages(Z.shape[1], shapes[-1][0])
            running = Ridge(self.alpha) if self.alpha > 0 else ()
            problem = ControlProblem(
                stages, jnp.asarray(Z), jnp.asarray(targets), terminal=cost, running=running
            )
            begin = problem.chain.stack(_affine(first))
            found = solve(problem, self.solver, init=begin, max_steps=self.max_iter)
            theta = joined([a for pair in problem.chain.unstack(found.weights) for a in pair])
            slope = float(found.stats["stationarity"])
            steps = max(1, int(found.stats["num_steps"]))
            return Descent(
                theta,
                float(found.objective),
                slope,
                steps,
                slope <= self.tol or steps < self.max_iter,
            )

    def _stages(self, d: int, outputs: int) -> list[Any]:
        step = Residual(Dense(self.width, self.width, _SIGMA[self.activation]), 1 / self.depth)
        return [lift(d, self.width), *[step] * self.depth, readout(self.width, outputs)]

    def _outputs(self, X: np.ndarray) -> np.ndarray:
        return residual_network(self.weights_, X, 1 / self.depth, self.activation)[0]

    @property
    def network_(self) -> Trained:
        """The network as a chain with its weights, on inputs in units of `X`."""
        d, outputs = self.weights_[0].shape[1], len(self.weights_[-1])
        chain = Chain(self._stages(d, outputs), jax.ShapeDtypeStruct((d,), jnp.result_type(float)))
        classes = getattr(self, "classes_", None)
        labels = None if classes is None else tuple(classes.tolist())
        return Trained(chain, chain.stack(_affine(self.weights_)), labels)


def _affine(theta: list[np.ndarray]) -> list[AffineWeights]:
    pairs = zip(theta[::2], theta[1::2], strict=True)
    return [AffineWeights(jnp.asarray(W), jnp.asarray(b)) for W, b in pairs]


class ControlledNetClassifier(Classifying, ControlledNet, ClassifierMixin, BaseEstimator):
    """A residual network that classifies, trained as an optimal control problem.

    - `width`, `depth`: of the state, and how many steps. `activation`: "relu" (exact tree) or "tanh".
    - `alpha`: ridge on all weights, in standardised features. `solver`: `None`, or one of `hj.solve`.
    - `max_iter`, `tol`: of training, which is not convex. `random_state`: of the first weights.

    Fitted: `weights_`, matrices and biases by depth; `network_`.
    """

    def __init__(
        self,
        width: Any = 16,
        depth: Any = 2,
        *,
        activation: Any = "relu",
        alpha: Any = 1e-3,
        solver: Any = None,
        max_iter: Any = 300,
        tol: Any = 1e-4,
        random_state: Any = None,
    ):
        self.width, self.depth, self.activation, self.alpha = width, depth, activation, alpha
        self.solver, self.max_iter, self.tol = solver, max_iter, tol
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> "ControlledNetClassifier":
        """Train on `X` (n, features) and classes `y` (n,).

        **Raises:** `ValueError` for one class, NaN, a parameter out of its range.
        """
        X, y = validate_data(self, X, y, dtype=float, ensure_min_samples=2)
        y = encoded(self, y)
        hot = np.eye(len(self.classes_))[y]

        def terminal(z: np.ndarray) -> tuple[float, np.ndarray]:
            cost = logsumexp(z, axis=1) - np.sum(hot * z, axis=1)
            return float(np.mean(cost)), (softmax(z, axis=1) - hot) / len(z)

        Z = self._began(X)
        self._trained(Z, y, len(self.classes_), terminal, softmax_cross_entropy)
        return self

    def _scores(self, X: np.ndarray) -> np.ndarray:
        return self._outputs(X)


class ControlledNetRegressor(ControlledNet, RegressorMixin, BaseEstimator):
    """A residual network for real targets, trained as an optimal control problem.

    The parameters are those of `ControlledNetClassifier`; the ridge is in standardised targets too.

    Fitted: `weights_`, matrices and biases by depth; `rmse_` on the training samples; `network_`.
    """

    def __init__(
        self,
        width: Any = 16,
        depth: Any = 2,
        *,
        activation: Any = "relu",
        alpha: Any = 1e-2,
        solver: Any = None,
        max_iter: Any = 300,
        tol: Any = 1e-4,
        random_state: Any = None,
    ):
        self.width, self.depth, self.activation, self.alpha = width, depth, activation, alpha
        self.solver, self.max_iter, self.tol = solver, max_iter, tol
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> "ControlledNetRegressor":
        """Train on `X` (n, features) and real targets `y` (n,).

        **Raises:** `ValueError` for NaN, a parameter out of its range.
        """
        X, y = real_targets(self, X, y)
        Z, target = self._began(X), units_of(y[:, None])
        t = target(y[:, None])

        def terminal(z: np.ndarray) -> tuple[float, np.ndarray]:
            return 0.5 * float(np.mean((z - t) ** 2)), (z - t) / len(z)

        self._trained(Z, t, 1, terminal, least_squares)
        *inner, C, c = self.weights_
        spread = target.scale[0]
        self.weights_ = [*inner, spread * C, spread * c + target.centre]
        self.rmse_ = float(np.sqrt(np.mean((self._outputs(X)[:, 0] - y) ** 2)))
        return self

    def predict(self, X: Any) -> np.ndarray:
        """The value at each sample (n,)."""
        return self._outputs(self._points(X))[:, 0]

"""What every estimator answers about its predictions, by the questions of `hj.analysis`."""

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted, validate_data

from hjcontrol.analysis import attribution, extrapolation, robustness
from hjcontrol.analysis.tree import ModelTree, model_tree
from hjcontrol.estimators.certificate import FitCertificate
from hjcontrol.estimators.descent import Descent, Units, units_of
from hjcontrol.networks import Trained

KEPT = 1000  # training samples that the coverage remembers
UNLIKE = 10.0  # spreads of features this far apart are not one unit
BATCH = 64
NODES = 512  # of a path that crosses kinks: what is missing falls as 1 / NODES


class Answers:
    """Questions about a fitted estimator; what is particular to it is in `network_`."""

    certificate_: FitCertificate
    units_: Units

    @property
    def network_(self) -> Trained:
        """The fitted model as a chain with its weights, on inputs in units of `X`."""
        raise NotImplementedError

    def _began(self, X: np.ndarray) -> np.ndarray:
        """Remember what the questions need of the data; `X` standardised."""
        self.units_ = units_of(X)
        Z = self.units_(X)
        every = max(1, -(-len(Z) // KEPT))
        self.seen_ = Z[::every]
        self.box_ = np.stack([X.min(axis=0), X.max(axis=0)])
        return Z

    def _ended(self, found: Descent, max_iter: int, **proof: Any) -> None:
        self.n_iter_ = found.steps
        self.certificate_ = FitCertificate(found.value, found.slope, **proof)
        if not found.converged:
            warnings.warn(
                f"{type(self).__name__}: {max_iter} steps left a slope of {found.slope:.1e}. Raise "
                "`max_iter` or `tol`.",
                ConvergenceWarning,
                stacklevel=3,
            )

    def _points(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        return validate_data(self, X, dtype=float, reset=False)

    def attribution(self, X: Any) -> np.ndarray:
        """What each feature did for each prediction, `(n, features)`: integrated gradients from the mean
        of the training samples to the sample.

        Rows sum to the output (of the predicted class) less that at the mean, up to quadrature: to about
        1e-9 for smooth units, and to some thousandths of the change where the path crosses kinks.
        """
        X = self._points(X)
        with jax.enable_x64(True):
            model, start = self.network_, jnp.asarray(self.units_.centre)
            best = lambda z, k: jnp.sum(jnp.where(jnp.arange(z.size) == k, z, 0.0))

            def one(x: jax.Array) -> jax.Array:
                k = jnp.argmax(model(x))
                found = attribution.costates(
                    model.chain, model.weights, x, start, lambda z: best(z, k), nodes=NODES
                )
                return found.inputs

            return _each(one, X)

    def extrapolation_score(self, X: Any) -> np.ndarray:
        """How far each sample is from the training samples, `(n,)`: the energy of a Gaussian kernel sum
        over them (nats, features standardised), less the median energy of the training samples.

        About 0 where the data are; large where the model extrapolates. The width is the data's median
        distance to the nearest neighbour but for itself.
        """
        X = self._points(X)
        seen = self.seen_
        apart = _squares(seen, seen)
        np.fill_diagonal(apart, np.inf)
        width = float(np.sqrt(np.median(apart.min(axis=1))))
        with jax.enable_x64(True):
            cover = extrapolation.coverage_of_samples(seen, width if 0 < width < np.inf else 1.0)
            usual = np.median(_each(cover.energy, seen))
            return _each(cover.energy, self.units_(X)) - usual

    def certified_radius(self, X: Any, *, scaled: bool = False, within: float | None = None) -> Any:
        """A radius `(n,)` about each sample in which the prediction is proven to hold.

        - classifiers: the predicted class does not change.
        - regressors: the value moves by `within` at most; by default the root mean square of the
          training residuals.
        - `scaled`: lengths in standard deviations of each feature. Without it features count alike in
          their own units, and a warning says where their spreads are not alike.
        """
        X = self._points(X)
        spread = self.units_.scale
        if not scaled and spread.max() > UNLIKE * spread.min():
            warnings.warn(
                f"certified_radius: features spread from {spread.min():.3g} to {spread.max():.3g}, so "
                "one Euclidean radius mixes unlike units. Scale them, or ask with `scaled=True`.",
                UserWarning,
                stacklevel=2,
            )
        scale = spread if scaled else None
        with jax.enable_x64(True):
            if getattr(self, "classes_", None) is None:
                far = self.rmse_ if within is None else within
                if within is None and not far > 0:
                    raise ValueError(
                        f"{type(self).__name__}.certified_radius: the training residuals are zero, so "
                        "they say no distance. Give `within=`, how far the value may move."
                    )
                net = self.network_
                return _each(lambda x: robustness.value_radius(net, x, far, scale=scale), X)
            model = self._certified
            return _each(lambda x: robustness.certified_radius(model, x, scale=scale).radius, X)

    @property
    def _certified(self) -> Any:
        return self.network_

    def to_tree(self, *, max_leaves: int = 256, points: Any = None) -> ModelTree:
        """The tree of the model at temperature zero over the box of the training data.

        Exact where its leaves are closed: `tree.complete`, `tree.fidelity(X, labels)`. `points`: where
        a budget of leaves is spent first; the training samples (up to a thousand) by default.
        """
        check_is_fitted(self)
        lower, upper = self.box_
        box = np.stack([lower, np.where(upper > lower, upper, lower + 1.0)])
        near = self.seen_ * self.units_.scale + self.units_.centre if points is None else points
        with jax.enable_x64(True):
            return model_tree(
                self._hard,
                decide=getattr(self, "classes_", None) is not None,
                max_leaves=max_leaves,
                box=box,
                points=near,
            )

    @property
    def _hard(self) -> Any:
        return self.network_


def _each(one: Any, X: np.ndarray) -> np.ndarray:
    """`one` of every row, a batch at a time, as one compiled program."""
    go = jax.jit(lambda X: jax.lax.map(one, X, batch_size=min(BATCH, len(X))))
    return np.asarray(go(jnp.asarray(X)))


def _squares(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    square = np.sum(a**2, axis=1)[:, None] + np.sum(b**2, axis=1)[None] - 2 * a @ b.T
    return np.maximum(square, 0.0)

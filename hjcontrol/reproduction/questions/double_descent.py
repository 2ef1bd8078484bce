r"""Width through the interpolation threshold, with curvature recorded.

    f(x) = sum_j a_j eps log(1 + exp((w_j.x + b_j)/eps)) + a_0      softplus: viscous, two atoms
    hess f = sum_j a_j w_j w_j^T s_j (1 - s_j)/eps                    s_j = sigma((w_j.x + b_j)/eps)

The theory's picture: at the threshold (as many weights as samples) curvature spikes, "shocks become
dense", and with it the test error. The default sweep is of random units with the minimum-norm fit,
where the threshold is sharp; any other model comes as `fit`. A single log-sum-exp layer is convex:
on a line it cannot interpolate noise; points in convex position, as generic ones in many dimensions
are, it can. What is found is reported, whichever way it falls.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key
from numpy.typing import ArrayLike

from hjcontrol._ground.arguments import admits
from hjcontrol._ground.record import Quantity, Record, Told
from hjcontrol._ground.shown import Shown


class Fitted(NamedTuple):
    """A fitted model: predictions (n,) and curvatures `|hess f|_2` (n,) at points (n, d)."""

    predict: Callable[[np.ndarray], np.ndarray]
    curvature: Callable[[np.ndarray], np.ndarray]


Fit = Callable[[np.ndarray, np.ndarray, int, Array], Fitted]


class WidthSweep(Told, Shown):
    """One row a width, one column a repeat: errors on training and test data, largest curvature."""

    widths: np.ndarray
    samples: int
    train: np.ndarray
    test: np.ndarray
    curvature: np.ndarray

    @property
    def threshold(self) -> int:
        """The first width with median training error below a thousandth of the first's; -1 if none."""
        low = np.median(self.train, axis=1) < 1e-3 * np.median(self.train[0])
        return int(self.widths[np.argmax(low)]) if low.any() else -1

    @property
    def peak(self) -> tuple[int, float]:
        """Width of the largest inner test error, and its ratio to the larger of the least on either side.

        A ratio of 1 means no peak: the error only falls, or only rises.
        """
        return _peak(self.widths, np.median(self.test, axis=1))

    @property
    def curvature_peak(self) -> tuple[int, float]:
        """The same of the median largest curvature."""
        return _peak(self.widths, np.median(self.curvature, axis=1))

    @property
    def together(self) -> float:
        """Spearman's rank correlation of median test error and median curvature over widths."""
        from scipy.stats import spearmanr

        found = spearmanr(np.median(self.test, axis=1), np.median(self.curvature, axis=1))
        return float(found.statistic)

    @property
    def finding(self) -> str:
        """In words, from the numbers alone."""
        (width, ratio), (bent, bend) = self.peak, self.curvature_peak
        if ratio < 1.2:
            best = int(self.widths[np.argmin(np.median(self.test, axis=1))])
            return f"no double descent: test error has no inner peak; it is least at width {best}"
        where = "no interpolation in this range"
        if self.threshold > 0:
            where = f"interpolation from width {self.threshold}"
        bending = "curvature has no peak"
        if bend >= 1.2:
            bending = f"curvature peaks at {bent} ({bend:.3g} times)"
        peak = f"test error peaks at width {width} ({ratio:.3g} times)"
        return f"double descent: {peak}; {where}; {bending}"

    def as_record(self) -> Record:
        """What this result says of itself."""
        row = lambda k: (
            {"width": int(self.widths[k])}
            | {
                name: Quantity(float(np.median(a[k])), 3)
                for name, a in (
                    ("train", self.train),
                    ("test", self.test),
                    ("curvature", self.curvature),
                )
            }
        )
        count = len(self.widths)
        shown = np.unique(np.linspace(0, count - 1, min(12, count)).astype(int))
        return Record(
            f"Width sweep, {self.samples} samples, {self.test.shape[1]} repeats",
            self.finding,
            facts={
                "rank correlation of test error and curvature over widths": Quantity(
                    self.together, 2
                )
            },
            rows={"medians": [row(k) for k in shown]},
        )


def _peak(widths: np.ndarray, values: np.ndarray) -> tuple[int, float]:
    if len(values) < 3:
        return int(widths[int(np.argmax(values))]), 1.0
    ratios = [
        values[k] / max(values[:k].min(), values[k + 1 :].min()) for k in range(1, len(values) - 1)
    ]
    best = int(np.argmax(ratios))
    return int(widths[best + 1]), max(1.0, float(ratios[best]))


def width_sweep(
    train: tuple[ArrayLike, ArrayLike],
    test: tuple[ArrayLike, ArrayLike],
    widths: Sequence[int],
    fit: Fit,
    *,
    key: Key[Array, ""],
    repeats: int = 5,
) -> WidthSweep:
    """Fit at every width, `repeats` times; record root-mean-square errors and the largest curvature.

    `train`, `test`: points (n, d) and values (n,). `fit(X, y, width, key)` returns a `Fitted`;
    `minimum_norm` makes one. Curvature is taken at the test points.

    **Raises:** `ValueError` for disagreeing shapes, or widths not positive and increasing.
    """
    (X, y), (P, q) = (tuple(np.asarray(a, float) for a in pair) for pair in (train, test))
    if (
        X.ndim != 2
        or y.shape != X.shape[:1]
        or P.shape[1:] != X.shape[1:]
        or q.shape != P.shape[:1]
    ):
        raise ValueError(
            "width_sweep: points (n, d) and values (n,), twice, are needed; found "
            f"{X.shape}, {y.shape}, {P.shape}, {q.shape}."
        )
    sizes = np.asarray(widths)
    if (
        sizes.ndim != 1
        or len(sizes) < 2
        or sizes[0] < 1
        or np.any(np.diff(sizes) <= 0)
        or repeats < 1
    ):
        raise ValueError(
            f"width_sweep: increasing widths >= 1 and repeats >= 1 are needed; found {widths}, {repeats}."
        )
    rms = lambda gap: float(np.sqrt(np.mean(gap**2)))
    out = np.zeros((3, len(sizes), repeats))
    for r, one in enumerate(jax.random.split(key, repeats)):
        for k, width in enumerate(sizes):
            model = fit(X, y, int(width), jax.random.fold_in(one, k))
            out[0, k, r] = rms(model.predict(X) - y)
            out[1, k, r] = rms(model.predict(P) - q)
            out[2, k, r] = np.max(model.curvature(P))
    return WidthSweep(sizes, len(X), *out)


@admits(eps=">= 0", scale="> 0", ridge=">= 0")
def minimum_norm(eps: float | int, *, scale: float | int = 1.0, ridge: float | int = 0.0) -> Fit:
    """Random softplus units at temperature `eps`, outer weights by least squares of minimum norm.

    Directions are normal with deviation `scale/sqrt(d)` times the inverse spread of the data, and
    each unit turns at a random sample. With `ridge > 0`: ridge regression, under which the peak
    should go.
    """
    if not eps > 0 or ridge < 0:
        raise ValueError(f"minimum_norm: eps > 0 and ridge >= 0 are needed; found {eps}, {ridge}.")

    def fit(X: np.ndarray, y: np.ndarray, width: int, key: Array) -> Fitted:
        rng = np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel().tolist())
        d = X.shape[1]
        W = scale * rng.standard_normal((width, d)) / np.sqrt(d * max(X.var(), 1e-300))
        b = -np.sum(W * X[rng.integers(0, len(X), width)], axis=1)
        units = lambda P: eps * np.logaddexp(0.0, (P @ W.T + b) / eps)
        F, middle = units(X), y.mean()
        if ridge:  # the dual form: as many unknowns as samples
            a = F.T @ np.linalg.solve(F @ F.T + ridge * len(X) * np.eye(len(X)), y - middle)
        else:
            a = np.linalg.lstsq(F, y - middle, rcond=1e-12)[0]

        def curvature(P: np.ndarray) -> np.ndarray:
            s = 0.5 * (1 + np.tanh((P @ W.T + b) / (2 * eps)))
            H = np.stack([(W.T * v) @ W for v in a * s * (1 - s) / eps])
            return np.abs(np.linalg.eigvalsh(H)).max(axis=1)

        return Fitted(lambda P: units(P) @ a + middle, curvature)

    return fit


@admits()
def of_function(f: Callable[[Array], Array]) -> Fitted:
    """A `Fitted` from any twice differentiable scalar function of one sample, in JAX."""
    many = jax.jit(jax.vmap(f))
    bend = jax.jit(jax.vmap(lambda x: jnp.max(jnp.abs(jnp.linalg.eigvalsh(jax.hessian(f)(x))))))
    return Fitted(
        lambda P: np.asarray(many(jnp.asarray(P))), lambda P: np.asarray(bend(jnp.asarray(P)))
    )

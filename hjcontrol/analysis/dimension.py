r"""Intrinsic dimension of data, with error bars, and how many samples a bound asks for.

    atoms on a set of dimension m cover it at spacing h ~ N^{-1/m}, whatever the ambient dimension

    rmse <= C N^{-s/m} + eps log N + sigma sqrt(N (d + 1)/n)          a bound, not an estimate
             width        temperature   noise: N (d + 1) weights from n samples

Estimators are scikit-dimension's (extra `dimension`), by name, or any object with `fit(X)` and then
`dimension_`. Error bars: delete-half jackknife, since resampling with replacement would plant zero
distances, which every nearest-neighbour estimator reads as dimension zero. The bars hold sampling error
only: bias from curvature, noise and finite n is not in them, and the spread between estimators is a
fairer witness of it.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Key
from numpy.typing import ArrayLike

from hjcontrol._ground.arguments import admits
from hjcontrol._ground.record import Quantity, Record, Told, figure
from hjcontrol._ground.shown import Shown


class IntrinsicDimension(Told, Shown):
    """One estimate an estimator, with the standard error of its sampling."""

    names: tuple[str, ...]
    values: np.ndarray
    errors: np.ndarray
    points: int
    ambient: int
    duplicates: int

    def as_record(self) -> Record:
        """What this result says of itself."""
        rows = [
            {"estimator": name, "dimension": Quantity(value, 3), "+-": Quantity(error, 2)}
            for name, value, error in zip(self.names, self.values, self.errors, strict=True)
        ]
        low, high = figure(self.values.min(), 3), figure(self.values.max(), 3)
        span = f"estimators span {low} .. {high}; +- is sampling only, not bias"
        left = f" ({self.duplicates} repeated points left out)" if self.duplicates else ""
        return Record(
            "Intrinsic dimension",
            f"of {self.points} points in {self.ambient} dimensions{left}",
            rows={"": rows},
            notes=(span,) if len(rows) > 1 else (),
        )


@admits(halves=">= 1")
def intrinsic_dimension(
    X: ArrayLike,
    estimators: Sequence[Any] = ("TwoNN", "MLE", "CorrInt"),
    *,
    key: Key[Array, ""],
    halves: int = 16,
) -> IntrinsicDimension:
    """Estimate the dimension of the set that points `X` (n, d) lie on.

    `estimators`: names in `skdim.id`, or objects with `fit(X)` and `dimension_`. `halves`: random
    halves for the error bars; each costs a fit on n/2 points.

    **Raises:** `ValueError` for fewer than 20 different points or an unknown name; `ImportError`
    when a name is given and scikit-dimension is not installed.
    """
    X = np.asarray(X, float)
    if X.ndim != 2 or not np.isfinite(X).all():
        raise ValueError(f"intrinsic_dimension: finite points (n, d) are needed; found {X.shape}.")
    different = np.unique(X, axis=0)
    n = len(different)
    if n < 20 or halves < 2:
        raise ValueError(
            "intrinsic_dimension: 20 different points and 2 halves at least are needed; found "
            f"{n} and {halves}."
        )
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel().tolist())
    parts = [rng.permutation(n)[: n // 2] for _ in range(halves)]
    names, values, errors = [], [], []
    for each in estimators:
        name = each if isinstance(each, str) else type(each).__name__
        fit = lambda points, each=each: float(_estimator(each).fit(points).dimension_)
        found = np.array([fit(different[p]) for p in parts])
        names.append(name)
        values.append(fit(different))
        # delete-d jackknife with d = n/2: the factor (n - d)/d is one
        errors.append(float(np.sqrt(np.mean((found - found.mean()) ** 2))))
    return IntrinsicDimension(
        tuple(names), np.array(values), np.array(errors), n, X.shape[1], len(X) - n
    )


def _estimator(each: Any) -> Any:
    if not isinstance(each, str):
        return each
    try:
        import skdim  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ImportError(
            f"intrinsic_dimension: the estimator {each!r} is scikit-dimension's, which is not installed. "
            "Install it by `pip install 'hjcontrol[dimension]'`, or pass an object with `fit(X)` and "
            "`dimension_`."
        ) from error
    if not hasattr(skdim.id, each):
        known = sorted(n for n in vars(skdim.id) if n[:1].isupper() or n == "lPCA")
        raise ValueError(f"intrinsic_dimension: skdim.id has no {each!r}; it has {known}.")
    return getattr(skdim.id, each)()


class SampleSize(Told, Shown):
    """The fewest samples for which the bound is at most `error`, at the best width; its three terms."""

    error: float
    samples: int
    atoms: int
    width_term: float
    temperature_term: float
    noise_term: float

    def as_record(self) -> Record:
        """What this result says of itself."""
        return Record(
            f"Bound <= {self.error:g}",
            f"from {self.samples} samples on, at {self.atoms} atoms",
            facts={
                "width": self.width_term,
                "temperature": self.temperature_term,
                "noise": self.noise_term,
            },
            notes=(
                "The sum of the three terms; sufficient if the constants are right, not necessary.",
            ),
        )


@admits(
    error="> 0",
    dimension="> 0",
    ambient=">= 1",
    smoothness="> 0",
    constant="> 0",
    noise=">= 0",
    eps=">= 0",
)
def sample_size(
    error: float | int,
    *,
    dimension: float | int,
    ambient: int,
    smoothness: float | int,
    constant: float | int,
    noise: float | int,
    eps: float | int = 0.0,
) -> SampleSize:
    """Samples that suffice, by the bound, for a root-mean-square `error`; minimised over the width N.

    `dimension`: intrinsic, may be a fraction; `constant`: C, in units of the output; `noise`: sigma.

    **Raises:** `ValueError` for arguments not positive (`eps`, `noise`: negative), or if at this
    `eps` no width brings the bound down to `error`.
    """
    if not (
        min(error, dimension, smoothness, constant) > 0 and min(noise, eps) >= 0 and ambient > 0
    ):
        raise ValueError(
            "sample_size: error, dimension, ambient, smoothness and constant > 0, noise and eps >= 0 are "
            f"needed; found {error}, {dimension}, {ambient}, {smoothness}, {constant}, {noise}, {eps}."
        )
    rate = smoothness / dimension
    # without temperature the best N is ((1 + 2 rate) C/error)^(1/rate); temperature only lowers it
    most = ((1 + 2 * rate) * constant / error) ** (1 / rate)
    grid = np.exp(np.linspace(0.0, np.log(max(most, 2.0)) + 0.1, 100_000))
    N = np.unique(np.concatenate([np.arange(1.0, 2001.0), np.ceil(grid)]))
    width, warm = constant * N**-rate, eps * np.log(N)
    left = error - width - warm
    if not np.any(left > 0):
        best = int(np.argmin(width + warm))
        raise ValueError(
            f"sample_size: at eps = {eps:g} no width brings the bound to {error:g}; the least is "
            f"{width[best] + warm[best]:.4g}, at {N[best]:.0f} atoms. Lower eps or ask for less."
        )
    with np.errstate(divide="ignore"):
        n = np.where(
            left > 0, noise**2 * N * (ambient + 1) / np.where(left > 0, left, 1.0) ** 2, np.inf
        )
    k = int(np.argmin(n))
    samples = max(1, int(np.ceil(n[k])))
    spread = noise * np.sqrt(N[k] * (ambient + 1) / samples)
    return SampleSize(
        float(error), samples, int(N[k]), float(width[k]), float(warm[k]), float(spread)
    )

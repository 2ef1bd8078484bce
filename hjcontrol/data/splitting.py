r"""Splits by an explicit key, standardised with the training part's statistics.

    x -> (x - mean_train) / std_train          a column constant in training: std := 1

Each class gives its share of the training samples, rounded by largest remainder; every class keeps
at least one sample on either side. Real targets are split without strata, and standardised too. Same
key, same split.
"""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Array, Key

from hjcontrol._ground.arguments import admits
from hjcontrol.data.dataset import DataError, DataSet


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """Standardised training and test parts, and the statistics `(d,)` that standardised them;
    `target_mean` and `target_scale` those of real targets."""

    train: DataSet
    test: DataSet
    mean: np.ndarray
    scale: np.ndarray
    target_mean: float = 0.0
    target_scale: float = 1.0


@admits()
def split(data: DataSet, train_size: float | int, *, key: Key[Array, ""]) -> Split:
    """Split into training and test parts.

    **Arguments:**

    - `train_size`: a fraction in (0, 1), or a number of samples (an `int`).
    - `key`: a JAX key, `jax.random.key(seed)`.

    **Raises:** `DataError` if a part would lack a class, if fewer than two samples of real targets were
    left to train on or none to test on, or if the features' range overflows.

    **Example:**

        >>> import jax, hjcontrol as hj
        >>> parts = hj.data.split(hj.data.load("iris"), 100, key=jax.random.key(0))
        >>> len(parts.train.targets), len(parts.test.targets)
        (100, 50)
    """
    count = _asked_count(data.name, len(data), train_size)
    if data.classes is None:
        return _split_measured(data, train_size, count, key)
    n, k = len(data), len(data.classes)
    if not k <= count <= n - k:
        raise DataError(
            f"{data.name}: train size {train_size} means {count} training and {n - count} test "
            f"samples; each part needs one of each of the {k} classes, so {k} to {n - k} training "
            "samples are possible."
        )
    totals = np.bincount(data.targets, minlength=k)
    chosen = _stratified(data.targets, _shares(totals, count, totals * 0 + 1, totals - 1), key)
    mask = np.zeros(n, bool)
    mask[chosen] = True
    mean, scale = _statistics(data, data.features[mask])
    with np.errstate(over="ignore", invalid="ignore"):
        features = (data.features - mean) / scale
    _check_range(data, features)
    scaled = dataclasses.replace(data, features=features)
    return Split(scaled.take(np.flatnonzero(mask)), scaled.take(np.flatnonzero(~mask)), mean, scale)


def _split_measured(
    data: DataSet, train_size: float | int, count: int, key: Key[Array, ""]
) -> Split:
    n = len(data)
    if not 2 <= count < n:
        raise DataError(
            f"{data.name}: train size {train_size} means {count} of {n} samples; 2 to {n - 1} are "
            "possible."
        )
    order = _generator(key).permutation(n)
    first, rest = np.sort(order[:count]), np.sort(order[count:])
    mean, scale = _statistics(data, data.features[first])
    with np.errstate(over="ignore", invalid="ignore"):
        middle, spread = _spread(data.targets[first])
        features, targets = (data.features - mean) / scale, (data.targets - middle) / spread
    _check_range(data, features)
    if not np.isfinite([middle, spread, *targets]).all():
        raise DataError(
            f"{data.name}: the target cannot be standardised, its values reach "
            f"{np.abs(data.targets).max():.3g}. Rescale it."
        )
    scaled = dataclasses.replace(data, features=features, targets=targets)
    return Split(scaled.take(first), scaled.take(rest), mean, scale, float(middle), float(spread))


@admits(count=">= 1")
def subset(data: DataSet, count: int, *, key: Key[Array, ""]) -> DataSet:
    """`count` samples, in the classes' proportions where there are classes, in their original order."""
    if not 1 <= count <= len(data):
        raise DataError(
            f"{data.name}: a subset of {count} samples was asked for; 1 to {len(data)} are "
            "possible."
        )
    if data.classes is None:
        return data.take(np.sort(_generator(key).permutation(len(data))[:count]))
    totals = np.bincount(data.targets, minlength=len(data.classes))
    return data.take(_stratified(data.targets, _shares(totals, count, totals * 0, totals), key))


def _asked_count(name: str, size: int, train_size: float | int) -> int:
    """How many of `size` samples `train_size` asks for: a fraction, or a number of them.

    **Raises:** `DataError` for anything else.
    """
    if isinstance(train_size, (int, np.integer)):
        return int(train_size)
    if not 0 < train_size < 1:
        raise DataError(
            f"{name}: train size must be a fraction between 0 and 1, or a whole number of samples; "
            f"found {train_size}."
        )
    return round(train_size * size)


def _shares(totals: np.ndarray, count: int, lowest: np.ndarray, highest: np.ndarray) -> np.ndarray:
    """Samples to take from each class: proportional, between bounds, `count` in all."""
    ideal = count * totals / totals.sum()
    shares = np.clip(np.floor(ideal).astype(int), lowest, highest)
    while (missing := count - int(shares.sum())) != 0:
        step = 1 if missing > 0 else -1
        room = shares < highest if missing > 0 else shares > lowest
        need = np.where(room, step * (ideal - shares), -np.inf)
        shares[np.argmax(need)] += step
    return shares


def _stratified(labels: np.ndarray, shares: np.ndarray, key: Key[Array, ""]) -> np.ndarray:
    """Sorted indices of a random choice of `shares[c]` samples of each class `c`."""
    order = _generator(key).permutation(len(labels))
    picked = [order[labels[order] == c][:share] for c, share in enumerate(shares)]
    return np.sort(np.concatenate(picked))


def _generator(key: Key[Array, ""]) -> np.random.Generator:
    import jax

    return np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel())


def _statistics(data: DataSet, train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    with np.errstate(over="ignore", invalid="ignore"):
        _check_range(data, np.stack([train.mean(axis=0), train.std(axis=0)]))
        return _spread(train)


def _spread(values: np.ndarray) -> tuple[Any, Any]:
    """Mean and standard deviation along the samples; 1 for a column that is constant."""
    mean, scale = values.mean(axis=0), values.std(axis=0)
    # The mean of equal numbers is rounded, so their spread is roundoff and not exactly zero.
    roundoff = 10 * np.finfo(float).eps * np.abs(values).max(axis=0)
    return mean, np.where((scale <= roundoff) | (scale == 0), 1.0, scale)


def _check_range(data: DataSet, values: np.ndarray) -> None:
    bad = np.flatnonzero(~np.isfinite(values).all(axis=0))
    if len(bad):
        column = data.feature_names[bad[0]]
        raise DataError(
            f"{data.name}: column {column!r} cannot be standardised, its values reach "
            f"{np.abs(data.features[:, bad[0]]).max():.3g}. Rescale it."
        )

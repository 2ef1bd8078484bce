r"""Stratified splits by an explicit key, standardised with the training part's statistics.

    x -> (x - mean_train) / std_train          a column constant in training: std := 1

Each class gives its share of the training samples, rounded by largest remainder; every class keeps
at least one sample on either side. Same key, same split.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Array, Key

from hjcontrol._ground.arguments import admits
from hjcontrol.data.dataset import DataError, DataSet


@dataclass(frozen=True, eq=False)
class Split:
    """Standardised training and test parts, and the statistics `(d,)` that standardised them."""

    train: DataSet
    test: DataSet
    mean: np.ndarray
    scale: np.ndarray


@admits()
def split(data: DataSet, train_size: float | int, *, key: Key[Array, ""]) -> Split:
    """Split into training and test parts.

    **Arguments:**

    - `train_size`: a fraction in (0, 1), or a number of samples (an `int`).
    - `key`: a JAX key, `jax.random.key(seed)`.

    **Raises:** `DataError` if a part would lack a class, or the features' range overflows.

    **Example:**

        >>> import jax, hjcontrol as hj
        >>> parts = hj.data.split(hj.data.load("iris"), 100, key=jax.random.key(0))
        >>> len(parts.train.labels), len(parts.test.labels)
        (100, 50)
    """
    n, k = len(data), len(data.classes)
    count = asked_count(data.name, n, train_size)
    if not k <= count <= n - k:
        raise DataError(
            f"{data.name}: train size {train_size} means {count} training and {n - count} test "
            f"samples; each part needs one of each of the {k} classes, so {k} to {n - k} training "
            "samples are possible."
        )
    totals = np.bincount(data.labels, minlength=k)
    chosen = _stratified(data.labels, _shares(totals, count, totals * 0 + 1, totals - 1), key)
    mask = np.zeros(n, bool)
    mask[chosen] = True
    mean, scale = _statistics(data, data.features[mask])
    with np.errstate(over="ignore", invalid="ignore"):
        features = (data.features - mean) / scale
    _check_range(data, features)
    scaled = DataSet(features, data.labels, data.classes, data.feature_names, data.name)
    return Split(scaled.take(np.flatnonzero(mask)), scaled.take(np.flatnonzero(~mask)), mean, scale)


@admits(count=">= 1")
def subset(data: DataSet, count: int, *, key: Key[Array, ""]) -> DataSet:
    """`count` samples in the classes' proportions, in their original order."""
    if not 1 <= count <= len(data):
        raise DataError(
            f"{data.name}: a subset of {count} samples was asked for; 1 to {len(data)} are "
            "possible."
        )
    totals = np.bincount(data.labels, minlength=len(data.classes))
    return data.take(_stratified(data.labels, _shares(totals, count, totals * 0, totals), key))


def asked_count(name: str, size: int, train_size: float | int) -> int:
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
    import jax

    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel())
    order = rng.permutation(len(labels))
    picked = [order[labels[order] == c][:share] for c, share in enumerate(shares)]
    return np.sort(np.concatenate(picked))


def _statistics(data: DataSet, train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    with np.errstate(over="ignore", invalid="ignore"):
        mean, scale = train.mean(axis=0), train.std(axis=0)
    _check_range(data, np.stack([mean, scale]))
    # The mean of equal numbers is rounded, so their spread is roundoff and not exactly zero.
    roundoff = 10 * np.finfo(float).eps * np.abs(train).max(axis=0)
    return mean, np.where((scale <= roundoff) | (scale == 0), 1.0, scale)


def _check_range(data: DataSet, values: np.ndarray) -> None:
    bad = np.flatnonzero(~np.isfinite(values).all(axis=0))
    if len(bad):
        column = data.feature_names[bad[0]]
        raise DataError(
            f"{data.name}: column {column!r} cannot be standardised, its values reach "
            f"{np.abs(data.features[:, bad[0]]).max():.3g}. Rescale it."
        )

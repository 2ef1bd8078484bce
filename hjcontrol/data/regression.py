r"""Regression data by name or by path: real targets instead of classes.

load_regression("diabetes", FILE.csv, FILE.npz, or a packaged set: class numbers then are targets)
features (n, d) finite          targets (n,) finite          two samples to train on, one to test on
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Array, Key

import hjcontrol.data.csv_file as csv_file
import hjcontrol.data.npz_file as npz_file
from hjcontrol._ground.arguments import admits, places
from hjcontrol._ground.third_party import needs
from hjcontrol.data.dataset import DataError
from hjcontrol.data.packaged import PACKAGED, read_packaged
from hjcontrol.data.splitting import asked_count

REGRESSION = ("diabetes", *PACKAGED)


@dataclass(frozen=True, eq=False)
class RegressionSet:
    """Features, real targets, and the names of the columns and of the whole."""

    features: np.ndarray
    targets: np.ndarray
    feature_names: tuple[str, ...]
    name: str

    def __len__(self) -> int:
        return len(self.targets)

    def take(self, index: np.ndarray) -> "RegressionSet":
        """The samples `index`."""
        index = places(self.name, index, len(self))
        return RegressionSet(
            self.features[index], self.targets[index], self.feature_names, self.name
        )


@admits()
def load_regression(source: str | Path, target: str | None = None) -> RegressionSet:
    """Load a regression data set; arguments and errors as for [`load`][hjcontrol.data.load].

    **Raises:** `DataError`.
    """
    name = str(source)
    if name in REGRESSION:
        if target is not None:
            raise DataError(f"{name}: its target is fixed; found target {target!r}.")
        return _packaged(name)
    path = Path(source)
    kind = path.suffix.lower()
    if kind not in (".csv", ".npz"):
        raise DataError(
            f"data {name!r} is unknown: expected {', '.join(REGRESSION)}, or a file ending in .csv or "
            ".npz."
        )
    X, y, names = (_csv if kind == ".csv" else _npz)(name, path, target)
    return _checked(name, X, y, names)


@admits()
def split_regression(
    data: RegressionSet, train_size: float | int, *, key: Key[Array, ""]
) -> tuple[RegressionSet, RegressionSet]:
    """Training and test parts, features and targets standardised with the training part's statistics.

    **Raises:** `DataError` if fewer than two samples were left to train on, or none to test on.
    """
    import jax

    n = len(data)
    count = asked_count(data.name, n, train_size)
    if not 2 <= count < n:
        raise DataError(
            f"{data.name}: train size {train_size} means {count} of {n} samples; 2 to {n - 1} are "
            "possible."
        )
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel())
    order = rng.permutation(n)
    train = data.take(np.sort(order[:count]))
    mean, scale = _statistics(train.features)
    middle, spread = _statistics(train.targets)
    scaled = RegressionSet(
        (data.features - mean) / scale,
        (data.targets - middle) / spread,
        data.feature_names,
        data.name,
    )
    return scaled.take(np.sort(order[:count])), scaled.take(np.sort(order[count:]))


def _statistics(values: np.ndarray) -> tuple[Any, Any]:
    mean, scale = values.mean(axis=0), values.std(axis=0)
    roundoff = 10 * np.finfo(float).eps * np.abs(values).max(axis=0)
    return mean, np.where(scale <= roundoff, 1.0, scale)


def _packaged(name: str) -> RegressionSet:
    if name != "diabetes":
        data = read_packaged(name)
        return RegressionSet(data.features, data.labels.astype(float), data.feature_names, name)
    needs("A packaged data set", "sklearn")
    import sklearn.datasets

    bunch = sklearn.datasets.load_diabetes()
    names = tuple(str(f) for f in bunch.feature_names)
    return RegressionSet(bunch.data, bunch.target.astype(float), names, name)


def _csv(name: str, path: Path, target: str | None) -> tuple[np.ndarray, np.ndarray, list[str]]:
    header, rows, lines = csv_file.records(name, path)
    at = csv_file.target_column(name, header, target)
    table = np.array(
        [
            [csv_file.number(name, line, c, text) for c, text in zip(header, row, strict=True)]
            for row, line in zip(rows, lines, strict=True)
        ]
    )
    return np.delete(table, at, axis=1), table[:, at], header[:at] + header[at + 1 :]


def _npz(name: str, path: Path, target: str | None) -> tuple[np.ndarray, np.ndarray, list[str]]:
    arrays = npz_file.Archive(name, path)
    features = npz_file.pick(arrays, npz_file.FEATURES, "features")
    labels = npz_file.LABELS if target is None else (target,)
    X, y = arrays[features], arrays[npz_file.pick(arrays, labels, "targets")]
    if X.dtype.kind not in "biuf" or y.dtype.kind not in "biuf":
        raise DataError(f"{name}: real numbers are needed; found dtypes {X.dtype} and {y.dtype}.")
    if X.ndim != 2 or y.shape != X.shape[:1]:
        raise DataError(
            f"{name}: features (samples, columns) and targets (samples,) are needed; found {X.shape} "
            f"and {y.shape}."
        )
    return X.astype(float), y.astype(float), [f"{features}{i}" for i in range(X.shape[1])]


def _checked(name: str, X: np.ndarray, y: np.ndarray, names: Sequence[str]) -> RegressionSet:
    if len(X) < 3 or X.shape[1] == 0:
        raise DataError(
            f"{name}: three samples or more and a feature column are needed; found {len(X)} samples, "
            f"{X.shape[1]} columns."
        )
    bad = np.argwhere(~np.isfinite(np.column_stack([X, y])))
    if len(bad):
        row, column = bad[0]
        where = [*names, "the target"][column]
        raise DataError(
            f"{name}: every value must be a finite number; {len(bad)} are missing, NaN or infinite, the "
            f"first in row {row}, column {where!r}. Fill in or drop them."
        )
    return RegressionSet(X, y, tuple(names), name)

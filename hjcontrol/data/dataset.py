"""A data set, of classes or of real targets, and what makes one admissible.

features   (n, d) float64, finite
targets    (n,) integers 0 .. classes-1: every class named, two or more, two samples in each
           (n,) float64, finite, without classes: three samples or more
"""

import dataclasses
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from hjcontrol._ground.arguments import admits, places


class DataError(ValueError):
    """Data that cannot be used; the message says what was found, where, and what to do."""


class RealTargetError(DataError):
    """A target that holds numbers and no classes, where classes were asked for.

    - `found`: what was found and where; the message ends with a remedy.
    """

    def __init__(self, found: str, remedy: str):
        super().__init__(f"{found} {remedy}")
        self.found = found


def unreadable(path: Path, error: Exception) -> DataError:
    """What to say of a file that cannot be read."""
    if isinstance(error, FileNotFoundError):
        return DataError(f"{path}: no such file. Check the path.")
    reason = getattr(error, "strerror", None) or error
    return DataError(f"{path}: the file cannot be read ({reason}).")


@dataclasses.dataclass(frozen=True, eq=False)
class DataSet:
    """Features `(n, d)`, targets `(n,)`, and the names of the classes, of the columns and of the whole.

    With `classes` the targets are integers, the places of the samples' classes in it; without, they are
    real numbers.
    """

    features: np.ndarray
    targets: np.ndarray
    classes: tuple[str, ...] | None = None
    feature_names: tuple[str, ...] = ()
    name: str = "data"

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def labels(self) -> np.ndarray:
        """Old name of `targets`."""
        warnings.warn(
            "DataSet.labels is now DataSet.targets; the old name goes with the next release.",
            DeprecationWarning,
            stacklevel=2,
        )
        return self.targets

    @admits()
    def take(self, index: np.ndarray) -> "DataSet":
        """The samples `index`, classes and names unchanged."""
        index = places(self.name, index, len(self))
        return dataclasses.replace(self, features=self.features[index], targets=self.targets[index])


def classified(
    name: str,
    features: np.ndarray,
    targets: Sequence[int] | Sequence[str],
    feature_names: Sequence[str],
    *,
    place: Callable[[int], str] = "row {}".format,
) -> DataSet:
    """Check features and raw targets, and number the classes.

    **Arguments:**

    - `name`: what error messages call the data.
    - `targets`: whole numbers, ordered by value, or strings, alphabetically; Python's own.
    - `place`: how error messages name a sample, given its index.

    **Raises:** `DataError`.
    """
    _check_features(name, features, feature_names, place)
    values = sorted(set(targets))
    number = {value: k for k, value in enumerate(values)}
    labels = np.array([number[target] for target in targets], np.int32)
    counts = np.bincount(labels, minlength=len(values))
    classes = tuple(str(value) for value in values)
    _check_classes(name, classes, counts, numbers=not any(isinstance(v, str) for v in values))
    return DataSet(
        np.ascontiguousarray(features, float), labels, classes, tuple(feature_names), name
    )


def measured(
    name: str, features: np.ndarray, targets: np.ndarray, feature_names: Sequence[str]
) -> DataSet:
    """A data set of real targets, checked.

    **Raises:** `DataError`.
    """
    if len(features) < 3 or features.shape[1] == 0:
        raise DataError(
            f"{name}: three samples or more and a feature column are needed; found {len(features)} "
            f"samples, {features.shape[1]} columns."
        )
    bad = np.argwhere(~np.isfinite(np.column_stack([features, targets])))
    if len(bad):
        row, column = bad[0]
        where = [*feature_names, "the target"][column]
        raise DataError(
            f"{name}: every value must be a finite number; {len(bad)} are missing, NaN or infinite, the "
            f"first in row {row}, column {where!r}. Fill in or drop them."
        )
    return DataSet(features, targets, None, tuple(feature_names), name)


def _check_features(
    name: str, features: np.ndarray, feature_names: Sequence[str], place: Callable[[int], str]
) -> None:
    n, d = features.shape
    if n == 0:
        raise DataError(f"{name}: no samples were found; at least two a class are needed.")
    if d == 0:
        raise DataError(f"{name}: no feature columns were found beside the target.")
    bad = np.argwhere(~np.isfinite(features))
    if len(bad):
        row, column = bad[0]
        missing = np.isnan(features[row, column])
        raise DataError(
            f"{name}: every feature must be a finite number; {len(bad)} of {n * d} values are "
            f"missing, NaN or infinite, the first in {place(int(row))}, column "
            f"{feature_names[column]!r} ({features[row, column]}). Fill in or drop them"
            + (", or fill a CSV file's empty cells by `encode='one-hot'`." if missing else ".")
        )


def _check_classes(
    name: str, classes: tuple[str, ...], counts: np.ndarray, *, numbers: bool
) -> None:
    if len(classes) == 1:
        raise DataError(
            f"{name}: at least two classes are needed; all {counts[0]} samples have the label "
            f"{classes[0]!r}."
        )
    lonely = [c for c, count in zip(classes, counts, strict=True) if count < 2]
    if lonely:
        shown = ", ".join(repr(c) for c in lonely[:3]) + (", ..." if len(lonely) > 3 else "")
        found = (
            f"{name}: at least two samples a class are needed, one to train on and one to test on; "
            f"{len(lonely)} of {len(classes)} classes have a single one ({shown}) among "
            f"{counts.sum()} samples."
        )
        remedy = "Is the target a class label? Then drop or merge them."
        raise RealTargetError(found, remedy) if numbers else DataError(f"{found} {remedy}")

"""NPZ files: an array of features `(n, d)` and an array of labels `(n,)`. Nothing is unpickled.

Names, shapes and types are read first; an array's content only when it is asked for, and only if it is no
larger than the limit of `hjcontrol._ground.files`, whatever it was compressed to.
"""

import math
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.lib.format as npy

from hjcontrol._ground.files import check_size, open_regular
from hjcontrol.data.dataset import DataError, DataSet, classified, measured, unreadable
from hjcontrol.data.labels import labels_of_array

FEATURES = ("X", "features", "inputs", "data", "x")
TARGETS = ("y", "labels", "targets", "target")


class Archive(Mapping):
    """The arrays of an NPZ file by name; each is read when it is asked for.

    **Raises:** `DataError` naming the file, for what is no archive of plain arrays; from `archive[name]`
    too, for an array that is damaged or too large.
    """

    def __init__(self, name: str, path: Path):
        self.name, self.path = name, path
        self.heads: dict[str, tuple[tuple[int, ...], np.dtype]] = {}
        try:
            with open_regular(path) as file, zipfile.ZipFile(file) as archive:
                for member in archive.namelist():
                    if member.endswith(".npy"):
                        with archive.open(member) as content:
                            self.heads[member[:-4]] = _head(content)
        except zipfile.BadZipFile:
            raise DataError(
                f"{name}: this is not an NPZ file. Write one with `numpy.savez`."
            ) from None
        except Exception as error:  # whatever damaged bytes make the readers raise
            raise self._broken(error) from None

    def __getitem__(self, key: str) -> np.ndarray:
        if key not in self.heads:
            raise KeyError(key)
        shape, dtype = self.heads[key]
        try:
            check_size(math.prod(shape) * dtype.itemsize, f"{self.name}, array {key!r}")
            with open_regular(self.path) as file, np.load(file, allow_pickle=False) as archive:
                return archive[key]
        except Exception as error:  # whatever damaged bytes make the readers raise
            raise self._broken(error) from None

    def __contains__(self, key: object) -> bool:
        return key in self.heads

    def __iter__(self) -> Iterator[str]:
        return iter(self.heads)

    def __len__(self) -> int:
        return len(self.heads)

    def __str__(self) -> str:
        """Names and shapes, as error messages list them."""
        return (
            ", ".join(f"{k!r} {shape}" for k, (shape, _) in list(self.heads.items())[:8]) or "none"
        )

    def _broken(self, error: Exception) -> DataError:
        if isinstance(error, OSError) and error.strerror is not None:
            return unreadable(self.path, error)
        reason = (str(error) or type(error).__name__).splitlines()[0]
        return DataError(
            f"{self.name}: the file cannot be read ({reason}). Write plain arrays with `numpy.savez`; "
            "pickled objects are not loaded."
        )


def _head(content: object) -> tuple[tuple[int, ...], np.dtype]:
    version = npy.read_magic(content)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = read(content)
    return shape, dtype


def read(name: str, path: Path, target: str | None, regression: bool = False) -> DataSet:
    """Read a data set; `target` names the array of targets.

    **Raises:** `DataError` naming file, array and shape.
    """
    arrays = Archive(name, path)
    features = _pick(arrays, FEATURES, "features")
    wanted = TARGETS if target is None else (target,)
    labels = _pick(arrays, wanted, "targets" if regression else "labels")
    X, y = arrays[features], arrays[labels]
    if regression:
        return _measured(name, features, X, y)
    if X.dtype.kind not in "biuf":
        raise DataError(
            f"{name}: the features {features!r} must be real numbers; found dtype {X.dtype}."
        )
    if X.ndim != 2:
        flat = f" Reshape to {(len(X), int(np.prod(X.shape[1:])))}." if X.ndim > 2 else ""
        raise DataError(
            f"{name}: the features {features!r} must have shape (samples, features); found "
            f"{X.shape}.{flat}"
        )
    if y.dtype.kind not in "biufUS":
        raise DataError(
            f"{name}: the labels {labels!r} must be whole numbers or strings; found dtype "
            f"{y.dtype}."
        )
    if y.shape != (len(X),):
        raise DataError(
            f"{name}: the labels {labels!r} must have shape ({len(X)},), one a row of "
            f"{features!r}; found {y.shape}. One-hot rows become labels by `argmax(axis=1)`."
        )
    named = labels_of_array(name, y, "row {}".format)
    return classified(name, X.astype(float), named, [f"{features}{i}" for i in range(X.shape[1])])


def _measured(name: str, features: str, X: np.ndarray, y: np.ndarray) -> DataSet:
    if X.dtype.kind not in "biuf" or y.dtype.kind not in "biuf":
        raise DataError(f"{name}: real numbers are needed; found dtypes {X.dtype} and {y.dtype}.")
    if X.ndim != 2 or y.shape != X.shape[:1]:
        raise DataError(
            f"{name}: features (samples, columns) and targets (samples,) are needed; found {X.shape} "
            f"and {y.shape}."
        )
    names = [f"{features}{i}" for i in range(X.shape[1])]
    return measured(name, X.astype(float), y.astype(float), names)


def _pick(arrays: Archive, wanted: tuple[str, ...], role: str) -> str:
    """The first of the names `wanted` that the archive has.

    **Raises:** `DataError` listing what it has.
    """
    for key in wanted:
        if key in arrays:
            return key
    raise DataError(
        f"{arrays.name}: no array of {role} called {' or '.join(map(repr, wanted))}; the arrays are "
        f"{arrays}."
    )

"""NPZ files: an array of features `(n, d)` and an array of labels `(n,)`. Nothing is unpickled."""

import io
import zipfile
import zlib

import numpy as np

from hjcontrol.data.dataset import DataError, DataSet, dataset

FEATURES = ("X", "features", "inputs", "data", "x")
LABELS = ("y", "labels", "targets", "target")


def read_npz(name: str, content: bytes, target: str | None) -> DataSet:
    """Parse the bytes of an NPZ file; `target` names the array of labels.

    **Raises:** `DataError` naming file, array and shape.
    """
    arrays = read_arrays(name, content)
    features = _pick(name, arrays, FEATURES, "features")
    labels = _pick(name, arrays, LABELS if target is None else (target,), "labels")
    X, y = arrays[features], arrays[labels]
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
    if y.dtype.kind == "S":
        y = np.array([text.decode("utf-8", "replace") for text in y.tolist()])
    return dataset(name, X.astype(float), y, [f"{features}{i}" for i in range(X.shape[1])])


def read_arrays(name: str, content: bytes) -> dict[str, np.ndarray]:
    """Parse the bytes of an NPZ file. **Raises:** `DataError` naming the file."""
    if not zipfile.is_zipfile(io.BytesIO(content)):
        raise DataError(f"{name}: this is not an NPZ file. Write one with `numpy.savez`.")
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
    except (OSError, ValueError, EOFError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(
            f"{name}: the file cannot be read ({str(error).splitlines()[0]}). Write plain arrays "
            "with `numpy.savez`; pickled objects are not loaded."
        ) from None
    return {key: a for key, a in arrays.items() if isinstance(a, np.ndarray)}


def _pick(name: str, arrays: dict[str, np.ndarray], wanted: tuple[str, ...], role: str) -> str:
    for key in wanted:
        if key in arrays:
            return key
    found = ", ".join(f"{k!r} {a.shape}" for k, a in list(arrays.items())[:8]) or "none"
    raise DataError(
        f"{name}: no array of {role} called {' or '.join(map(repr, wanted))}; the arrays are "
        f"{found}."
    )

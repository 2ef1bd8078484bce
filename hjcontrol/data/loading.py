"""Data by name or by path: digits, wine, breast_cancer, iris, diabetes, FILE.csv, FILE.npz."""

import difflib
from pathlib import Path
from typing import Literal

from hjcontrol._ground.arguments import admits
from hjcontrol.data.csv_file import read as read_csv
from hjcontrol.data.dataset import DataError, DataSet, RealTargetError
from hjcontrol.data.encoding import ENCODINGS
from hjcontrol.data.npz_file import Archive
from hjcontrol.data.npz_file import read as read_npz
from hjcontrol.data.packaged import MEASURED, PACKAGED, read_packaged

_READERS = {".csv": read_csv, ".npz": read_npz}


@admits()
def load(
    source: str | Path,
    target: str | None = None,
    *,
    regression: bool = False,
    encode: Literal["one-hot"] | None = None,
) -> DataSet:
    """Load a data set.

    **Arguments:**

    - `source`: one of `PACKAGED`, for regression also `"diabetes"`, or the path of a `.csv` or `.npz`
      file.
    - `target`: for a CSV file the name of the target column (default: the last); for an NPZ file
      the name of the array of targets (default: `y`, `labels`, `targets` or `target`).
    - `regression`: read the target as real numbers instead of classes.
    - `encode`: `"one-hot"` makes a column a category of a CSV file's columns of text, and fills empty
      cells of numbers by the column's median, with a column that says where; see
      `hjcontrol.data.encoding`. Without it both are refused.

    **Raises:** `DataError` whose message names the file, the place and the remedy.

    **Example:**

        >>> import hjcontrol as hj
        >>> iris = hj.data.load("iris")
        >>> len(iris), iris.features.shape
        (150, (150, 4))
    """
    name = str(source)
    known = (*MEASURED, *PACKAGED) if regression else PACKAGED
    if name in MEASURED and not regression:
        raise RealTargetError(
            f"{name}: it has real targets and no classes.",
            f"Give `regression=True`, or one of {', '.join(PACKAGED)}.",
        )
    if name in known:
        if encode is not None:
            raise DataError(f"{name}: `encode` is for the columns of a FILE.csv. Leave it out.")
        if target is not None:
            raise DataError(
                f"{name}: its target is fixed; found target {target!r}. Leave the target out, or "
                "give a FILE.csv or FILE.npz."
            )
        return read_packaged(name, regression)
    path = Path(source)
    if encode is not None and encode not in ENCODINGS:
        raise DataError(f"load: `encode` must be one of {', '.join(ENCODINGS)}; found {encode!r}.")
    if encode is not None and path.suffix.lower() != ".csv":
        raise DataError(f"{name}: `encode` is for the columns of a FILE.csv. Leave it out.")
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise DataError(
            f"data {name!r} is unknown: expected {', '.join(known)}, or a file ending in .csv "
            f"or .npz.{hint}"
        )
    return reader(name, path, target, regression, **({} if encode is None else {"encode": encode}))


@admits()
def npz_arrays(source: str | Path) -> Archive:
    """The arrays of an NPZ file by name, whatever they are called; each is read when it is asked for.
    Nothing is unpickled.

    **Raises:** `DataError` naming the file and what is wrong with it.
    """
    return Archive(str(source), Path(source))

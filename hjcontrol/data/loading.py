"""Data by name or by path: digits, wine, breast_cancer, iris, FILE.csv, FILE.npz."""

import difflib
from pathlib import Path

from hjcontrol._ground.arguments import admits
from hjcontrol.data.csv_file import read_csv
from hjcontrol.data.dataset import DataError, DataSet
from hjcontrol.data.npz_file import Archive, read_npz
from hjcontrol.data.packaged import PACKAGED, read_packaged

_READERS = {".csv": read_csv, ".npz": read_npz}


@admits()
def load(source: str | Path, target: str | None = None) -> DataSet:
    """Load a classification data set.

    **Arguments:**

    - `source`: one of `PACKAGED`, or the path of a `.csv` or `.npz` file.
    - `target`: for a CSV file the name of the target column (default: the last); for an NPZ file
      the name of the array of labels (default: `y`, `labels`, `targets` or `target`).

    **Raises:** `DataError` whose message names the file, the place and the remedy.

    **Example:**

        >>> import hjcontrol as hj
        >>> iris = hj.data.load("iris")
        >>> len(iris), iris.features.shape
        (150, (150, 4))
    """
    name = str(source)
    if name in PACKAGED:
        if target is not None:
            raise DataError(
                f"{name}: its target is fixed; found target {target!r}. Leave the target out, or "
                "give a FILE.csv or FILE.npz."
            )
        return read_packaged(name)
    path = Path(source)
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        close = difflib.get_close_matches(name, PACKAGED, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise DataError(
            f"data {name!r} is unknown: expected {', '.join(PACKAGED)}, or a file ending in .csv "
            f"or .npz.{hint}"
        )
    return reader(name, path, target)


@admits()
def npz_arrays(source: str | Path) -> Archive:
    """The arrays of an NPZ file by name, whatever they are called; each is read when it is asked for.
    Nothing is unpickled.

    **Raises:** `DataError` naming the file and what is wrong with it.
    """
    return Archive(str(source), Path(source))

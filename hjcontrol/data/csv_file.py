"""CSV files: comma-separated, UTF-8, one header line, one sample a line.

A header is required, and never guessed away: a first line that looks like data is refused, since
eating a sample in silence is worse than asking for names. Numeric names are taken for a header only
when they count 0, 1, 2, ... or 1, 2, 3, ..., as pandas writes them. Blank lines are skipped.
"""

import csv
import difflib
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hjcontrol._ground.files import read_regular
from hjcontrol.data.dataset import DataError, DataSet, classified, measured, unreadable
from hjcontrol.data.encoding import encoded
from hjcontrol.data.labels import labels_of_texts


def read(
    name: str, path: Path, target: str | None, regression: bool = False, encode: str | None = None
) -> DataSet:
    """Read a CSV file; the target is the last column unless it is named. `encode`: see `encoding`.

    **Raises:** `DataError` naming file, line, column and value.
    """
    header, rows, lines = _records(name, path)
    at = _target_column(name, header, target)
    names = header[:at] + header[at + 1 :]
    labels = [row.pop(at).strip() for row in rows]
    if regression:
        pairs = zip(labels, lines, strict=True)
        targets = np.array([_number(name, line, header[at], text) for text, line in pairs])
        features, names = _features(name, names, rows, lines, encode)
        return measured(name, features, targets, names)
    for label, line in zip(labels, lines, strict=True):
        if not label:
            raise DataError(
                f"{name}: line {line} has no label in the target column {header[at]!r}. "
                "Fill it in, or drop the line."
            )
    features, names = _features(name, names, rows, lines, encode)
    place = lambda i: f"line {lines[i]}"
    return classified(name, features, labels_of_texts(name, labels, place), names, place=place)


def _features(
    name: str, names: list[str], rows: list[list[str]], lines: list[int], encode: str | None
) -> tuple[np.ndarray, list[str]]:
    if encode is not None:
        return encoded(name, names, rows, _as_number)
    text = [
        c
        for c, cells in zip(names, zip(*rows, strict=True), strict=True)
        if any(cell.strip() and _as_number(cell) is None for cell in cells)
    ]
    table = [
        [_number(name, line, c, cell, text) for c, cell in zip(names, row, strict=True)]
        for row, line in zip(rows, lines, strict=True)
    ]
    return np.array(table).reshape(len(rows), len(names)), names


def _records(name: str, path: Path) -> tuple[list[str], list[list[str]], list[int]]:
    """Header, records and the line on which each record starts.

    **Raises:** `DataError` for a file that cannot be read, or is no table.
    """
    try:
        content = read_regular(path)
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        raise unreadable(path, error) from None
    if not content:
        raise DataError(f"{path}: the file is empty.")
    return _rows(name, _decode(name, content))


def _decode(name: str, content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{name}: line {line} is not UTF-8 text (byte 0x{content[error.start]:02x}). "
            "Save the file as UTF-8."
        ) from None


def _rows(name: str, text: str) -> tuple[list[str], list[list[str]], list[int]]:
    """Header, records and the line on which each record starts."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    records, lines, start = [], [], 1
    try:
        for record in reader:
            if record and not (len(record) == 1 and not record[0].strip()):
                records.append(record)
                lines.append(start)
            start = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{name}: line {start} is not well-formed CSV: {error}.") from None
    if not records:
        raise DataError(f"{name}: the file is empty (blank lines only).")
    header = [c.strip() for c in records[0]]
    _check_header(name, header, lines[0])
    for record, line in zip(records[1:], lines[1:], strict=True):
        if len(record) != len(header):
            raise DataError(
                f"{name}: line {line} has {len(record)} fields; the header on line {lines[0]} has "
                f"{len(header)}. Repair the line."
            )
    if len(records) == 1:
        raise DataError(f"{name}: a header was found, and no samples below it.")
    return header, records[1:], lines[1:]


def _check_header(name: str, header: Sequence[str], line: int) -> None:
    if len(header) == 1:
        other = next((s for s in (";", "\t", "|") if s in header[0]), None)
        hint = f" Fields seem to be separated by {other!r}; use commas." if other else ""
        raise DataError(
            f"{name}: a feature column and a target column are needed; line {line} has one column "
            f"only.{hint}"
        )
    numeric = [c for c in header if _as_number(c) is not None]
    counting = [[str(i) for i in range(first, first + len(numeric))] for first in (0, 1)]
    if numeric and numeric not in counting:
        raise DataError(
            f"{name}: a header is needed; line {line} looks like data (it contains the number "
            f"{numeric[0]}). Put a line of column names first."
        )
    for i, column in enumerate(header):
        if not column:
            raise DataError(
                f"{name}: column {i + 1} has no name in the header. Name it, or remove it if it "
                "only numbers the rows."
            )
        if header.index(column) != i:
            raise DataError(
                f"{name}: columns {header.index(column) + 1} and {i + 1} are both called "
                f"{column!r}. Rename one."
            )


def _target_column(name: str, header: list[str], target: str | None) -> int:
    """Where the target stands: the last column unless it is named."""
    if target is None:
        return len(header) - 1
    if target in header:
        return header.index(target)
    shown = ", ".join(repr(c) for c in header[:12])
    more = f" and {len(header) - 12} more" if len(header) > 12 else ""
    close = difflib.get_close_matches(target, header, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise DataError(f"{name}: no column {target!r}; the columns are {shown}{more}.{hint}")


def _number(name: str, line: int, column: str, text: str, columns: Sequence[str] = ()) -> float:
    """The number that a cell holds; NaN for an empty one. `columns`: all that hold text."""
    value = _as_number(text)
    if value is not None:
        return value
    text = text.strip()
    if not text:
        return np.nan  # counted and reported with the other missing values
    also = f"Text is in columns {', '.join(map(repr, columns[:8]))}. " if len(columns) > 1 else ""
    shown = text if len(text) <= 40 else text[:37] + "..."
    raise DataError(
        f"{name}: line {line}, column {column!r} holds {shown!r}; a number is needed. {also}"
        "Encode text by `encode='one-hot'` (`--encode one-hot`), drop the column, or name it as the "
        "target."
    )


def _as_number(text: str) -> float | None:
    if "_" in text:  # Python reads 1_000 as a number; a CSV file does not mean one
        return None
    try:
        return float(text)
    except ValueError:
        return None

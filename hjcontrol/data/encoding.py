"""Columns of text and missing numbers as numbers, when a user asks for it, through scikit-learn.

    text       one column a category, `colour=red`; an empty cell is the category `colour=missing`
    numbers    an empty cell is the column's median, and a column `age missing` says where

Medians and categories are those of the whole file, test samples included.
"""

from collections.abc import Callable, Sequence

import numpy as np

from hjcontrol._ground.third_party import needs
from hjcontrol.data.dataset import DataError

ENCODINGS = ("one-hot",)
MANY = 200  # categories of a column, at most


def encoded(
    name: str,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    number: Callable[[str], float | None],
) -> tuple[np.ndarray, list[str]]:
    """Features `(n, d)` and their names. `number`: a cell's number, or `None`.

    **Raises:** `DataError` for a column without any value, or of text with more than `MANY` categories.
    """
    needs("encode='one-hot'", "sklearn")
    parts, names = [], []
    for column, cells in zip(header, zip(*rows, strict=True), strict=True):
        texts = [cell.strip() for cell in cells]
        if not any(texts):
            raise DataError(f"{name}: column {column!r} holds no value at all. Drop it.")
        values = [np.nan if not text else number(text) for text in texts]
        part, own = _categories(name, column, texts) if None in values else _numbers(column, values)
        parts.append(part)
        names += own
    return np.concatenate(parts, axis=1), names


def _categories(name: str, column: str, texts: list[str]) -> tuple[np.ndarray, list[str]]:
    from sklearn.preprocessing import OneHotEncoder

    cells = np.array([text or "missing" for text in texts], object)[:, None]
    encoder = OneHotEncoder(sparse_output=False).fit(cells)
    (found,) = encoder.categories_
    if len(found) > MANY:
        raise DataError(
            f"{name}: column {column!r} holds {len(found)} different texts; at most {MANY} are encoded. "
            "Is it an identifier? Drop it, or join categories."
        )
    return np.asarray(encoder.transform(cells), float), [f"{column}={value}" for value in found]


def _numbers(column: str, values: list[float]) -> tuple[np.ndarray, list[str]]:
    from sklearn.impute import SimpleImputer

    cells = np.array(values, float)[:, None]
    filled = SimpleImputer(strategy="median", add_indicator=True).fit_transform(cells)
    return np.asarray(filled, float), [column, f"{column} missing"][: filled.shape[1]]

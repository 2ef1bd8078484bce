r"""Labels: text until they are proven to be whole numbers.

    "3", "12"               whole numbers, ordered by value, of any size
    "3.0", "1e5"            whole numbers too, unless two spellings of one number meet: refused
    "00501", "7b", "no"     text: a leading zero is a code's, and 00501 and 501 are two classes
    "0.5"                   a continuous target: refused          "nan", "": missing: refused

Classes are told apart as Python's own strings and integers: NumPy's would drop a trailing NUL and round
beyond 2^53.
"""

import math
import re
from collections.abc import Callable, Sequence

import numpy as np

from hjcontrol.data.dataset import DataError, RealTargetError

_WHOLE = re.compile(r"[+-]?(0|[1-9][0-9]*)")
_CODE = re.compile(r"[+-]?0[0-9]+")


def labels_of_texts(
    name: str, texts: Sequence[str], place: Callable[[int], str]
) -> list[int] | list[str]:
    """Labels read from text: all whole numbers, or all the strings they are.

    **Raises:** `DataError` naming the place of a missing or fractional label, or of a number that is
    spelt in two ways.
    """
    missing = [i for i, text in enumerate(texts) if text.lower() in ("", "nan", "+nan", "-nan")]
    if missing:
        raise _unlabelled(name, missing, "missing or NaN", place)
    if all(_WHOLE.fullmatch(text) for text in texts):
        numbers: Sequence[int] | None = [int(text) for text in texts if len(text) < 4000]
    else:
        numbers = (
            None if any(_CODE.fullmatch(text) for text in texts) else _spelt(name, texts, place)
        )
    if numbers is None or len(numbers) < len(texts):
        return list(texts)
    seen: dict[int, int] = {}
    for i, (number, text) in enumerate(zip(numbers, texts, strict=True)):
        first = seen.setdefault(number, i)
        if texts[first] != text:
            raise DataError(
                f"{name}: {texts[first]!r} in {place(first)} and {text!r} in {place(i)} spell one "
                "number; whether they are one class cannot be told. Spell every label in one way."
            )
    return list(numbers)


def _unlabelled(name: str, where: list[int], what: str, place: Callable[[int], str]) -> DataError:
    return DataError(
        f"{name}: every sample needs a label; {len(where)} labels are {what}, the first in "
        f"{place(where[0])}. Fill in or drop these samples."
    )


def _spelt(name: str, texts: Sequence[str], place: Callable[[int], str]) -> list[int] | None:
    """The whole numbers that texts such as `1.0` and `1e5` are; `None` if some text is no number."""
    try:
        values = [float(text) for text in texts if "_" not in text]
    except ValueError:
        return None
    if len(values) < len(texts):
        return None
    infinite = [i for i, v in enumerate(values) if not math.isfinite(v)]
    if infinite:
        raise _unlabelled(name, infinite, "infinite", place)
    bad = [i for i, v in enumerate(values) if v != round(v)]
    if bad:
        raise RealTargetError(
            f"{name}: the target must hold classes (whole numbers or strings); it looks continuous: "
            f"{texts[bad[0]]} in {place(bad[0])}, {len(set(values))} distinct values in {len(texts)} "
            "samples.",
            "Name another target, or bin this one.",
        )
    if max(map(abs, values)) > 2.0**53:
        raise DataError(f"{name}: labels beyond 2^53 are not distinct as decimals. Write them out.")
    return [int(v) for v in values]


def labels_of_array(
    name: str, array: np.ndarray, place: Callable[[int], str]
) -> list[int] | list[str]:
    """Labels held by an array of booleans, numbers, text or bytes.

    **Raises:** `DataError` for what is missing, fractional, or a float beyond 2^53.
    """
    if array.dtype.kind == "S":
        return [text.decode("utf-8", "backslashreplace") for text in array.tolist()]
    if array.dtype.kind in "bU":
        return [str(value) for value in array.tolist()]
    if array.dtype.kind in "iu":
        return array.tolist()
    found = _spelt(name, [repr(value) for value in array.tolist()], place)
    assert found is not None  # floats spell numbers
    return found

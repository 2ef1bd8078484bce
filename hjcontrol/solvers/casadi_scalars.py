"""Arrays of CasADi scalars: NumPy object arrays whose entries are 1-by-1 `casadi.SX`.

A bare SX never meets a NumPy function here: CasADi 3.8 warns of it, and its meaning will change.
"""

from collections.abc import Callable, Sequence
from typing import Any

import casadi as ca
import numpy as np


def is_symbolic(value: Any) -> bool:
    """Whether `value` holds symbols rather than numbers."""
    return isinstance(value, ca.SX) or (isinstance(value, np.ndarray) and value.dtype == object)


def box(entries: Sequence[ca.SX], shape: Sequence[int]) -> np.ndarray:
    """An object array of `shape` from its entries in row-major order."""
    out = np.empty(len(entries), object)
    for i, entry in enumerate(entries):
        out[i] = entry
    return out.reshape(tuple(shape))


def lifted(value: Any) -> np.ndarray:
    """`value` as an array of scalars; numbers become constants."""
    if is_symbolic(value):
        return value
    if isinstance(value, ca.SX):
        return box([value], ())
    numbers = np.asarray(value).astype(float)
    return box([ca.SX(float(v)) for v in numbers.ravel()], numbers.shape)


def mapped(function: Callable[..., ca.SX], *values: Any) -> np.ndarray:
    """`function` of scalars, entry by entry, the arrays broadcast against each other."""
    arrays = np.broadcast_arrays(*[lifted(v) for v in values])
    columns = [a.ravel() for a in arrays]
    return box([function(*entries) for entries in zip(*columns, strict=True)], arrays[0].shape)


def column(value: Any) -> ca.SX:
    """All entries in row-major order as one CasADi column."""
    entries = lifted(value).ravel()
    return ca.vertcat(*entries) if len(entries) else ca.SX(0, 1)

"""Whether a value is known now, or only once the program runs.

Bad values are refused at once where they can be seen; under `jit` they cannot, and stay data.
"""

from typing import Any

import jax
import numpy as np
from jax.typing import ArrayLike


def known(x: Any) -> np.ndarray | None:
    """The value of `x` as a NumPy array, or `None` while it is being traced, or where parts of it lie
    with other processes."""
    if isinstance(x, jax.Array) and not traced(x) and not x.is_fully_addressable:
        return None
    try:
        return np.asarray(x)
    except jax.errors.TracerArrayConversionError:
        return None


def known_to_fail(condition: ArrayLike) -> bool:
    """Whether `condition` is known to be false for some entry."""
    value = known(condition)
    return value is not None and not bool(value.all())


def traced(x: Any) -> bool:
    """Whether `jit`, `vmap` or `grad` hide the value of `x`. Nothing is read from a device."""
    return any(kind.__name__ == "Tracer" for kind in type(x).__mro__)  # its class is not public

"""Memory that a compiler has freed goes back to the system.

XLA frees what compiling took, and the C library keeps it: 100 MiB after the step of a network of
34 stages, on which all that is allocated later is piled. Limit: glibc alone can be asked.
"""

import ctypes
import functools
import time
from collections.abc import Callable
from typing import Any

import jax

COMPILED = 0.1  # s; what is quicker has compiled nothing of size, and asking takes milliseconds


def ready(function: Callable[..., Any], *arguments: Any) -> Any:
    """`function(*arguments)`, computed; where that took compiling, free memory is given back."""
    clock = time.perf_counter()
    value = jax.block_until_ready(function(*arguments))
    trim = _trim()
    if trim is not None and time.perf_counter() - clock > COMPILED:
        trim(0)
    return value


@functools.cache
def _trim() -> Callable[[int], Any] | None:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # another C library, another system
        return None

"""Precision policy: which relative disagreement a dtype can certify.

    float64: exact <= 1e-9     float32: exact <= 1e-4

The caller's dtype is never changed. An `exact` verdict in float32 rests on about three digits more
than roundoff, so asking for one warns, once a process.
"""

import functools
import warnings

import jax.numpy as jnp
from jaxtyping import DTypeLike

_EXACT = {"float64": 1e-9, "float32": 1e-4, "bfloat16": 5e-2, "float16": 1e-2}


def exact_tolerance(dtype: DTypeLike) -> float:
    """Largest relative disagreement between two discrete routes that counts as roundoff.

    **Raises:** `ValueError` if `dtype` is not a floating type.
    """
    name = jnp.dtype(dtype).name
    if name not in _EXACT:
        raise ValueError(f"exact_tolerance: a floating dtype is needed; found {name}.")
    if name != "float64":
        _warn_once(name)
    return _EXACT[name]


@functools.cache
def _warn_once(name: str) -> None:
    warnings.warn(
        f"An exact certificate was asked for in {name}: agreement is judged at "
        f"{_EXACT[name]:.0e}. For roundoff-level evidence enable float64 "
        "(`jax.config.update('jax_enable_x64', True)`) and pass float64 inputs.",
        UserWarning,
        stacklevel=4,
    )

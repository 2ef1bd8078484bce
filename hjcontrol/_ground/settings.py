"""Settings of JAX that a user makes for code of their own, and that stop at this library's.

jax.numpy_dtype_promotion("strict")    what runs under it runs as well, and equally, under "standard"
jax.transfer_guard("disallow")         numbers of the library's own go to the device
"""

import contextlib
import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import jax

F = TypeVar("F", bound=Callable[..., Any])


def as_usual(function: F) -> F:
    """A function that runs under JAX's usual settings, whatever the caller's are."""

    @functools.wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        with contextlib.ExitStack() as stack:
            stack.enter_context(jax.transfer_guard("allow"))
            if jax.config.jax_numpy_dtype_promotion != "standard":
                stack.enter_context(jax.numpy_dtype_promotion("standard"))
            return function(*args, **kwargs)

    return cast(F, called)

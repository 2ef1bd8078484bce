"""BLAS held to one thread, by threadpoolctl; without that package it runs on as it will."""

import contextlib
import functools
import sys
from typing import Any

from hjcontrol._ground.third_party import installed


def one_blas_thread() -> contextlib.AbstractContextManager[Any]:
    """Hold every BLAS that is loaded to one thread for a while."""
    if not installed("threadpoolctl"):
        return contextlib.nullcontext()
    return _controller("scipy.linalg" in sys.modules).limit(limits=1, user_api="blas")


@functools.cache
def _controller(scipy: bool) -> Any:
    """Looks through every loaded library, some milliseconds: once, and again once SciPy is there."""
    del scipy
    import threadpoolctl

    return threadpoolctl.ThreadpoolController()

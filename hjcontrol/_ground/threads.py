"""BLAS held to one thread, by threadpoolctl; without that package it runs on as it will."""

import contextlib
from typing import Any

from hjcontrol._ground.third_party import installed


def one_blas_thread() -> contextlib.AbstractContextManager[Any]:
    """Hold every BLAS that is loaded to one thread for a while."""
    if not installed("threadpoolctl"):
        return contextlib.nullcontext()
    import threadpoolctl

    return threadpoolctl.threadpool_limits(1, user_api="blas")

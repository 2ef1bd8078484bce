"""How figures are taken: after a warm-up, blocked until ready, median and range of several runs.

A row always carries an accuracy beside its time. Versions and the machine are printed once on top.
"""

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from importlib.metadata import version

import jax

jax.config.update("jax_enable_x64", True)


def header(title: str) -> None:
    """Title, versions, machine."""
    packages = ("hjcontrol", "jax", "equinox", "optax", "casadi", "numpy", "scipy")
    print(f"# {title}")
    print("  " + "  ".join(f"{p} {version(p)}" for p in packages))
    devices = ", ".join(d.device_kind for d in jax.devices())
    print(f"  Python {platform.python_version()}, {os.cpu_count()} cores, {devices}, float64\n")


def timed(
    run: Callable[[], object], repeats: int = 5, *, warm: bool = True
) -> tuple[float, float, float]:
    """Median, least and greatest seconds of `run`, after one call that is not counted (`warm`)."""
    if warm:
        jax.block_until_ready(run())
    seconds = []
    for _ in range(repeats):
        clock = time.perf_counter()
        jax.block_until_ready(run())
        seconds.append(time.perf_counter() - clock)
    return statistics.median(seconds), min(seconds), max(seconds)


def row(**fields: object) -> None:
    """One result, as a line of JSON: easy to read, easy to keep."""
    rounded = {k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in fields.items()}
    print(json.dumps(rounded))
    sys.stdout.flush()

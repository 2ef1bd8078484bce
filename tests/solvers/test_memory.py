"""Memory that compiling took goes back to the system: what the process holds, read from the kernel."""

import ctypes
import pathlib
import resource
import sys

import jax.numpy as jnp
import pytest

from hjcontrol._ground import memory

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux") or memory._trim() is None, reason="glibc on Linux alone"
)
BLOCKS, SIZE = 4000, 32 * 1024  # 125 MiB, each block below the size that malloc maps by itself


def held() -> float:
    """Resident memory of this process, MiB."""
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def freed():
    """Take memory as a compiler does and free it, all but the last block, which stays on top."""
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    blocks = [libc.malloc(SIZE) for _ in range(BLOCKS)]
    for block in blocks:
        ctypes.memset(block, 1, SIZE)
    for block in blocks[:-1]:
        libc.free(block)
    return jnp.asarray(blocks[-1] % 2)


def test_what_took_long_gives_memory_back(monkeypatch):
    memory._trim()(0)  # what earlier tests freed would be taken again, and show no growth
    before = held()
    monkeypatch.setattr(memory, "COMPILED", float("inf"))
    memory.ready(freed)
    assert held() - before > 100  # the twin: nothing was asked of the C library
    monkeypatch.setattr(memory, "COMPILED", 0.0)
    memory.ready(freed)
    assert held() - before < 30


def test_a_value_passes_through():
    assert int(memory.ready(jnp.add, 1, 2)) == 3

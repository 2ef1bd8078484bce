"""Samples in files that are mapped into memory: read in rows, and what was read is let go."""

import functools
import mmap
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

LET_GO = 2**23  # bytes of a memory map that may be in memory before its pages are given back
AROUND = 2**16  # bytes that the system maps in around a row


class MemoryMaps:
    """Inputs and targets with one number of rows, `count`."""

    def __init__(self, inputs: Any, targets: Any):
        self.arrays = (inputs, targets)
        self.mapped = 0  # bytes that may be in memory
        sizes = {a.shape[0] for a in jax.tree.leaves(self.arrays)}
        if len(sizes) != 1:
            raise ValueError(
                "ControlProblem: memory maps of inputs and targets must have one number of rows; "
                f"found {', '.join(map(str, sorted(sizes)))}."
            )
        self.count: int = sizes.pop()

    def take(self, rows: Any) -> tuple[Any, Any]:
        """Inputs and targets of some rows, as arrays."""
        batch = jax.tree.map(lambda a: np.array(a[rows]), self.arrays)
        self.mapped += len(jax.tree.leaves(batch)[0]) * max(AROUND, self._bytes())
        if self.mapped > LET_GO:
            self.mapped = 0
            for a in jax.tree.leaves(self.arrays):
                _let_go(a)
        return batch

    def shapes(self, count: int) -> tuple[Any, Any]:
        """Of `count` rows, as JAX takes them in."""
        one = lambda a: jax.ShapeDtypeStruct(
            (count, *a.shape[1:]), jax.dtypes.canonicalize_dtype(a.dtype)
        )
        return jax.tree.map(one, self.arrays)

    def in_order(self) -> Iterator[slice]:
        """All rows, as many at a time as may be in memory."""
        size = max(1, LET_GO // self._bytes())
        return (slice(s, min(s + size, self.count)) for s in range(0, self.count, size))

    def drawn(self, size: int, key: Any) -> Iterator[np.ndarray]:
        """Batches of `size` rows without end, drawn without replacement in each epoch."""
        order, steps = np.arange(self.count, dtype=np.int32), self.count // size
        while True:
            key, order = _epoch(key, order, steps)
            rows = np.asarray(order)
            yield from (rows[k * size : (k + 1) * size] for k in range(steps))

    def _bytes(self) -> int:
        leaves = jax.tree.leaves(self.arrays)
        return max(1, sum(a.dtype.itemsize * int(np.prod(a.shape[1:])) for a in leaves))


@functools.partial(jax.jit, static_argnums=2)
def _epoch(key: Any, order: Any, steps: int) -> tuple[Any, Any]:
    """The order of one epoch, and the key after its `steps`: the draws of `Minibatch`."""
    following, draw = jax.random.split(key)
    order = jax.random.permutation(draw, order)
    onward = lambda _, k: jax.random.split(k)[0]
    return jax.lax.fori_loop(1, steps, onward, following), order


def _let_go(array: Any) -> None:
    """Give back the pages of a map that is only read: they count as this process's memory."""
    if not isinstance(array, np.memmap):
        return
    base: Any = array
    while base is not None and not isinstance(base, mmap.mmap):
        base = getattr(base, "base", None)
    if base is not None and array.mode == "r" and hasattr(base, "madvise"):
        base.madvise(mmap.MADV_DONTNEED)

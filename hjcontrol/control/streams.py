"""Samples that come in batches, one after another: a loader, a generator function, files in memory maps.

    for inputs, targets in stream.epoch(): ...          every leaf (m, ...), m may differ

Only the first batch is looked at when a problem is stated; every later one must have its structure.
A memory map is read in rows drawn without replacement, as arrays are.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hjcontrol._ground.annotations import shown
from hjcontrol._ground.arguments import fits
from hjcontrol._ground.meshes import automatic
from hjcontrol._ground.trees import TreeLike
from hjcontrol.control.ensemble import arrays, as_arrays
from hjcontrol.control.memory_maps import MemoryMaps
from hjcontrol.control.references import positional


def is_stream(inputs: Any) -> bool:
    """Whether inputs are batches to come, or memory maps, rather than arrays."""
    if isinstance(inputs, (list, tuple, Mapping)) or hasattr(inputs, "shape"):
        return any(isinstance(a, np.memmap) for a in jax.tree.leaves(inputs))
    plain = isinstance(inputs, (str, bytes, type))
    return not plain and (callable(inputs) or hasattr(inputs, "__iter__"))


ONCE = (
    "ControlProblem: `inputs` can be gone through only once (a generator), and training goes through it "
    "again and again. Pass the generator function, or a loader."
)


NOT_HELD = (
    "ControlProblem: its samples come in batches and are not held, and this asks for all of them. A "
    "memory map is read in chunks: state the problem with `chunk=1024`, for J, its derivatives, Newton "
    "and full-batch Gradient. A loader is for hj.Gradient. For the rest take samples: "
    "problem.on(inputs, targets)."
)


def held(problem: Any) -> None:
    """Refuse a problem whose samples are not held in memory.

    **Raises:** `ValueError`.
    """
    if problem.stream is not None:
        raise ValueError(NOT_HELD)


def some(problem: Any) -> Any:
    """The problem itself, or that of the first batch, where its samples are not held."""
    return problem if problem.stream is None else problem.placed(*problem.stream.first)


class Stream:
    """Batches of one structure. `first`: the first one; `rows`: samples of a memory map, else `None`."""

    def __init__(self, inputs: Any, targets: Any, terminal: Callable[..., Any]):
        self.source = inputs
        self.maps: MemoryMaps | None = None
        self.rows: Any = None
        self.first: Any = None
        self.second: Any = None  # looked at as the first one is, then let go
        self.judge: Callable[[Any], None] | None = None  # refuses targets that the cost cannot take
        if is_stream(inputs) and _held(inputs):  # memory maps
            self.maps = MemoryMaps(inputs, targets)
            self.rows = self.maps.count
            self.first = self._read(np.arange(min(self.rows, 2)))
            return
        if targets is not None:
            raise ValueError(
                "ControlProblem: batches bring their targets with them, as pairs (inputs, targets); "
                "found `targets` beside a stream. Leave `targets` out."
            )
        self.labelled = (positional(terminal) or 1) > 1
        if self._started() is self._started():
            raise ValueError(ONCE)
        batches = self._opened()
        self.first = next(batches, None)
        if self.first is None:
            raise ValueError("ControlProblem: `inputs` is a stream without a batch. Give it some.")
        self.second = next(batches, None)
        if self.second is not None:
            self.check(self.second, 1)

    def __repr__(self) -> str:
        of = "rows" if self.maps is not None else "batches"
        return f"<{of} of {_shown(self.first)}>"

    @property
    def count(self) -> int:
        """How many samples there are: known of a memory map.

        **Raises:** `ValueError` for any other stream.
        """
        if self.rows is None:
            raise ValueError(NOT_HELD)
        return self.rows

    def read(self, rows: Any, count: int) -> tuple[Any, Any]:
        """`count` rows of a memory map inside a compiled program, which asks for them when it runs.
        `rows`: the first of them."""
        assert self.maps is not None
        shapes = self.maps.shapes(count)

        def fetch(first: Any) -> Any:
            batch = self._read(slice(int(first), int(first) + count))
            return jax.tree.map(lambda a, s: a.astype(s.dtype, copy=False), batch, shapes)

        return jax.pure_callback(fetch, shapes, rows, vmap_method="sequential")

    @property
    def dtype(self) -> Any:
        """Floating dtype of the inputs, as JAX takes them in; of whole numbers the default one."""
        dtypes = [a.dtype for a in jax.tree.leaves(self.first[0]) if a.dtype.kind in "fV"]
        return jax.dtypes.canonicalize_dtype(np.result_type(*(dtypes or [float])))

    def epoch(self) -> Iterator[tuple[Any, Any]]:
        """One pass over the batches as they come; of a memory map, its rows in order."""
        if self.maps is not None:
            yield from map(self._read, self.maps.in_order())
            return
        for k, batch in enumerate(self._opened()):
            self.check(batch, k)
            yield batch

    def drawn(self, size: Any, key: Any) -> Iterator[tuple[Any, Any]]:
        """Batches without end: `size` rows of a memory map, or the loader's own, epoch after epoch."""
        if self.maps is not None:
            yield from map(self._read, self.maps.drawn(size, key))
        while True:
            batches = 0
            for batch in self.epoch():
                batches += 1
                yield batch
            if not batches:
                raise ValueError(ONCE)

    def check(self, batch: tuple[Any, Any], number: int) -> None:
        """Refuse a batch that differs from the first one in anything but its number of samples."""
        if _structure(batch) != _structure(self.first):
            raise ValueError(
                f"ControlProblem: batches must have one structure; the first has "
                f"{_shown(self.first)}, batch {number} has {_shown(batch)}."
            )
        sizes = {len(a) for a in jax.tree.leaves(batch)}
        if len(sizes) != 1 or 0 in sizes:
            raise ValueError(
                f"ControlProblem: a batch has one number of samples, at least one; batch {number} has "
                f"{', '.join(map(str, sorted(sizes)))}. (Every array of a batch has samples in front: a "
                "stream gives batches, never one sample at a time.)"
            )
        self._judged(batch[1], f"batch {number}")

    def _judged(self, targets: Any, where: str) -> None:
        if self.judge is not None:
            try:
                self.judge(targets)
            except ValueError as error:
                raise ValueError(f"{error} (in {where} of the stream)") from None

    def _read(self, rows: Any) -> tuple[Any, Any]:
        assert self.maps is not None
        batch = self.maps.take(rows)
        self._judged(batch[1], "some rows")
        return batch

    def _started(self) -> Iterator[Any]:
        try:
            source: Any = self.source() if callable(self.source) else self.source
            return iter(source)
        except TypeError as error:
            raise ValueError(
                "ControlProblem: `inputs` as a function is called without arguments and gives the "
                f"batches of one epoch: {error}."
            ) from error

    def _opened(self) -> Iterator[tuple[Any, Any]]:
        return map(self._pair, self._started())

    def _pair(self, batch: Any) -> tuple[Any, Any]:
        pair = isinstance(batch, (tuple, list)) and len(batch) == 2
        if self.labelled and not pair:
            what = f"a {type(batch).__name__} of {_shown(batch)}"
            raise ValueError(
                "ControlProblem: `terminal` compares with a target, so every batch must be a pair "
                f"(inputs, targets); found {_shown(batch) if hasattr(batch, 'shape') else what}, without "
                "labels of its own. Give pairs by a generator function around the loader."
            )
        inputs, targets = automatic(tuple(map(arrays, batch if self.labelled else (batch, None))))
        for name, tree in (("inputs", inputs), ("targets", targets)):
            for a in jax.tree.leaves(tree):
                if np.ndim(a) == 0 or (a.dtype.kind not in "biufV"):
                    raise ValueError(
                        f"ControlProblem: the {name} of a batch must be arrays of numbers with the "
                        f"samples in front; found {shown(a)}."
                    )
        return inputs, targets


def came_in(
    inputs: Any, targets: Any, terminal: Any, beside: dict[str, Any]
) -> tuple[Stream | None, Any, Any]:
    """The stream that inputs are, if they are one, and inputs and targets as arrays: of a stream, those
    of its first batch. `beside`: what else a problem has for each sample.

    **Raises:** `ValueError` for what is neither; a stream without batches, without labels, that can be
    read only once, or with something beside it.
    """
    compares = (positional(terminal) or 1) > 1
    batches = compares and targets is None and _pairs(inputs)
    if not is_stream(inputs) and not batches:
        tree = lambda name, a: None if a is None else fits("ControlProblem", name, a, TreeLike)
        inputs, targets = tree("inputs", arrays(inputs)), tree("targets", arrays(targets))
        if compares and targets is None:
            raise ValueError(
                "ControlProblem: `terminal` compares with a target, and there are no `targets`. Pass "
                "them after the inputs: ControlProblem(model, inputs, targets, terminal=...)."
            )
        return None, as_arrays("inputs", inputs), as_arrays("targets", targets)
    none = lambda value: value is None or (isinstance(value, tuple) and not value)
    given = [name for name, value in beside.items() if not none(value)]
    if given:
        raise ValueError(
            f"ControlProblem: batches bring inputs and targets alone; found `{given[0]}` beside a "
            "stream. State the problem on arrays."
        )
    stream = Stream(inputs, targets, terminal)
    return stream, *jax.tree.map(jnp.asarray, stream.first)


def _held(inputs: Any) -> bool:
    """Whether inputs are arrays or trees of them, rather than something that gives batches."""
    return isinstance(inputs, (list, tuple, Mapping)) or hasattr(inputs, "shape")


def _pairs(inputs: Any) -> bool:
    """Whether inputs are a list of batches (inputs, targets)."""
    pair = lambda b: isinstance(b, (tuple, list)) and len(b) == 2 and all(map(hasshape, b))
    hasshape = lambda a: all(len(getattr(leaf, "shape", ())) for leaf in jax.tree.leaves(a))
    return isinstance(inputs, (list, tuple)) and bool(inputs) and all(map(pair, inputs))


def _structure(batch: Any) -> Any:
    leaves, tree = jax.tree.flatten(batch)
    return tree, [(a.shape[1:], a.dtype) for a in leaves]


def _shown(batch: Any) -> str:
    leaves = jax.tree.leaves(batch, is_leaf=lambda leaf: hasattr(leaf, "__array__"))
    words = [
        f"{a.dtype}{list(a.shape)}" if hasattr(a, "shape") else type(a).__name__ for a in leaves
    ]
    return ", ".join(words) or "nothing"

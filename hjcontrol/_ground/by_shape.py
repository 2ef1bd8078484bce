"""A tree of arrays without its numbers: what may be found out once for all trees of one shape.

    equal   to another of the same functions, shapes and dtypes, whatever the numbers
    tree    the same tree of `jax.ShapeDtypeStruct`s, for `equinox.filter_eval_shape`

A cache keyed by it holds no data.
"""

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx
import jax

from hjcontrol._ground.visible import visible


class ByShape:
    """A hashable tree of shapes. Leaves that are no arrays count by their type and value.

    **Raises:** `TypeError` when hashed, for a leaf or a static field that has no hash.
    """

    def __init__(self, tree: Any):
        leaves, self.structure = jax.tree.flatten(tree)
        self.leaves = tuple((a.shape, a.dtype) if eqx.is_array(a) else (type(a), a) for a in leaves)
        self.arrays = tuple(map(eqx.is_array, leaves))

    @property
    def tree(self) -> Any:
        """The tree, its arrays known by shape and dtype."""
        pairs = zip(self.leaves, self.arrays, strict=True)
        known = [jax.ShapeDtypeStruct(*a) if array else a[1] for a, array in pairs]
        return jax.tree.unflatten(self.structure, known)

    def __hash__(self) -> int:
        return hash((self.structure, self.leaves))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ByShape):
            return False
        mine, theirs = (self.leaves, self.arrays), (other.leaves, other.arrays)
        return mine == theirs and self.structure == other.structure


# What was seen of trees in the call that is running: the tree itself, its shapes, its key.
_seen: contextvars.ContextVar[dict[int, tuple[Any, ByShape, Any]] | None] = contextvars.ContextVar(
    "seen", default=None
)


@contextlib.contextmanager
def looked_at_once() -> Iterator[None]:
    """While this is open, a tree is looked at when it is first asked about, and not again: for one call
    of a public function, during which nothing that the user's functions read changes."""
    token = _seen.set({})
    try:
        yield
    finally:
        _seen.reset(token)


def _looked_at(tree: Any) -> tuple[ByShape, Any]:
    """A tree's shapes, and the key of what its functions see."""
    met = _seen.get()
    if met is not None and id(tree) in met:
        return met[id(tree)][1:]
    shape, seen = ByShape(tree), visible(eqx.filter(tree, eqx.is_array, inverse=True))
    if met is not None:
        met[id(tree)] = (tree, shape, seen)  # held, so that no other tree takes its address
    return shape, seen


def once_per_shape(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """`function` of a tree of shapes, called with a tree of arrays and run once for all of one shape, as
    long as nothing changes that the functions in the tree can see."""
    cached = functools.lru_cache(maxsize=64)(lambda shape, seen: function(shape.tree))

    @functools.wraps(function)
    def found(tree: Any) -> Any:
        shape, seen = _looked_at(tree)
        if seen is None:
            return function(shape.tree)
        try:
            hash(shape)
        except TypeError:  # a static field without a hash
            return function(shape.tree)
        return cached(shape, seen)

    return found

"""Shapes in place of arrays: what is to be known of a value before it is computed."""

from collections.abc import Callable
from typing import Any

import jax


def of_one(tree: Any) -> Any:
    """One entry of arrays with an axis in front: a sample, a stage."""
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), tree)


def of_drawn(init: Callable[[Any], Any]) -> Any:
    """What `init(key)` gives."""
    return jax.eval_shape(init, jax.eval_shape(lambda: jax.random.key(0)))

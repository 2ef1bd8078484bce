"""Weights and states as columns: where each part of a flat vector stands, and the way back."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def slices(sizes: dict[str, int]) -> dict[str, slice]:
    """The place of each named part in a vector of all of them."""
    ends = np.cumsum([0, *sizes.values()])
    return {name: slice(int(a), int(b)) for name, a, b in zip(sizes, ends, ends[1:], strict=False)}


def flat(tree: Any) -> np.ndarray:
    """The leaves one after the other."""
    return np.concatenate(
        [np.zeros(0), *[np.asarray(a, float).ravel() for a in jax.tree.leaves(tree)]]
    )


def unflat(values: np.ndarray, like: Any) -> Any:
    """The tree shaped like `like` that `flat` gives `values`."""
    leaves, structure = jax.tree.flatten(like)
    ends = np.cumsum([leaf.size for leaf in leaves])
    pieces = np.split(values, ends[:-1]) if leaves else []
    return jax.tree.unflatten(
        structure,
        [
            jnp.asarray(p.reshape(leaf.shape), leaf.dtype)
            for p, leaf in zip(pieces, leaves, strict=True)
        ],
    )


def rows_as(rows: np.ndarray, like: Any) -> Any:
    """Rows of raveled samples, `(n, entries)`, as one tree with the samples in front of every leaf."""
    leaves, structure = jax.tree.flatten(like)
    ends = np.cumsum([leaf.size for leaf in leaves])
    parts = zip(np.split(rows, ends[:-1], axis=1), leaves, strict=True)
    return jax.tree.unflatten(
        structure, [jnp.asarray(p.reshape(len(rows), *a.shape), a.dtype) for p, a in parts]
    )

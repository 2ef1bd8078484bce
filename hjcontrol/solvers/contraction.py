r"""Curvature in the weights of `a = W x + b`, from the curvature in `a`, sample by sample.

    B_(a i)(b j) = sum_n M^n_ab f^n_i f^n_j               f = (x, 1)

M   Hessian of a sample's cost in `a`, symmetric          B   rows `(a, i)`, columns `(b, j)`

One matrix product of the upper triangles of `M` and `f f'`, a quarter of the whole; samples are taken
so many at a time that no more than `ENTRIES` products of features live at once (or `FEWEST` samples').
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

ENTRIES = 8_000_000
FEWEST = 64


def contraction(M: Float[Array, "n e e"], features: Float[Array, "n f"]) -> Float[Array, "m m"]:
    """`B`, of `m = e f` weights."""
    a, b = np.triu_indices(M.shape[1])
    i, j = np.triu_indices(features.shape[1])
    n, size = M.shape[0], M.shape[1] * features.shape[1]

    def share(M: Array, f: Array) -> Array:
        return M[:, a, b].T @ (f[:, i] * f[:, j])

    count = min(n, max(FEWEST, ENTRIES // len(i)))
    many = n // count * count
    parts = tuple(x[:many].reshape(-1, count, *x.shape[1:]) for x in (M, features))
    if many == count:
        packed = share(parts[0][0], parts[1][0])
    else:
        zero = jnp.zeros((len(a), len(i)), M.dtype)
        packed, _ = jax.lax.scan(lambda c, part: (c + share(*part), None), zero, parts)
    if many < n:
        packed = packed + share(M[many:], features[many:])
    full = packed[_places(M.shape[1])[:, None, :, None], _places(features.shape[1])[None, :, None]]
    return full.reshape(size, size)


def _places(size: int) -> np.ndarray:
    """Where entry `(a, b)` of a symmetric matrix stands in its packed upper triangle."""
    place = np.zeros((size, size), int)
    rows, columns = np.triu_indices(size)
    place[rows, columns] = place[columns, rows] = np.arange(len(rows))
    return place

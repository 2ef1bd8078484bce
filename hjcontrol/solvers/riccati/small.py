"""Products and solutions of matrices as small as a state, written out entry by entry.

    product(a, b) = sum_k a_.k b_k.        solve(a, b) = a^{-1} b        positive_solve: a = L L'

A batch of them (`jax.vmap`) is then one loop over the batch, where a library is called once a matrix:
several times faster on a CPU up to the size `WRITTEN`. Larger matrices go to the library. The barriers
keep the compiler from computing a product anew for every entry of the next one.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

WRITTEN = 4


def product(a: Float[Array, "i k"], b: Float[Array, "k j"]) -> Float[Array, "i j"]:
    """`a b`."""
    if max(a.shape + b.shape) > WRITTEN:
        return a @ b
    terms = [a[:, k, None] * b[None, k] for k in range(len(b))]
    return jax.lax.optimization_barrier(sum(terms[1:], terms[0]))


def solve(a: Float[Array, "n n"], b: Float[Array, "n j"]) -> Float[Array, "n j"]:
    """`a^{-1} b`, by elimination with row pivots."""
    n = len(a)
    if n > WRITTEN:
        return jnp.linalg.solve(a, b)
    left, done = jnp.concatenate([a, b], axis=1), []
    for _ in range(n):
        pivot, rest = _pivoted(left)
        done.append(pivot[1:] / pivot[0])
        left = rest[:, 1:] - rest[:, :1] * done[-1][None]
    found: list[Array] = []
    for row in reversed(done):
        known = len(found)
        own = row[known:]
        for j, x in enumerate(found):
            own = own - row[j] * x
        found.insert(0, own)
    return jax.lax.optimization_barrier(jnp.stack(found))


def _pivoted(rows: Float[Array, "r c"]) -> tuple[Float[Array, " c"], Float[Array, "s c"]]:
    """The row with the largest first entry, and the others, the first one in its place."""
    at, best = jnp.zeros((), int), jnp.abs(rows[0, 0])
    for r in range(1, len(rows)):
        size = jnp.abs(rows[r, 0])
        at, best = jnp.where(size > best, r, at), jnp.maximum(size, best)
    chosen = (jnp.arange(len(rows)) == at)[:, None]
    pivot = jnp.sum(jnp.where(chosen, rows, 0), axis=0)
    return pivot, jnp.where(chosen, rows[:1], rows)[1:]


def positive_solve(a: Float[Array, "n n"], b: Float[Array, "n j"]) -> Float[Array, "n j"]:
    """`a^{-1} b` of a positive definite matrix; not finite where it is none."""
    n = len(a)
    if n > WRITTEN:
        return jax.scipy.linalg.cho_solve((jnp.linalg.cholesky(a), True), b)
    columns, left = [], a
    for k in range(n):  # of L; `left` is the part still to be factored
        columns.append(left[:, 0] / jnp.sqrt(left[0, 0]))
        left = left[1:, 1:] - columns[k][1:, None] * columns[k][None, 1:]
    found: list[Array] = []
    for k in range(n):
        own = b[k]
        for j in range(k):
            own = own - columns[j][k - j] * found[j]
        found.append(own / columns[k][0])
    for k in reversed(range(n)):
        own = found[k]
        for j in range(k + 1, n):
            own = own - columns[k][j - k] * found[j]
        found[k] = own / columns[k][0]
    return jax.lax.optimization_barrier(jnp.stack(found))

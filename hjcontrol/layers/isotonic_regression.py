r"""Isotonic regression, exactly, in JAX: jit, vmap, grad.

    argmin over v_1 >= v_2 >= ... >= v_n of sum_i w_i (v_i - y_i)^2/2,   w = 1 unless given

Pool adjacent violators: blocks are merged while their means increase; v is constant on each block, at
its mean, and so is its derivative. At most 2n steps, none of them differentiated.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, Real

from hjcontrol._ground.arguments import admits
from hjcontrol.deformation.soft_maximum import checked


def blocks(y: Float[Array, " n"], w: Float[Array, " n"] | None = None) -> Int[Array, " n"]:
    """The number of the block that each entry falls into, from 0, not decreasing."""
    n = y.shape[0]
    y = jax.lax.stop_gradient(y)
    weights = jnp.ones_like(y) if w is None else jax.lax.stop_gradient(w)
    mean_at = lambda state, k: state[0][k] / state[1][k]

    def step(state: tuple[Array, ...]) -> tuple[Array, ...]:
        sums, counts, blocks, read, lengths = state
        last, before = jnp.maximum(blocks - 1, 0), jnp.maximum(blocks - 2, 0)
        merge = (blocks >= 2) & (mean_at(state, before) < mean_at(state, last))
        new, at = jnp.minimum(read, n - 1), jnp.minimum(blocks, n - 1)
        join = lambda a: a.at[before].add(a[last])
        merged = join(sums), join(counts), join(lengths)
        mass = weights[new]
        pushed = sums.at[at].set(y[new] * mass), counts.at[at].set(mass), lengths.at[at].set(1)
        sums, counts, lengths = (
            jnp.where(merge, a, b) for a, b in zip(merged, pushed, strict=True)
        )
        return sums, counts, jnp.where(merge, blocks - 1, blocks + 1), read + ~merge, lengths

    def unfinished(state: tuple[Array, ...]) -> Array:
        _, _, blocks, read, _ = state
        last, before = jnp.maximum(blocks - 1, 0), jnp.maximum(blocks - 2, 0)
        rising = (blocks >= 2) & (mean_at(state, before) < mean_at(state, last))
        return (read < n) | rising

    zero = jnp.zeros((), int)
    start = (jnp.zeros_like(y), jnp.ones_like(y), zero, zero, jnp.ones(n, int))
    _, _, many, _, lengths = jax.lax.while_loop(unfinished, step, start)
    ends = jnp.cumsum(jnp.where(jnp.arange(n) < many, lengths, 0))
    return jnp.searchsorted(ends[:], jnp.arange(n), side="right")


def block_means(
    y: Float[Array, " n"], ids: Int[Array, " n"], w: Float[Array, " n"] | None = None
) -> Float[Array, " n"]:
    """Each entry replaced by the weighted mean of its block; linear in `y`."""
    n = y.shape[0]
    w = jnp.ones_like(y) if w is None else w
    counts = jax.ops.segment_sum(w, ids, n)
    first = jax.ops.segment_min(jnp.where(jnp.arange(n) >= 0, jnp.arange(n), n), ids, n)
    base = y[jnp.clip(first, 0, n - 1)][
        ids
    ]  # measured from the block's first: a singleton is exact
    mass = jnp.where(counts > 0, counts, 1.0)
    return base + (jax.ops.segment_sum(w * (y - base), ids, n) / mass)[ids]


@admits(weights="> 0")
def isotonic(
    y: Real[ArrayLike, " n"], weights: Real[ArrayLike, " n"] | None = None
) -> Float[Array, " n"]:
    """The nearest non-increasing vector, in the norm weighted by `weights`.

    **Raises:** `ValueError` unless `y` is one non-empty finite axis, and `weights` positive, one each.
    """
    y = checked("isotonic", y, axes=1, mask=False)
    if weights is None:
        return block_means(y, blocks(y))
    w = checked("isotonic", weights, axes=1, mask=False).astype(y.dtype)
    if w.shape != y.shape:
        raise ValueError(f"isotonic: one weight each is needed, {y.shape}; found {w.shape}.")
    return block_means(y, blocks(y, w), w)

r"""A mean over samples, a chunk at a time: memory is that of one chunk's states.

    (1/n) sum_i f_i = sum_c (n_c / n) [ (1/n_c) sum_{i in c} f_i ]        c = chunks of `problem.chunk`

Of a memory map a chunk is read when its turn comes. One `lax.scan` over the chunks of equal size, and
what is left of the samples after it. A cost of the
weights alone is in every chunk's mean; the shares sum to one, so it is counted once.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from hjcontrol._ground.arguments import fits
from hjcontrol.control.ensemble import picked


def mean_over_chunks(problem: Any, f: Callable[[Any], PyTree[Array]]) -> PyTree[Array]:
    """`f(problem)`, where f is a mean over the samples, accumulated over the problem's chunks."""
    if not problem.chunked:
        return f(problem)
    n, size = problem.num_samples, problem.chunk
    whole, left = divmod(n, size)

    def added(total: PyTree[Array], start: Any, length: int) -> PyTree[Array]:
        part = f(chunk_of(problem, start, length))
        return jax.tree.map(lambda t, v: t + v * jnp.asarray(length / n, v.dtype), total, part)

    shapes = jax.eval_shape(lambda: f(chunk_of(problem, 0, size)))
    total = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    total, _ = jax.lax.scan(
        lambda t, start: (added(t, start, size), None), total, size * jnp.arange(whole)
    )
    return added(total, whole * size, left) if left else total


def chunk_of(problem: Any, start: Any, length: int) -> Any:
    """The problem on `length` samples from `start` on, which may be traced."""
    if problem.stream is not None:
        return problem.placed(*problem.stream.read(start, length))
    return picked(problem, lambda a: jax.lax.dynamic_slice_in_dim(a, start, length))


def checked_chunk(who: str, problem: Any, chunk: int | None) -> int | None:
    """`chunk`, if it is a number of samples that J may be summed up in.

    **Raises:** `ValueError` for less than one, or with constraints on the states.
    """
    if chunk is None:
        return None
    chunk = fits(who, "chunk", chunk, int, ">= 1")
    if problem.stream is not None and problem.stream.rows is None:
        raise ValueError(
            f"{who}: a loader makes its own batches, each of which is computed as it comes; found "
            f"`chunk` = {chunk}. Leave it out, and let the loader make smaller batches."
        )
    if problem.path or problem.terminal_constraint is not None:
        raise ValueError(
            f"{who}: `chunk` is for problems without constraints on the states, whose multipliers are "
            f"kept for all samples; found `chunk` = {chunk}. Leave it out."
        )
    return chunk

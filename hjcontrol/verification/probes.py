r"""Random directions, cheap to draw.

    v_j = s_j \prod_axes m_axis(j)          s_j = +-1,   m uniform in [1/2, 3/2)

Signs are unpacked from random words, 32 to a word, so drawing them costs less than using them. The
magnitudes, one vector an axis, keep an error with a few equal entries from cancelling exactly, which
bare signs allow with probability 1/2.
"""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, DTypeLike, Key, PyTree


def directions(
    key: Key[Array, ""], like: PyTree[Array], count: int, ensemble: bool = False
) -> PyTree[Array]:
    """`count` directions shaped like `like`, every leaf `(count, *shape)`.

    With `ensemble` the first axis of each leaf is the samples': their signs differ, their magnitudes
    are shared.
    """
    leaves, structure = jax.tree.flatten(like)
    if not leaves:
        return like
    first = int(ensemble)
    words = [-(-int(np.prod(a.shape)) // 32) for a in leaves]
    lengths = [d for a in leaves for d in a.shape[first:]]
    # One draw for the whole tree, of a generator that XLA has built in: compiling threefry takes
    # longer than everything else that is done here.
    drawn = jax.random.bits(built_in(key), (count, sum(words) + sum(lengths)), jnp.uint32)
    bits = _blocks(drawn[:, : sum(words)], words)
    sizes = _blocks(0.5 + drawn[:, sum(words) :] * 2.0**-32, lengths)
    found = []
    for a, b in zip(leaves, bits, strict=True):
        v = _signs(b, a.shape, a.dtype)
        for axis in range(first, a.ndim):
            along = [count, *(d if i == axis else 1 for i, d in enumerate(a.shape))]
            v = v * next(sizes).astype(a.dtype).reshape(along)
        found.append(v)
    return jax.tree.unflatten(structure, found)


def built_in(key: Key[Array, ""]) -> Key[Array, ""]:
    """The same key for XLA's own generator."""
    data = jax.random.key_data(key).ravel()
    return jax.random.wrap_key_data(jnp.concatenate([data, ~data])[:4], impl="rbg")


def _blocks(a: Array, widths: list[int]) -> Iterator[Array]:
    """Neighbouring column blocks of the given widths."""
    ends = np.cumsum(widths)
    return (a[:, end - width : end] for end, width in zip(ends, widths, strict=True))


def _signs(words: Array, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    """Plus or minus ones of shape `(count, *shape)`, one a bit."""
    count, size = words.shape[0], int(np.prod(shape))
    bits = (words[:, :, None] >> jnp.arange(32, dtype=jnp.uint32)[None, None, :]) & 1
    return 2 * bits.reshape(count, -1)[:, :size].reshape(count, *shape).astype(dtype) - 1

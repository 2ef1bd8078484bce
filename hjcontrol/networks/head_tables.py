r"""What each head of a network does with given tokens: one number a head, row by row averaged.

    share = H(pi)/log k            1: looks everywhere alike (a wave); 0: at one token (a particle)
    value = lse(z, eps)            the row's soft maximum; minus the energy
    top   = z_(1) - z_(2)          how far ahead the best key is of the second best
    eps                            as the head is run, sqrt(d_head)
    warmth = eps / sd_j(z_j)       what the temperature means for this head: only z/eps matters

z   a row's logits over the k keys that it may look at      pi = softmax(z/eps)
Rows that see one key alone have no share, top or warmth and are left out of those means.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from hjcontrol.layers import Attended


class HeadTable(NamedTuple):
    """One number a head, shape `(*layers, heads)`, `eps` included; nats, and the logits' own units."""

    share: Float[Array, "*heads"]
    value: Float[Array, "*heads"]
    top: Float[Array, "*heads"]
    eps: Float[Array, "*heads"]
    warmth: Float[Array, "*heads"]


def head_table(
    attended: Attended, seen: Bool[ArrayLike, "sentences tokens"], eps: Float[ArrayLike, ""]
) -> HeadTable:
    """Means over the rows of all sentences.

    **Arguments:**

    - `attended`: of several sentences, leaves `(sentences, *layers, heads, tokens, ...)`, as
      `jax.vmap(encoder.heads)` gives them.
    - `seen`: the tokens that are there; the others are neither rows nor keys.
    - `eps`: the heads' temperature, > 0.

    The logits are had back from the weights as `eps log pi`, up to the row's constant, which no figure
    here but `value` depends on. A key whose weight underflows makes `top` infinite or `warmth` 0: true to
    the precision, which in 64 bits reaches logits 700 eps apart.
    """
    there = jnp.asarray(seen)
    count = jnp.sum(there, axis=-1)
    n, tokens = there.shape
    between = attended.weights.ndim - 3
    row = there.reshape(n, *(1,) * between, tokens)
    key = there.reshape(n, *(1,) * (between + 1), tokens)
    k = count.reshape(n, *(1,) * (between + 1)).astype(attended.weights.dtype)
    several = jnp.logical_and(row, k > 1)

    def mean(a: Array, rows: Array) -> Array:
        rows = jnp.broadcast_to(rows, a.shape)
        axes = (0, a.ndim - 1)
        return jnp.sum(jnp.where(rows, a, 0.0), axes) / jnp.sum(rows, axes)

    log_pi = jnp.where(key, jnp.log(jnp.where(key, attended.weights, 1.0)), 0.0)
    centred = jnp.where(key, log_pi - jnp.sum(log_pi, -1, keepdims=True) / k[..., None], 0.0)
    spread = jnp.sqrt(jnp.sum(centred**2, -1) / k)
    best = jnp.sort(jnp.where(key, log_pi, -jnp.inf), axis=-1)
    value = mean(-attended.energy, row)
    return HeadTable(
        share=mean(attended.entropy / jnp.log(jnp.maximum(k, 2)), several),
        value=value,
        top=eps * mean(best[..., -1] - best[..., -2], several),
        eps=jnp.full_like(value, eps),
        warmth=mean(1 / spread, several),
    )

r"""Self-attention of several heads, as a stage: every token becomes a Gibbs mean of values.

    q, k, v = W x + b, split into heads      z_ij = q_i.k_j  or  -|q_i - k_j|^2/2
    pi_i = softmax(z_i / eps)                out = W_o [ sum_j pi_ij v_j ]_heads + b_o

x    one sample's tokens, (tokens, width)       eps   temperature, an array leaf; sqrt(d_head) by default
mask True where a token may be looked at: (tokens,) for all queries alike, or (tokens, tokens)

Each head's weights are the gradient of a log-sum-exp in its logits, so every row has an energy, an
entropy and a Fenchel-Young gap: see `SelfAttention.heads`. A query that may look at nothing would get
a zero mean; a mask that does so is refused where a problem is stated.
"""

import math
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Key

from hjcontrol._ground.arguments import admits
from hjcontrol._ground.concrete import known
from hjcontrol.deformation import gibbs
from hjcontrol.layers import Attended, Attention
from hjcontrol.networks.dense import AffineWeights, affine
from hjcontrol.networks.stage import AbstractStage, Reads

Mask = Bool[ArrayLike, "*queries tokens"] | None


class AttentionWeights(NamedTuple):
    """Affine maps to queries, keys, values (heads side by side), and from the heads' outputs."""

    query: AffineWeights
    key: AffineWeights
    value: AffineWeights
    output: AffineWeights


@admits(width=">= 1", num_heads=">= 1", eps=">= 0")
class SelfAttention(AbstractStage):
    """Tokens look at tokens: no residual path, no normalisation; see `Block` for those."""

    width: int = eqx.field(static=True)
    num_heads: int = eqx.field(static=True)
    form: Literal["dot", "distance"] = eqx.field(static=True)
    eps: Float[Array, ""]

    def __init__(
        self,
        width: int,
        num_heads: int = 1,
        *,
        eps: ArrayLike | None = None,
        form: Literal["dot", "distance"] = "dot",
    ):
        """**Arguments:** `eps`: temperature, `sqrt(width / num_heads)` by default; 0 is legal.

        **Raises:** `ValueError` for heads that do not divide the width, or an unknown form.
        """
        if width < 1 or num_heads < 1 or width % num_heads:
            raise ValueError(
                "SelfAttention: `num_heads` must divide `width`; found width "
                f"{width}, num_heads {num_heads}."
            )
        self.width, self.num_heads, self.form = int(width), int(num_heads), form
        head = Attention(math.sqrt(width // num_heads) if eps is None else eps, form)
        self.eps = head.eps

    @property
    def reads(self) -> Reads:
        return "context"

    def check(self, given: Mask) -> None:
        check_mask(given)

    def init(self, key: Key[Array, ""]) -> AttentionWeights:
        keys = jax.random.split(key, 4)
        return AttentionWeights(*(affine(k, self.width, self.width) for k in keys))

    def step(
        self, x: Float[Array, "tokens width"], theta: AttentionWeights, mask: Mask = None
    ) -> Float[Array, "tokens width"]:
        head = Attention(self.eps.astype(x.dtype), self.form)
        seen = pairwise(mask, x.shape[0])

        def mean(q, k, v):
            return gibbs(head.logits(q, k, seen), head.eps) @ v

        means = jax.vmap(mean)(*self._split(x, theta))
        joined = jnp.moveaxis(means, 0, 1).reshape(x.shape[0], self.width)
        return tokenwise(theta.output, joined)

    def heads(
        self, x: Float[Array, "tokens width"], theta: AttentionWeights, mask: Mask = None
    ) -> Attended:
        """Every head's output, weights, energy, entropy and gap: leaves `(heads, tokens, ...)`."""
        head = Attention(self.eps.astype(x.dtype), self.form)
        seen = pairwise(mask, x.shape[0])
        return jax.vmap(lambda q, k, v: head(q, k, v, seen))(*self._split(x, theta))

    def _split(self, x: Array, theta: AttentionWeights) -> tuple[Array, Array, Array]:
        """Queries, keys, values: `(heads, tokens, d_head)` each."""
        shape = (x.shape[0], self.num_heads, self.width // self.num_heads)
        each = (tokenwise(a, x).reshape(shape) for a in (theta.query, theta.key, theta.value))
        return tuple(jnp.moveaxis(a, 1, 0) for a in each)


def tokenwise(theta: AffineWeights, x: Float[Array, "tokens in"]) -> Float[Array, "tokens out"]:
    """`W x_t + b` of every token."""
    return x @ theta.W.T + theta.b[None, :]


def pairwise(mask: Any, tokens: int) -> Bool[Array, "tokens tokens"] | None:
    """The mask as (query, key); a mask of keys alone holds for every query."""
    if mask is None:
        return None
    mask = jnp.asarray(mask)
    if mask.dtype != bool or mask.shape not in ((tokens,), (tokens, tokens)):
        raise ValueError(
            f"SelfAttention: a boolean mask of shape ({tokens},) or ({tokens}, {tokens}) is needed, "
            f"True where a token may be looked at; found {mask.dtype} of shape {mask.shape}."
        )
    return jnp.broadcast_to(mask if mask.ndim == 2 else mask[None, :], (tokens, tokens))


def check_mask(mask: Any) -> None:
    """Refuse a mask, known by value, in which a query may look at nothing.

    The samples may stand in front: `(tokens,)` or `(samples, tokens)` of keys, or the same with queries.
    **Raises:** `ValueError`, naming the first such row.
    """
    values = None if mask is None else known(mask)
    if values is None or values.dtype != bool or values.ndim == 0:
        return
    blind = np.argwhere(~values.any(axis=-1))
    if len(blind):
        where = ", ".join(str(i) for i in blind[0])
        raise ValueError(
            f"SelfAttention: the mask hides every key at {f'[{where}]' if where else 'once'} "
            f"({len(blind)} such rows), and a mean of nothing is not defined. Let a query see itself "
            "(a causal mask with its diagonal), or leave that sample out."
        )

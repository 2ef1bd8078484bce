r"""Transformer blocks, as stages: one block is one step of depth on a sequence of tokens.

    pre-norm     x <- x + A(N(x)),     x <- x + F(N(x))
    post-norm    x <- N(x + A(x)),     x <- N(x + F(x))
    N(x) = scale (x - mean x)/sqrt(var x + delta) + shift          each token on its own
    F(x) = W_2 units(W_1 x + b_1) + b_2

A   attention of several heads: Gibbs means of values            units   GELU, softplus, log-sum-exp, ...

Exact: every row of attention weights is the gradient of a log-sum-exp; a log-sum-exp unit is a viscous
Hamilton-Jacobi solution of its input. Structural only: the stack of them, its residual paths and norms.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from hjcontrol._ground.arguments import admits
from hjcontrol.layers import Attended
from hjcontrol.networks.attention import (
    AttentionWeights,
    Mask,
    SelfAttention,
    affine,
    check_mask,
    tokenwise,
)
from hjcontrol.networks.dense import AffineWeights
from hjcontrol.networks.stage import AbstractStage, Reads
from hjcontrol.networks.units import AbstractUnits, Pointwise, gelu


class NormWeights(NamedTuple):
    """Learnt scale and shift of a layer norm."""

    scale: Float[Array, "*stages width"]
    shift: Float[Array, "*stages width"]


@admits(width=">= 1", delta="> 0")
class LayerNorm(AbstractStage):
    """Every token to mean 0 and variance 1 over its width, then scaled and shifted.

    `delta`, an array leaf, is what others call the norm's epsilon.
    """

    width: int = eqx.field(static=True)
    delta: Float[Array, ""] = eqx.field(converter=jnp.asarray, default=1e-5)

    def init(self, key: Key[Array, ""]) -> NormWeights:
        del key
        return NormWeights(jnp.ones(self.width), jnp.zeros(self.width))

    def step(self, x: Float[Array, "*tokens width"], theta: NormWeights):
        centred = x - jnp.mean(x, axis=-1, keepdims=True)
        variance = jnp.mean(centred**2, axis=-1, keepdims=True)
        unit = centred / jnp.sqrt(variance + self.delta.astype(x.dtype))
        along = (1,) * (x.ndim - 1) + (self.width,)
        return unit * theta.scale.reshape(along) + theta.shift.reshape(along)


class FeedForwardWeights(NamedTuple):
    """Affine maps into and out of the hidden units."""

    inward: AffineWeights
    outward: AffineWeights


@admits(width=">= 1", hidden=">= 1")
class FeedForward(AbstractStage):
    """`W_2 units(W_1 x + b_1) + b_2` of every token."""

    width: int = eqx.field(static=True)
    hidden: int = eqx.field(static=True)
    units: AbstractUnits

    def __init__(
        self, width: int, hidden: int, units: AbstractUnits | Callable[[Array], Array] = gelu
    ):
        """`hidden`: number of units; `units`: `SoftplusUnits(eps)`, `LSEUnits(atoms, eps)`, or an
        activation."""
        self.width, self.hidden = width, hidden
        self.units = units if isinstance(units, AbstractUnits) else Pointwise(units)

    def init(self, key: Key[Array, ""]) -> FeedForwardWeights:
        first, second = jax.random.split(key)
        inward = affine(first, self.width, self.hidden * self.units.atoms)
        return FeedForwardWeights(inward, affine(second, self.hidden, self.width))

    def step(
        self, x: Float[Array, "tokens width"], theta: FeedForwardWeights
    ) -> Float[Array, "tokens width"]:
        return tokenwise(theta.outward, jax.vmap(self.units)(tokenwise(theta.inward, x)))


class BlockWeights(NamedTuple):
    """Weights of a block: attention, feed-forward, and the norm that goes with each."""

    attention: AttentionWeights
    attention_norm: NormWeights
    feed_forward: FeedForwardWeights
    feed_forward_norm: NormWeights


@admits()
class Block(AbstractStage):
    """Attention and feed-forward, each with its residual path and its norm, before or after."""

    attention: SelfAttention
    feed_forward: FeedForward
    norm: LayerNorm
    order: Literal["pre", "post"] = eqx.field(static=True, default="pre")

    def __check_init__(self):
        if self.order not in ("pre", "post"):
            raise ValueError(f"Block: `order` must be 'pre' or 'post'; found {self.order!r}.")
        widths = (self.attention.width, self.feed_forward.width, self.norm.width)
        if len(set(widths)) > 1:
            raise ValueError(
                f"Block: attention, feed-forward and norm need one width; found {widths}."
            )

    @property
    def reads(self) -> Reads:
        return "context"

    def check(self, given: Mask) -> None:
        check_mask(given)

    def init(self, key: Key[Array, ""]) -> BlockWeights:
        a, b = jax.random.split(key)
        norm = self.norm.init(key)
        return BlockWeights(self.attention.init(a), norm, self.feed_forward.init(b), norm)

    def step(
        self, x: Float[Array, "tokens width"], theta: BlockWeights, mask: Mask = None
    ) -> Float[Array, "tokens width"]:
        attend = lambda u: self.attention.step(u, theta.attention, mask)
        feed = lambda u: self.feed_forward.step(u, theta.feed_forward)
        first = lambda u: self.norm.step(u, theta.attention_norm)
        second = lambda u: self.norm.step(u, theta.feed_forward_norm)
        if self.order == "pre":
            x = x + attend(first(x))
            return x + feed(second(x))
        x = first(x + attend(x))
        return second(x + feed(x))

    def heads(
        self, x: Float[Array, "tokens width"], theta: BlockWeights, mask: Mask = None
    ) -> Attended:
        """What every head of this block sees, at the state that enters it."""
        seen = self.norm.step(x, theta.attention_norm) if self.order == "pre" else x
        return self.attention.heads(seen, theta.attention, mask)


class EmbedWeights(NamedTuple):
    """The affine map of a token's features, and what is added for its place."""

    features: AffineWeights
    places: Float[Array, "*stages tokens width"]


@admits(tokens=">= 1", in_size=">= 1", width=">= 1")
class Embed(AbstractStage):
    """Features of every token to the state's width, plus a learnt vector for the token's place."""

    tokens: int = eqx.field(static=True)
    in_size: int = eqx.field(static=True)
    width: int = eqx.field(static=True)

    def init(self, key: Key[Array, ""]) -> EmbedWeights:
        a, b = jax.random.split(key)
        places = 0.1 * jax.random.normal(b, (self.tokens, self.width))
        return EmbedWeights(affine(a, self.in_size, self.width), places)

    def step(
        self, x: Float[Array, "tokens in"], theta: EmbedWeights
    ) -> Float[Array, "tokens width"]:
        return tokenwise(theta.features, x) + theta.places


class MeanPool(AbstractStage):
    """The mean of the tokens that the mask shows; no weights."""

    @property
    def reads(self) -> Reads:
        return "context"

    def check(self, given: Mask) -> None:
        check_mask(given)

    def init(self, key: Key[Array, ""]) -> tuple[()]:
        del key
        return ()

    def step(
        self, x: Float[Array, "tokens width"], theta: tuple[()], mask: Mask = None
    ) -> Float[Array, " width"]:
        del theta
        if mask is None:
            return jnp.mean(x, axis=0)
        seen = jnp.asarray(mask)
        seen = (jnp.any(seen, axis=0) if seen.ndim == 2 else seen).astype(x.dtype)
        return jnp.sum(x * seen[:, None], axis=0) / jnp.sum(seen)

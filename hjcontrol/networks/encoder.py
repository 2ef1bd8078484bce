r"""A sentence encoder of BERT's kind, from our own stages and somebody's tensors.

    x_0 = N(words[id] + places[t] + kind)              the front: not a stage, its tokens are given
    x_{k+1} = N(y + F(y)),  y = N(x_k + A(x_k))        post-norm blocks, each is one step of depth
    e = m / |m|,            m = mean of x_K over the tokens that are there

A   Gibbs means by heads, eps = sqrt(d_head)       F   W_2 gelu(W_1 . + b_1) + b_2, the exact GELU
Which tokens are there is a mask that every stage reads: the `context` of a `ControlProblem`.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, DTypeLike, Float, Int

from hjcontrol._ground.concrete import known_to_fail
from hjcontrol._ground.shapes import of_drawn
from hjcontrol._ground.shown import Shown
from hjcontrol.layers import Attended
from hjcontrol.networks.attention import AttentionWeights, SelfAttention
from hjcontrol.networks.chain import Chain, Weights
from hjcontrol.networks.dense import AffineWeights
from hjcontrol.networks.stage import AbstractStage, as_stage
from hjcontrol.networks.transformer import (
    Block,
    BlockWeights,
    FeedForward,
    FeedForwardWeights,
    LayerNorm,
    MeanPool,
    NormWeights,
)


def unit_length(x: Float[Array, " width"]) -> Float[Array, " width"]:
    """`x / |x|`, a stage without weights."""
    return x / jnp.sqrt(jnp.sum(x**2))


class Front(NamedTuple):
    """What turns a token's number and place into a state."""

    words: Float[Array, "vocabulary width"]
    places: Float[Array, "places width"]
    kind: Float[Array, " width"]
    norm: NormWeights


class SentenceEncoder(Shown):
    """Front, equal blocks, mean, unit length. `weights` are the chain's, the blocks' stacked."""

    front: Front
    block: Block
    num_blocks: int = eqx.field(static=True)
    weights: Weights

    @property
    def stages(self) -> list[AbstractStage]:
        """In order of depth, for a `ControlProblem` on `embed(ids)` with the mask as its context."""
        return [self.block] * self.num_blocks + [MeanPool(), as_stage(unit_length)]

    def embed(self, ids: Int[ArrayLike, "*n tokens"]) -> Float[Array, "*n tokens width"]:
        """States to start from, of one sentence or several, in the weights' precision.

        **Raises:** `ValueError` for more tokens than places, or a number that is no word's.
        """
        ids, places = jnp.asarray(ids), self.front.places
        length = ids.shape[-1]
        if length > len(places):
            raise ValueError(
                f"SentenceEncoder: {length} tokens were given; there are places for {len(places)}. "
                "Shorten the sentences."
            )
        if known_to_fail((ids >= 0) & (ids < len(self.front.words))):
            raise ValueError(
                f"SentenceEncoder: tokens are numbered 0 to {len(self.front.words) - 1}; found "
                f"{int(ids.min())} to {int(ids.max())}. Use the encoder's own tokeniser."
            )
        words = self.front.words[ids].astype(places.dtype)
        given = (places[:length] + self.front.kind[None, :]).reshape(
            (1,) * (ids.ndim - 1) + (length, -1)
        )
        return self.block.norm.step(words + given, self.front.norm)

    def __call__(
        self, ids: Int[ArrayLike, " tokens"], seen: Bool[ArrayLike, " tokens"]
    ) -> Float[Array, " width"]:
        """One sentence's embedding, of length 1; `seen`: the tokens that are no padding. Batch with
        `jax.vmap`."""
        x = self.embed(ids)
        chain = Chain(self.stages, x, context=seen)
        return chain(self.weights, x, chain.given(None, seen, samples=False))

    def heads(self, ids: Int[ArrayLike, " tokens"], seen: Bool[ArrayLike, " tokens"]) -> Attended:
        """What every head does with one sentence: leaves `(blocks, heads, tokens, ...)`."""
        x = self.embed(ids)
        chain = Chain(self.stages, x, context=seen)
        states, _ = chain.states(self.weights, x, chain.given(None, seen, samples=False))
        look = lambda x, theta: self.block.heads(x, theta, seen)
        return jax.vmap(look)(states[0], self.weights[0])


def sentence_encoder(
    tensors: Mapping[str, ArrayLike], config: Mapping[str, Any], dtype: DTypeLike = jnp.float32
) -> SentenceEncoder:
    """An encoder from tensors and settings under the names that BERT's checkpoints use.

    **Arguments:** `tensors`, `config`: as `hj.data.read_encoder` gives them; `dtype`: of the weights
    and of all that is computed. The table of words keeps the precision it came in; rows are cast on use.

    **Raises:** `ValueError` for another architecture, a tensor that is missing or has another shape.
    """
    _check_architecture(config)
    width, count = int(config["hidden_size"]), int(config["num_hidden_layers"])
    block = Block(
        SelfAttention(width, int(config["num_attention_heads"])),
        FeedForward(width, int(config["intermediate_size"])),
        LayerNorm(width, jnp.asarray(config["layer_norm_eps"], dtype)),
        "post",
    )
    read = _Reader(tensors, dtype)
    thetas = [_block_weights(read, f"encoder.layer.{k}.") for k in range(count)]
    _check_shapes(block, thetas)
    front = Front(
        jnp.asarray(read.raw("embeddings.word_embeddings.weight")),
        read("embeddings.position_embeddings.weight"),
        read("embeddings.token_type_embeddings.weight")[0],
        read.norm("embeddings.LayerNorm"),
    )
    blocks = jax.tree.map(lambda *a: jnp.stack(a), *thetas)
    return SentenceEncoder(front, block, count, (blocks, (), ()))


def _check_architecture(config: Mapping[str, Any]) -> None:
    needed = {"model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute"}
    for name, value in needed.items():
        if config.get(name, value) != value:
            raise ValueError(
                f"sentence_encoder: `{name}` must be {value!r}; found {config[name]!r}. State another "
                "architecture from the stages of `hj.networks`."
            )
    sizes = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    absent = [name for name in (*sizes, "layer_norm_eps") if name not in config]
    if absent:
        raise ValueError(f"sentence_encoder: the settings lack {', '.join(absent)}.")


class _Reader:
    """Tensors by name, cast; a checkpoint may put `bert.` before each."""

    def __init__(self, tensors: Mapping[str, ArrayLike], dtype: DTypeLike):
        self.tensors, self.dtype = tensors, dtype

    def raw(self, name: str) -> ArrayLike:
        for known in (name, f"bert.{name}"):
            if known in self.tensors:
                return self.tensors[known]
        raise ValueError(
            f"sentence_encoder: the tensor {name!r} is missing among {len(self.tensors)}."
        )

    def __call__(self, name: str) -> Array:
        return jnp.asarray(self.raw(name), self.dtype)

    def affine(self, name: str) -> AffineWeights:
        return AffineWeights(self(f"{name}.weight"), self(f"{name}.bias"))

    def norm(self, name: str) -> NormWeights:
        return NormWeights(self(f"{name}.weight"), self(f"{name}.bias"))


def _block_weights(read: _Reader, at: str) -> BlockWeights:
    maps = ("self.query", "self.key", "self.value", "output.dense")
    return BlockWeights(
        AttentionWeights(*(read.affine(f"{at}attention.{name}") for name in maps)),
        read.norm(f"{at}attention.output.LayerNorm"),
        FeedForwardWeights(
            read.affine(f"{at}intermediate.dense"), read.affine(f"{at}output.dense")
        ),
        read.norm(f"{at}output.LayerNorm"),
    )


def _check_shapes(block: Block, thetas: list[BlockWeights]) -> None:
    wanted = of_drawn(block.init)
    for k, theta in enumerate(thetas):
        for path, leaf in jax.tree_util.tree_leaves_with_path(theta):
            need = dict(jax.tree_util.tree_leaves_with_path(wanted))[path].shape
            if leaf.shape != need:
                raise ValueError(
                    f"sentence_encoder: block {k}, {jax.tree_util.keystr(path)} must have shape "
                    f"{need}; found {leaf.shape}."
                )

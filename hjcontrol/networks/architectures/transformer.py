"""The transformer, as a declared architecture."""

import math

import equinox as eqx
import jax.numpy as jnp

from hjcontrol._ground.arguments import admits
from hjcontrol.networks.architectures.declaration import AbstractArchitecture, Read, patches
from hjcontrol.networks.attention import SelfAttention
from hjcontrol.networks.dense import readout
from hjcontrol.networks.transformer import Block, Embed, FeedForward, LayerNorm, MeanPool
from hjcontrol.networks.units import LSEUnits


@admits(in_size=">= 1", classes=">= 1", width=">= 1", heads=">= 1", depth=">= 1")
class Transformer(AbstractArchitecture):
    r"""Pre-norm blocks on patches of the features: Gibbs means over tokens, log-sum-exp feed-forward.

    Each row of a head is the Gibbs state of a Hopf-Cole solution with the keys for atoms.
    """

    in_size: int = eqx.field(static=True)
    classes: int = eqx.field(static=True)
    width: int = eqx.field(static=True, default=8)
    heads: int = eqx.field(static=True, default=2)
    depth: int = eqx.field(static=True, default=2)

    name = "transformer"
    drift = "-"
    energy = "p.(W_Q^T W_Q)^+ p, a head (|p|^2 in its query)"
    noise = "sqrt(d_head), of raw logits"
    exact = "a row of weights = grad lse; distance form = dot products for keys of one norm"
    structural = "values other than keys; several heads; norms, residual paths, depth"

    @property
    def cell(self) -> Block:
        feed = FeedForward(self.width, 2 * self.width, LSEUnits(2, 0.5))
        return Block(SelfAttention(self.width, self.heads), feed, LayerNorm(self.width))

    def read(self, features):
        return Read(patches(jnp.asarray(features)))

    def stages(self):
        _, tokens, size = patches(jnp.zeros((1, self.in_size))).shape
        return [
            Embed(tokens, size, self.width),
            *[self.cell] * self.depth,
            MeanPool(),
            readout(self.width, self.classes),
        ]

    def hamiltonian(self, x, p, theta, u=None):
        """`sum_h p_h.G_h p_h`, `G_h = (W_Q^T W_Q)^+`: `p` (heads, width) the gradients, in one normed
        token that asks, of every head's log-sum-exp with its keys held.

        Each solves `F_s = p.G p + eps tr(G hess F)` exactly, keys' lengths entering as biases.
        """
        del x, u
        rows = theta.attention.query.W.reshape(self.heads, -1, self.width)
        asked = jnp.einsum("hkw,hw->hk", jnp.linalg.pinv(rows.swapaxes(1, 2)), p)  # gradients in q
        return jnp.sum(asked**2)

    @property
    def viscosity(self):
        return jnp.asarray(math.sqrt(self.width // self.heads))

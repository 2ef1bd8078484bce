r"""Stages that hold a convex training problem's network.

    SoftMaximum    x -> lse(W x + b, eps)                       convex in x; max-affine at eps = 0
    FixedSlopes    x -> lse(W x + b, eps), W given, weights b   the Hopf-Cole fit's own
    Difference     x -> lse(W x + b, eps) - lse(V x + c, eps)
    GatedUnits     x -> (1(g_j . x >= 0) w_j . x)_j             gates g given
    Sum            x -> a . x

All but GatedUnits give a state of shape (1,): readouts and costs treat it like any other state.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from hjcontrol._ground.arguments import admits
from hjcontrol.deformation import lse
from hjcontrol.networks import AbstractStage, AffineWeights


@admits(in_size=">= 1", pieces=">= 1", eps=">= 0")
class SoftMaximum(AbstractStage):
    """A log-sum-exp layer of `pieces` affine functions at temperature `eps >= 0`."""

    in_size: int = eqx.field(static=True)
    pieces: int = eqx.field(static=True)
    eps: Float[Array, ""] = eqx.field(converter=jnp.asarray)

    def step(self, x: Float[Array, " in"], theta: AffineWeights) -> Float[Array, " 1"]:
        return self.after(x, theta.W @ x + theta.b)

    @property
    def affine(self) -> bool:
        return True

    def after(self, x, a):
        return lse(a, self.eps.astype(x.dtype))[None]

    def init(self, key: Key[Array, ""]) -> AffineWeights:
        W = jax.random.normal(key, (self.pieces, self.in_size)) / np.sqrt(self.in_size)
        return AffineWeights(W, jnp.zeros(self.pieces, W.dtype))


class FixedSlopes(AbstractStage):
    """The same layer with slopes `(pieces, in)` that are not trained: its weights are the biases.

    A start draws biases of the size of `eps`.
    """

    slopes: Float[Array, "pieces in"]
    eps: Float[Array, ""] = eqx.field(converter=jnp.asarray)

    def step(self, x: Float[Array, " in"], theta: Float[Array, " pieces"]) -> Float[Array, " 1"]:
        return lse(self.slopes @ x + theta, self.eps.astype(x.dtype))[None]

    def init(self, key: Key[Array, ""]) -> Float[Array, " pieces"]:
        return self.eps * jax.random.normal(key, self.slopes.shape[:1], self.slopes.dtype)


class Difference(AbstractStage):
    """Difference of two log-sum-exp layers; weights: a pair of `AffineWeights`."""

    plus: SoftMaximum
    minus: SoftMaximum

    def step(self, x: Float[Array, " in"], theta) -> Float[Array, " 1"]:
        return self.plus.step(x, theta[0]) - self.minus.step(x, theta[1])

    def init(self, key: Key[Array, ""]) -> tuple[AffineWeights, AffineWeights]:
        one, two = jax.random.split(key)
        return self.plus.init(one), self.minus.init(two)


class GatedUnits(AbstractStage):
    """Linear units behind fixed gates `(units, in)`; weights `(units, in)`."""

    gates: Float[Array, "units in"]

    def step(
        self, x: Float[Array, " in"], theta: Float[Array, "units in"]
    ) -> Float[Array, " units"]:
        return jnp.where(self.gates @ x >= 0, theta @ x, 0.0)

    def init(self, key: Key[Array, ""]) -> Float[Array, "units in"]:
        units, size = self.gates.shape
        return jax.random.normal(key, (units, size), self.gates.dtype) / np.sqrt(size * units)


class Sum(AbstractStage):
    """A readout of one output without bias; weights `(units,)`."""

    units: int = eqx.field(static=True)

    def step(self, x: Float[Array, " units"], theta: Float[Array, " units"]) -> Float[Array, " 1"]:
        return jnp.sum(theta * x)[None]

    def init(self, key: Key[Array, ""]) -> Float[Array, " units"]:
        return jax.random.normal(key, (self.units,)) / np.sqrt(self.units)

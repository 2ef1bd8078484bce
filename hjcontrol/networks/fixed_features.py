r"""Stages some of whose matrices are given, so that a training problem is convex in the others.

    FixedSlopes    x -> lse(W x + b, eps)               W given, weights b: the Hopf-Cole fit's own
    GatedUnits     x -> (1(g_j . x >= 0) w_j . x)_j     gates g given, weights w
    Sum            x -> a . x                           weights a

FixedSlopes and Sum give a state of shape (1,): readouts and costs treat it like any other state.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from hjcontrol.deformation import LSE
from hjcontrol.deformation.soft_maximum import temperature
from hjcontrol.networks.stage import AbstractStage


class FixedSlopes(AbstractStage):
    """A soft maximum of affine functions whose slopes `(atoms, in)` are not trained.

    A start draws biases of the size of `eps`.
    """

    slopes: Float[Array, "atoms in"]
    eps: Float[Array, ""] = eqx.field(converter=temperature)

    def step(self, x: Float[Array, " in"], theta: Float[Array, " atoms"]) -> Float[Array, " 1"]:
        return LSE(self.slopes, theta, self.eps)(x)[None]

    def init(self, key: Key[Array, ""]) -> Float[Array, " atoms"]:
        return self.eps * jax.random.normal(key, self.slopes.shape[:1], self.slopes.dtype)


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

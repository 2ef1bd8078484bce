"""Feedforward networks and residual ones, as declared architectures."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from hjcontrol._ground.arguments import admits
from hjcontrol.networks.architectures.declaration import AbstractArchitecture, framed, transport
from hjcontrol.networks.dense import Dense, readout
from hjcontrol.networks.residual import Residual
from hjcontrol.networks.units import SoftplusUnits


@admits(in_size=">= 1", classes=">= 1", width=">= 1", depth=">= 1")
class Feedforward(AbstractArchitecture):
    r"""A stack of softplus layers at temperature `eps`; ReLU at 0.

    Each unit solves `u_t + |grad u|^2 = eps Lap u` in the layer's input, exactly; the stack does not.
    """

    in_size: int = eqx.field(static=True)
    classes: int = eqx.field(static=True)
    width: int = eqx.field(static=True, default=16)
    depth: int = eqx.field(static=True, default=3)
    eps: Float[Array, ""] = eqx.field(converter=jnp.asarray, default=0.5)

    name = "feedforward"
    drift = "0"
    energy = "|p|^2"
    noise = "eps"
    exact = "each unit: two-atom Hopf-Cole; depth bound eps to 0"
    structural = "layer after layer: input maps compose, solutions do not"

    @property
    def cell(self) -> Dense:
        return Dense(self.width, self.width, SoftplusUnits(self.eps))

    def stages(self):
        units = SoftplusUnits(self.eps)
        hidden = [Dense(self.width, self.width, units)] * (self.depth - 1)
        first = Dense(self.in_size, self.width, units)
        return [first, *hidden, readout(self.width, self.classes)]

    def hamiltonian(self, x, p, theta, u=None):
        """`|p|^2`, `p` the gradient of one unit's solution: it knows neither `x` nor the weights."""
        del x, theta, u
        return jnp.sum(p**2)

    @property
    def viscosity(self):
        return self.eps


@admits(in_size=">= 1", classes=">= 1", width=">= 1", depth=">= 1")
class ResidualNetwork(AbstractArchitecture):
    r"""Euler steps `x + h tanh(W x + b)` along characteristics: `V_t + f.grad V = 0`."""

    in_size: int = eqx.field(static=True)
    classes: int = eqx.field(static=True)
    width: int = eqx.field(static=True, default=16)
    depth: int = eqx.field(static=True, default=8)
    h: Float[Array, ""] = eqx.field(converter=jnp.asarray, default=0.25)

    name = "residual"
    drift = "f(x, theta)"
    energy = "p.f, linear in p"
    noise = "0"
    exact = "costate = backprop; p.dx conserved"
    structural = "the equation itself: Euler is off by O(h)"

    @property
    def cell(self) -> Residual:
        return Residual(Dense(self.width, self.width), self.h)

    def stages(self):
        return framed(self, [self.cell] * self.depth)

    def hamiltonian(self, x, p, theta, u=None):
        """`p.f(x, theta)`: `step = x + h dH/dp`, `p_k = p_{k+1} + h dH/dx`."""
        return transport(self.cell, x, p, theta, u) / self.h.astype(x.dtype)

    @property
    def viscosity(self):
        return jnp.zeros(())

"""Continuous depth and noise, as declared architectures."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from hjcontrol._ground.arguments import admits
from hjcontrol._ground.third_party import needs
from hjcontrol.networks.architectures.declaration import AbstractArchitecture, Read, framed
from hjcontrol.networks.dense import Dense
from hjcontrol.networks.flow import Flow
from hjcontrol.networks.stochastic import StochasticResidual, brownian


@admits(in_size=">= 1", classes=">= 1", width=">= 1", depth=">= 1", steps=">= 1")
class FlowNetwork(AbstractArchitecture):
    r"""Pieces of `x' = tanh(W(t) x + b(t))`, weights constant on each: `V_t + f.grad V = 0`.

    Heun's steps by diffrax, constant, so that the order of its agreement with the costate equation can
    be measured.
    """

    in_size: int = eqx.field(static=True)
    classes: int = eqx.field(static=True)
    width: int = eqx.field(static=True, default=16)
    depth: int = eqx.field(static=True, default=4)
    t1: Float[Array, ""] = eqx.field(converter=jnp.asarray, default=2.0)
    steps: int = eqx.field(static=True, default=4)

    name = "flow"
    drift = "f(x, theta(t))"
    energy = "p.f, linear in p"
    noise = "0"
    exact = "discrete costate = backprop; Euler once a piece = residual"
    structural = "p' = -dH/dx: to the solver's order"

    @property
    def cell(self) -> Flow:
        return self._pieces()[0]

    def _pieces(self) -> list[Flow]:
        needs("A Flow", "diffrax")
        import diffrax

        step = self.t1 / (self.depth * self.steps)
        # The adjoint that every derivative has: forward mode, and Newton's second derivatives.
        how = {"solver": diffrax.Heun(), "adjoint": diffrax.DirectAdjoint(), "dt0": step}
        drift = Dense(self.width, self.width)
        return Flow.pieces(drift, self.t1, self.depth, max_steps=2 * self.steps, **how)

    def stages(self):
        return framed(self, self._pieces())

    def hamiltonian(self, x, p, theta, u=None):
        """`p.f(x, theta)`: `x' = dH/dp`, `p' = -dH/dx`."""
        del u
        return jnp.sum(p * self.cell.drift.step(x, theta))

    @property
    def viscosity(self):
        return jnp.zeros(())


@admits(in_size=">= 1", classes=">= 1", width=">= 1", depth=">= 1", seed=">= 0")
class StochasticResidualNetwork(AbstractArchitecture):
    r"""Euler-Maruyama steps `x + h tanh(W x + b) + sqrt(2 nu h) xi`, noise given.

    `read` draws one path a sample from `seed`: an example must repeat. The stage itself never draws.

    `V_t + f.grad V - (nu/eps)|grad V|^2 + nu Lap V = 0` for the soft minimum over noise at temperature
    `eps`; for the mean, which training minimises here, without the quadratic term.
    """

    in_size: int = eqx.field(static=True)
    classes: int = eqx.field(static=True)
    width: int = eqx.field(static=True, default=16)
    depth: int = eqx.field(static=True, default=8)
    h: Float[Array, ""] = eqx.field(converter=jnp.asarray, default=0.25)
    nu: Float[Array, ""] = eqx.field(converter=jnp.asarray, default=0.01)
    seed: int = eqx.field(static=True, default=0)

    name = "stochastic residual"
    drift = "f(x, theta)"
    energy = "p.f (mean); p.f - (nu/eps)|p|^2 (soft minimum)"
    noise = "nu"
    exact = "pathwise costate = backprop, noise given"
    structural = "the equation: in expectation, Euler-Maruyama off by O(h)"

    @property
    def cell(self) -> StochasticResidual:
        return StochasticResidual(Dense(self.width, self.width), self.h, self.nu)

    def stages(self):
        return framed(self, [self.cell] * self.depth)

    def read(self, features):
        features = jnp.asarray(features)
        key = jax.random.key(self.seed)
        noise = brownian(key, len(features), self.depth, (self.width,), features.dtype)
        return Read(features, forcing=noise)

    def hamiltonian(self, x, p, theta, u=None):
        """`p.f(x, theta)`, of the mean."""
        del u
        return jnp.sum(p * self.cell.drift.step(x, theta))

    @property
    def viscosity(self):
        return self.nu

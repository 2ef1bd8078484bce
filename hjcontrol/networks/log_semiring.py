r"""The recurrence that is the Hamilton-Jacobi semigroup: linear over (soft minimum, +).

    u'_i = -eps log sum_j exp(-(A_ij + u_j)/eps)             min_j A_ij + u_j  at eps = 0

u   values of a solution at nodes x_i          A   energies from node j to node i, the weights
With A_ij = |x_i - x_j|^2/4t + (d eps/2) log(4 pi eps t) - eps log m_j, m_j the mass of node j, one step
is the evolution of u_t + |grad u|^2 = eps Lap u over a time t, and steps compose: S_t S_s = S_{t+s}. No
other architecture of this room is that semigroup: a map of inputs composed with itself is not.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from hjcontrol._ground.arguments import admits
from hjcontrol.deformation import softmin
from hjcontrol.deformation.soft_maximum import temperature
from hjcontrol.hamilton_jacobi import kernel
from hjcontrol.networks.stage import AbstractStage


@admits(width=">= 1", eps=">= 0")
class LogSemiring(AbstractStage):
    """A log-semiring matrix times the state; `Tied` for a recurrence."""

    width: int = eqx.field(static=True)
    eps: Float[Array, ""] = eqx.field(converter=temperature, default=1.0)

    def init(self, key: Key[Array, ""]) -> Float[Array, "width width"]:
        """Random energies, less where a node stays where it is."""
        away = jnp.abs(jnp.arange(self.width)[:, None] - jnp.arange(self.width)[None, :])
        drawn = jax.random.normal(key, (self.width, self.width))
        return drawn + away.astype(drawn.dtype)

    def step(
        self, x: Float[Array, " width"], theta: Float[Array, "width width"]
    ) -> Float[Array, " width"]:
        return softmin(theta + x[None, :], self.eps.astype(x.dtype))

    def heat(
        self, nodes: Float[Array, "width d"], masses: Float[Array, " width"], t: float
    ) -> Float[Array, "width width"]:
        """The weights with which a step is `S_t` on these nodes, as `hamilton_jacobi.evolve` has it.

        **Raises:** `ValueError` for `t <= 0` or another number of nodes.
        """
        if nodes.shape[0] != self.width or masses.shape != (self.width,):
            raise ValueError(
                f"LogSemiring: {self.width} nodes with as many masses are needed; found "
                f"{nodes.shape} and {masses.shape}."
            )
        return kernel(nodes, nodes, t, self.eps) - self.eps * jnp.log(masses)[None, :]

r"""Residual stages: depth is time, one explicit Euler step.

    step(x, theta) = x + h f(x, theta)          x' = f(x, theta)

f      any stage that keeps the state's shape        h   step length, an array leaf (sweeps freely)
Hamiltonian p.f, linear in p, viscosity 0: the adjoint of the step is one step of backprop.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from hjcontrol._ground.arguments import admits
from hjcontrol.networks.stage import AbstractStage, Symmetry


@admits(h="finite")
class Residual(AbstractStage):
    """One Euler step of length `h` along the velocity `drift`.

    **Example:**

        >>> import jax, jax.numpy as jnp, hjcontrol as hj
        >>> stage = hj.networks.Residual(hj.networks.Dense(2, 2), 0.5)
        >>> theta = jax.tree.map(jnp.zeros_like, stage.init(jax.random.key(0)))
        >>> stage.step(jnp.ones(2), theta).tolist()  # a drift of zero: the state stays
        [1.0, 1.0]
    """

    drift: AbstractStage
    h: Float[Array, ""] = eqx.field(converter=jnp.asarray)

    def step(self, x, theta):
        return self._euler(x, self.drift.step(x, theta))

    def _euler(self, x, velocity):
        return jax.tree.map(lambda a, v: a + self.h.astype(a.dtype) * v, x, velocity)

    @property
    def affine(self) -> bool:
        return self.drift.affine

    def after(self, x, a):
        return self._euler(x, self.drift.after(x, a))

    def init(self, key):
        return self.drift.init(key)

    def symmetry(self) -> Symmetry | None:
        inner = self.drift.symmetry()
        return None if inner is None else Symmetry(tied=True, odd=inner.odd)

    def relabel(self, theta, inward, outward):
        return self.drift.relabel(theta, inward, outward)

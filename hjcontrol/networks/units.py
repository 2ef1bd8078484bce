r"""Hidden units: what a layer makes of its affine part.

    Pointwise     h_i = sigma(a_i)                                    sigma = gelu, tanh, ...
    LSEUnits      h_i = lse((a_i1, .., a_iN), eps)                    max_j a_ij at eps = 0
    Softplus      h_i = lse((0, a_i), eps) = eps log(1 + e^{a_i/eps}) ReLU at eps = 0

Each unit of the last two is a viscous Hamilton-Jacobi solution of its input (Hopf-Cole, N atoms), and
    0 <= h_eps - h_0 <= eps log N        sharp at ties
"""

import abc
import math
from collections.abc import Callable
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from hjcontrol._ground.arguments import admits
from hjcontrol._ground.shown import Shown
from hjcontrol.deformation import lse
from hjcontrol.deformation.soft_maximum import temperature


class AbstractUnits(Shown):
    """A map from affine parts to hidden units, `atoms` affine parts a unit."""

    held: ClassVar[tuple[str, ...]] = ("eps",)
    atoms: eqx.AbstractVar[int]

    @abc.abstractmethod
    def __call__(self, a: Float[Array, " parts"]) -> Float[Array, " units"]:
        """The units; `parts = units * atoms`, a unit's atoms next to each other."""

    @property
    @abc.abstractmethod
    def slack(self) -> Float[Array, ""] | None:
        """Largest distance of a unit from its hard limit; `None` for an activation, which has none."""


def identity(x: Array) -> Array:
    """The activation that does nothing."""
    return x


@admits()
class Pointwise(AbstractUnits):
    """An activation of each affine part."""

    activation: Callable[[Array], Array] = eqx.field(static=True)
    atoms: int = eqx.field(static=True, init=False, default=1)

    def __call__(self, a):
        return self.activation(a)

    @property
    def slack(self) -> Float[Array, ""] | None:
        return jnp.zeros(()) if self.activation is identity else None


@admits(eps=">= 0")
class Softplus(AbstractUnits):
    """`lse((0, a), eps)`: two atoms a unit, one of them 0. ReLU at `eps = 0`."""

    eps: Float[Array, ""] = eqx.field(converter=temperature, default=1.0)
    atoms: int = eqx.field(static=True, init=False, default=1)

    def __call__(self, a):
        return lse(jnp.stack([jnp.zeros_like(a), a], axis=-1), self.eps.astype(a.dtype))

    @property
    def slack(self) -> Float[Array, ""]:
        return self.eps * math.log(2.0)


@admits(atoms=">= 1", eps=">= 0")
class LSEUnits(AbstractUnits):
    """`lse` of `atoms` affine parts a unit: a soft maximum of affine forms, convex in the input."""

    atoms: int = eqx.field(static=True)
    eps: Float[Array, ""] = eqx.field(converter=temperature, default=1.0)

    def __check_init__(self):
        if self.atoms < 1:
            raise ValueError(f"LSEUnits: `atoms` must be positive; found {self.atoms}.")

    def __call__(self, a):
        eps = self.eps.astype(a.dtype)
        if a.size == self.atoms:
            # Reshaped to one row, XLA of jax 0.10 at --xla_backend_optimization_level=0 gives another
            # gradient (0.594 for 0.605 in a fit of 8 atoms); at its own settings both are equal.
            return lse(a, eps)[None]
        return lse(a.reshape(-1, self.atoms), eps)

    @property
    def slack(self) -> Float[Array, ""]:
        return self.eps * math.log(self.atoms)


@admits()
def gelu(a: Float[Array, "..."]) -> Float[Array, "..."]:
    """`a Phi(a)` with the normal distribution function, not its tanh approximation."""
    return jax.nn.gelu(a, approximate=False)

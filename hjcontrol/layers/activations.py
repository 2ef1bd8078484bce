r"""Activations that are not values or argmaxes of a convex program; what is known of them instead.

    silu(x, eps) = x sigmoid(x/eps)       x times a Gibbs weight: the mean of {x, 0} under weights
                                          softmax((x, 0)/eps), an energy without its entropy
    gelu(x, eps) = x Phi(x/eps)           x times a heat-kernel integral: Phi is the step function after
                                          heat flow of variance eps^2

Both tend to max(x, 0) as eps -> 0+. Neither is convex, so neither is the value of a program
max p.x - eps Omega(p); neither is monotone, so neither is the argmax of one.
"""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Real

from hjcontrol._ground.arguments import admits
from hjcontrol._ground.shown import Shown
from hjcontrol.deformation.soft_maximum import floating, temperature


@admits(eps=">= 0")
class SiLU(Shown):
    """`x sigmoid(x/eps)` (swish): x times a Gibbs weight, which is `eps softplus(x/eps)` less the
    entropy term: `x p = value(x) - eps H(p)`. Dips below 0 to `-0.2785 eps` at `x = -1.2785 eps`."""

    held: ClassVar[tuple[str, ...]] = ("eps",)
    eps: Float[Array, ""] = eqx.field(converter=temperature, default=1.0)

    def __call__(self, x: Real[ArrayLike, "*shape"]) -> Float[Array, "*shape"]:
        """Entry by entry; `max(x, 0)` at `eps = 0`."""
        x = floating(x)
        eps = self.eps.astype(x.dtype)
        soft = x * jax.nn.sigmoid(x / jnp.where(eps > 0, eps, 1.0))
        return jnp.where(eps > 0, soft, jnp.maximum(x, 0.0))


@admits(eps=">= 0")
class GELU(Shown):
    """`x Phi(x/eps)`, Phi the normal distribution function: x times the integral of the heat kernel
    of variance `eps^2` over the half line below x. Since `d/dx [x Phi + eps^2 kernel] = Phi`, the convex
    function `x Phi(x/eps) + eps phi(x/eps)` is ReLU after heat flow; GELU lacks the last term."""

    held: ClassVar[tuple[str, ...]] = ("eps",)
    eps: Float[Array, ""] = eqx.field(converter=temperature, default=1.0)

    def __call__(self, x: Real[ArrayLike, "*shape"]) -> Float[Array, "*shape"]:
        """Entry by entry, the exact form; `max(x, 0)` at `eps = 0`."""
        x = floating(x)
        eps = self.eps.astype(x.dtype)
        soft = x * jax.scipy.stats.norm.cdf(x / jnp.where(eps > 0, eps, 1.0))
        return jnp.where(eps > 0, soft, jnp.maximum(x, 0.0))

r"""Capped simplex: k places, at most one for each; top-k as its hard limit.

C = { p : 0 <= p_j <= 1, sum_j p_j = k },   Omega = |p|^2/2
p_j = clip((z_j - lambda)/eps, 0, 1)        eps = 0: the k largest entries, ties shared equally
value at eps = 0: the sum of the k largest
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from hjcontrol._ground.arguments import admits
from hjcontrol.deformation.soft_maximum import temperature
from hjcontrol.layers.regulariser import AbstractRegulariser, Quadratic
from hjcontrol.layers.simplex import AbstractSimplexLayer


@admits(eps=">= 0", k=">= 1")
class CappedSimplex(AbstractSimplexLayer):
    """Soft top-k: projection of `z/eps` on the capped simplex with sum `k`; top-k at `eps = 0`."""

    eps: Float[Array, ""] = eqx.field(converter=temperature)
    total: int = eqx.field(static=True)
    phi: AbstractRegulariser = eqx.field(init=False, default_factory=Quadratic)
    kind = "capped simplex"
    domain = "capped simplex"
    regulariser = "|p|^2/2"
    curvature = "piecewise quadratic; strongly convex dual"

    def __init__(self, eps: float | Float[Array, ""] = 1.0, k: int = 2):
        """**Raises:** `ValueError` unless `k >= 1` and `eps >= 0`."""
        self.eps, self.total, self.phi = eps, int(k), Quadratic(0.0, 1.0)

    def multiplier(self, u: Float[Array, " n"]) -> Float[Array, ""]:
        """Newton on the piecewise linear `sum clip(u - lambda, 0, 1) = k`, kept in a bracket: the
        k-th largest being 0, lambda lies in [-1, 0]. Exact once the active set is found."""
        k = self.total
        u = jnp.clip(jax.lax.stop_gradient(u), -3.0, 3.0)

        def step(state: tuple[Array, ...]) -> tuple[Array, ...]:
            low, high, lam, _, count = state
            free = (u > lam) & (u < lam + 1.0)
            excess = jnp.sum(jnp.clip(u - lam, 0.0, 1.0)) - k
            low = jnp.where(excess >= 0, lam, low)
            high = jnp.where(excess <= 0, lam, high)
            full = jnp.sum(u >= lam + 1.0)
            many = jnp.sum(free)
            newton = (jnp.sum(jnp.where(free, u, 0.0)) + full - k) / jnp.maximum(many, 1)
            # Strictly inside: on a piecewise linear function Newton can step from end to end for ever.
            good = (many > 0) & (
                ((newton > low) & (newton < high)) | (jnp.abs(newton - lam) < tiny)
            )
            new = jnp.where(good, newton, 0.5 * (low + high))
            return low, high, jnp.where(excess == 0, lam, new), lam, count + 1

        def carry_on(state: tuple[Array, ...]) -> Bool[Array, ""]:
            _, _, lam, last, count = state
            return (lam != last) & (count < 120)

        tiny = 4 * k * jnp.finfo(u.dtype).eps
        start = jnp.full((), -1.0, u.dtype), jnp.zeros((), u.dtype), jnp.full((), -0.5, u.dtype)
        state = (*start, jnp.full((), 9.0, u.dtype), jnp.zeros((), int))
        return jax.lax.while_loop(carry_on, step, state)[2]

r"""Projection on a Euclidean ball by Newton on its multiplier, in log variables; and its KKT system.

    find s >= log nu_0:    p = z e^-s,   |p| <= rho,   equal where s > log nu_0      s = log multiplier
    s <- s + log( |z| e^-s / rho )            the secular equation is affine in s: one step is exact

    implicit:   nu dp + p dnu = dz,   p.dp = 0 on the sphere,   dnu = 0 inside           KKT, nu = e^s

A ball's layer is the projection itself (nu_0 = eps). A norm's prox is what the projection leaves, by
Moreau: with r the projection of z on the ball of radius lam (nu_0 = 1), p = (z - r)/eps, and
z - r = -z expm1(-s) has no difference in it.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

STEPS = 1


def log_multiplier(
    z: Float[Array, " n"], rho: Float[Array, ""], least: Float[Array, ""], steps: int = STEPS
) -> Float[Array, ""]:
    """`s` by `steps` steps from `log least`, differentiable as it stands."""
    size = _length(z)
    start = jnp.log(least)
    s = start
    for _ in range(steps):
        reach = rho * jnp.exp(s)
        excess = (size - reach) / reach  # exact near the sphere, where a quotient less 1 is not
        s = jnp.maximum(s + jnp.log1p(jnp.maximum(excess, -0.5)), start)
    return s


def onto_ball(
    z: Float[Array, " n"], rho: Float[Array, ""], least: Float[Array, ""], steps: int = STEPS
) -> Float[Array, " n"]:
    """`z e^-s`: the projection of `z/least` on the ball. `least = 0` is its limit, `rho z/|z|`."""
    size = _length(z)
    floor = jnp.where(least > 0, least, jnp.where(size > 0, size / rho, 1.0))
    return z * jnp.exp(-log_multiplier(z, rho, floor, steps))


def past_ball(
    z: Float[Array, " n"], rho: Float[Array, ""], steps: int = STEPS
) -> Float[Array, " n"]:
    """`z` less its projection on the ball."""
    return -z * jnp.expm1(-log_multiplier(z, rho, jnp.ones((), z.dtype), steps))


def pulled_onto(
    z: Float[Array, " n"], rho: Float[Array, ""], least: Float[Array, ""], g: Float[Array, " n"]
) -> Float[Array, " n"]:
    """`g` pulled back through the KKT system of the projection. The Jacobian is symmetric."""
    nu = jnp.exp(log_multiplier(z, rho, least))
    p, active = z / nu, nu > least
    row = jnp.where(active, p, 0.0)
    top = jnp.concatenate([nu * jnp.eye(z.size, dtype=z.dtype), row[:, None]], axis=1)
    last = jnp.concatenate([row, jnp.where(active, 0.0, 1.0)[None].astype(z.dtype)])
    right = jnp.concatenate([g, jnp.zeros(1, z.dtype)])
    return jnp.linalg.solve(jnp.concatenate([top, last[None]]), right)[:-1]


def _length(z: Float[Array, " n"]) -> Float[Array, ""]:
    square = jnp.sum(z**2)
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)

r"""The smallest curvature of J, by Lanczos.

    H V_m = V_m T_m + beta_m v_{m+1} e_m^T,     T_m s = mu s     =>     |lambda - mu| <= beta_m |s_m|

for some eigenvalue `lambda` of the Hessian H. `mu >= lambda_min` always; that it is the smallest one
is as sure as Lanczos is, no surer. Full reorthogonalisation: without it, ghosts of converged values
appear. A breakdown (`beta = 0`, an invariant subspace) is restarted from a fresh direction.

On a face of a control set only the free coordinates count: H is compressed to them, E^T H E. Where no
coordinate is free there is no curvature, and its smallest value is infinite.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Key

from hjcontrol.control import ControlProblem, curvature
from hjcontrol.networks import Weights
from hjcontrol.verification.probes import built_in

STEPS = 60


def smallest_curvature(
    problem: ControlProblem,
    weights: Weights,
    key: Key[Array, ""],
    free: Weights | None = None,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The smallest Ritz value of `d^2 J / dtheta^2`, and its residual bound. `free`: shaped like the
    weights, 1 where they may move and 0 where a bound holds them."""
    flat, unravel = ravel_pytree(weights)
    product = curvature(problem, weights)
    mask = None if free is None else ravel_pytree(free)[0]
    return lanczos(lambda v: ravel_pytree(product(unravel(v)))[0], flat, key, mask)


def lanczos(
    product: Any,
    like: Float[Array, " m"],
    key: Key[Array, ""],
    free: Float[Array, " m"] | None = None,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Smallest Ritz value of a symmetric `product` and its residual bound, in `min(m, STEPS)` steps;
    compressed to the coordinates where `free` is 1, infinite if there is none."""
    m, dtype = like.size, like.dtype
    steps = min(m, STEPS)
    mask = jnp.ones(m, dtype) if free is None else free.astype(dtype)
    fresh = mask[None, :] * jax.random.normal(built_in(key), (steps + 1, m), dtype)
    nothing = 1e4 * jnp.finfo(dtype).eps * jnp.sqrt(jnp.asarray(m, dtype))  # of a fresh direction

    def clear(v: Array, basis: Array) -> Array:
        for _ in range(2):  # twice is enough (Kahan, Parlett)
            v = v - basis.T @ (basis @ v)
        return v

    def body(j: Array, carry: Any) -> Any:
        basis, diagonal, off = carry
        v = basis[j]
        image = mask * product(v)
        alpha = v @ image
        rest = clear(image, basis)
        beta = jnp.linalg.norm(rest)
        broken = beta <= 100 * jnp.finfo(dtype).eps * jnp.linalg.norm(image)
        restart = clear(fresh[j + 1], basis)
        restart = jnp.where(jnp.linalg.norm(restart) > nothing, restart, 0.0)  # the face is used up
        rest = jnp.where(broken, restart, rest)
        size = jnp.linalg.norm(rest)
        basis = basis.at[j + 1].set(rest / jnp.where(size > 0, size, 1.0))
        return basis, diagonal.at[j].set(alpha), off.at[j].set(jnp.where(broken, 0.0, beta))

    size = jnp.linalg.norm(fresh[0])
    basis = jnp.zeros((steps + 1, m), dtype).at[0].set(fresh[0] / jnp.where(size > 0, size, 1.0))
    blank = jnp.zeros(steps, dtype)
    basis, diagonal, off = jax.lax.fori_loop(0, steps, body, (basis, blank, blank))
    unused = jnp.sum(basis[:steps] ** 2, axis=1) < 0.5
    above = 2 * jnp.max(jnp.abs(diagonal) + 2 * jnp.abs(off)) + 1  # no Ritz value is larger
    diagonal = jnp.where(unused, above, diagonal)
    ritz, vectors = jnp.linalg.eigh(
        jnp.diag(diagonal) + jnp.diag(off[:-1], 1) + jnp.diag(off[:-1], -1)
    )
    smallest = jnp.where(unused[0], jnp.inf, ritz[0])
    return smallest, jnp.abs(off[-1] * vectors[-1, 0])

r"""The canonical system of the minimum principle, stepped forward one stage.

    0   = dH_k/dtheta(x_k, p_{k+1}, theta_k)
    p_k = dH_k/dx    (x_k, p_{k+1}, theta_k)      ->  (x_{k+1}, p_{k+1}, theta_k)
    x_{k+1} = F_k(x_k, theta_k)

H_k sums over the ensemble, so its minimiser theta_k couples all samples: one system of
`weights + n d` equations a stage, solved by Newton (in one iteration where H_k is quadratic).

Limits: dF_k/dx must be invertible, else p_{k+1} is not a function of p_k; and d2H_k/dtheta2 too.
Where Newton does not converge the answer is NaN: under `jit` failure is data.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from hjcontrol.control import ControlProblem, sample_hamiltonian
from hjcontrol.networks import AbstractStage

ITERATIONS = 30


def stepped(
    problem: ControlProblem,
    stage: AbstractStage,
    u: Any,
    x: Float[Array, "n ..."],
    p: Float[Array, "n ..."],
    guess: tuple[Any, Float[Array, "n ..."]],
    costate: float,
) -> tuple[Float[Array, "n ..."], Float[Array, "n ..."], Any]:
    """`(x_{k+1}, p_{k+1}, theta_k)` from `(x_k, p_k)`; `guess`: where Newton starts for
    `(theta_k, p_{k+1})`; `costate`: the unit of p (that of theta is one). Its derivative in `x` and
    `p` is the implicit function's."""
    start, unravel = ravel_pytree(guess)

    size, weights = x.size, start.size - x.size
    fixed = jax.lax.stop_gradient
    held_x, held_p = fixed(x), fixed(p)

    def energy(x: Any, theta: Any, q: Any) -> Float[Array, ""]:
        share = lambda a, b, v: sample_hamiltonian(problem, stage, a, b, theta, v)
        return jnp.sum(jax.vmap(share)(x, q, u)) + problem.weight_cost(theta)

    def gap(unknown: Array, x: Any) -> tuple[Array, tuple[Array, Array]]:
        theta, q = unravel(unknown)
        slope, shift, after = jax.grad(energy, argnums=(1, 0, 2))(x, theta, q)  # dH/dp = F
        value = ravel_pytree((slope, shift - held_p))[0]
        return value, (value, after)

    scale = jnp.ones_like(start).at[weights:].divide(costate)
    small = jnp.sqrt(jnp.finfo(start.dtype).eps)  # quadratic: the next step is at roundoff

    def proceed(carry: Any) -> Array:
        return (carry[0] <= ITERATIONS) & (carry[2] > small)

    def body(carry: Any) -> Any:
        count, unknown, _, value, matrix, _, _ = carry
        move = jnp.linalg.solve(matrix, value)
        new = unknown - move
        relative = jnp.max(jnp.abs(scale * move)) / (1 + jnp.max(jnp.abs(scale * new)))
        # One place evaluates, so that a stage is compiled once: the first pass moves nothing.
        (matrix, beside), (value, after) = jax.jacfwd(gap, (0, 1), has_aux=True)(new, held_x)
        last = jnp.where(count > 0, relative, jnp.inf)
        return count + 1, new, last, value, matrix, beside.reshape(-1, size), after

    infinite = jnp.full((), jnp.inf, start.dtype)
    blank = (jnp.zeros_like(start), jnp.eye(start.size, dtype=start.dtype))
    blank = (*blank, jnp.zeros((start.size, size), start.dtype), jnp.zeros_like(held_x))
    _, unknown, last, _, matrix, beside, after = jax.lax.while_loop(
        proceed, body, (jnp.asarray(0), fixed(start), infinite, *blank)
    )
    unknown = fixed(jnp.where(last <= small, unknown, jnp.nan))
    matrix, beside, after = fixed((matrix, beside, after))
    # The value is Newton's; the derivative, in x and p that differ from their own values by nothing, the
    # implicit function's. The columns of `matrix` for p are dF/dtheta and dF/dx.
    dx, dp = (x - held_x).ravel(), (p - held_p).ravel()
    moved = -jnp.linalg.solve(matrix, (beside @ dx).at[weights:].add(-dp))
    along = matrix[weights:, weights:].T @ dx + matrix[:weights, weights:].T @ moved[:weights]
    theta, q = unravel(unknown + moved)
    return after + along.reshape(x.shape), q, theta

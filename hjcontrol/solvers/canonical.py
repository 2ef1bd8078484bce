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
from hjcontrol.networks import AbstractStage, advance

ITERATIONS = 30


def stepped(
    problem: ControlProblem,
    stage: AbstractStage,
    u: Any,
    x: Float[Array, "n ..."],
    p: Float[Array, "n ..."],
    guess: tuple[Any, Float[Array, "n ..."]],
) -> tuple[Float[Array, "n ..."], Float[Array, "n ..."], Any]:
    """`(x_{k+1}, p_{k+1}, theta_k)` from `(x_k, p_k)`; `guess`: where Newton starts for
    `(theta_k, p_{k+1})`. Its derivative in `x` and `p` is the implicit function's."""
    start, unravel = ravel_pytree(guess)

    def energy(x: Any, theta: Any, q: Any) -> Float[Array, ""]:
        share = lambda a, b, v: sample_hamiltonian(problem, stage, a, b, theta, v)
        return jnp.sum(jax.vmap(share)(x, q, u)) + problem.weight_cost(theta)

    def gap(unknown: Array, x: Any, p: Any) -> Float[Array, " m"]:
        theta, q = unravel(unknown)
        slope, shift = jax.grad(energy, argnums=(1, 0))(x, theta, q)
        return ravel_pytree((slope, shift - p))[0]

    fixed = jax.lax.stop_gradient
    held = (fixed(x), fixed(p))
    small = jnp.sqrt(jnp.finfo(start.dtype).eps)  # quadratic: the next step is at roundoff

    def both(unknown: Array) -> tuple[Array, Array]:
        value = gap(unknown, *held)
        return value, value

    def proceed(carry: Any) -> Array:
        count, _, size, _, _ = carry
        return (count <= ITERATIONS) & (size > small)

    def body(carry: Any) -> Any:
        count, unknown, _, value, matrix = carry
        move = jnp.linalg.solve(matrix, value)
        new = unknown - move
        size = jnp.max(jnp.abs(move)) / (1 + jnp.max(jnp.abs(new)))
        # One place evaluates, so that a stage is compiled once: the first pass moves nothing.
        matrix, value = jax.jacfwd(both, has_aux=True)(new)
        return count + 1, new, jnp.where(count > 0, size, jnp.inf), value, matrix

    infinite = jnp.full((), jnp.inf, start.dtype)
    blank = (jnp.zeros_like(start), jnp.eye(start.size, dtype=start.dtype))
    _, unknown, size, _, matrix = jax.lax.while_loop(
        proceed, body, (jnp.asarray(0), fixed(start), infinite, *blank)
    )
    unknown, matrix = fixed(jnp.where(size <= small, unknown, jnp.nan)), fixed(matrix)
    # One more step, with the matrix held: its value is Newton's, its derivative the implicit one.
    theta, q = unravel(unknown - jnp.linalg.solve(matrix, gap(unknown, x, p)))
    after = jax.vmap(lambda a, v: advance(stage, a, theta, v))(x, u)
    return after, q, theta

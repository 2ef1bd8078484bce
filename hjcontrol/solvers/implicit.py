r"""How a solution moves with the problem, by the implicit function theorem.

    g(theta, c) = dJ/dtheta = 0        H dtheta = -dg/dc dc        H = d2J/dtheta2
    bounds: weights pressed on a bound move with it, the others solve  H_FF dF = -dg_F/dc dc - H_FA dA

c   whatever floating array the problem holds: a strength, a temperature, a sample's weight, the data

Up to `DENSE` weights H is formed and decomposed; flat directions (symmetries, along which g does not
change) are left out, as its least-norm solution leaves them. Above, conjugate gradients with the block
preconditioner; where their residual stays above `eps^REACHED` of the
right side the derivative is NaN.
Source: Griewank & Walther, Evaluating Derivatives, 2nd ed., chapter 15; Bengio, Neural Computation 12
(2000), 1889-1900.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array

from hjcontrol.control import ControlProblem, Free, backpropagate, curvature
from hjcontrol.networks import Weights
from hjcontrol.solvers.blocks import preconditioner

DENSE = 500  # weights
REACHED = 0.4  # 6e-7 in float64
Flat = Callable[[Array], Array]


def moved(problem: ControlProblem, weights: Weights, along: Any) -> Weights:
    """The change of the stationary `weights` as the problem changes `along` (a problem whose leaves are
    tangents, `None` where there is none).

    **Raises:** `ValueError` for constraints, or a control set that is not made of bounds.
    """
    bounded = not isinstance(problem.control_set, Free)
    if problem.terminal_constraint is not None or problem.path:
        raise ValueError("run: it has no derivative where the problem has constraints.")
    if bounded and not problem.control_set.elementwise:
        raise ValueError(
            "run: it has a derivative where weights are free or have bounds of their own; found "
            f"{type(problem.control_set).__name__}."
        )
    slope = lambda p: jax.grad(p.objective)(weights)
    gradient, change = eqx.filter_jvp(slope, (problem,), (along,))
    flat, unravel = ravel_pytree(weights)
    product = curvature(problem, weights)
    full: Flat = lambda v: ravel_pytree(product(unravel(v)))[0]
    inverse = _blocks(problem, weights) if flat.size > DENSE else None
    right = -ravel_pytree(change)[0]
    if not bounded:
        return unravel(_solution(full, right, inverse))
    zero = jnp.zeros((), flat.dtype)
    pressed, _ = problem.control_set.active(weights, gradient, zero)
    edge = lambda p: p.control_set.active(weights, gradient, zero)[1]
    held = ravel_pytree(eqx.filter_jvp(edge, (problem,), (along,))[1])[0]
    at = ravel_pytree(pressed)[0]
    inside: Flat = lambda v: jnp.where(at, 0.0, v)
    own = None if inverse is None else (lambda v: inside(inverse(inside(v))) + (v - inside(v)))
    free: Flat = lambda v: inside(full(inside(v))) + (v - inside(v))
    held = held - inside(held)
    return unravel(held + inside(_solution(free, inside(right - full(held)), own)))


def _blocks(problem: ControlProblem, weights: Weights) -> Flat:
    _, states, costates, _ = backpropagate(problem, weights)
    solve = preconditioner(problem, weights, states, costates)
    unravel = ravel_pytree(weights)[1]
    return lambda v: ravel_pytree(solve(unravel(v)))[0]


def _solution(product: Flat, right: Array, inverse: Flat | None) -> Array:
    """`H^-1 right`, itself linear: it may be transposed."""
    eps = jnp.finfo(right.dtype).eps

    def decomposed(product: Flat, b: Array) -> Array:
        H = jax.vmap(product)(jnp.eye(b.size, dtype=b.dtype))
        values, Q = jnp.linalg.eigh(0.5 * (H + H.T))
        seen = jnp.abs(values) > b.size * eps * jnp.max(jnp.abs(values))
        return Q @ (jnp.where(seen, Q.T @ b, 0.0) / jnp.where(seen, values, 1.0))

    def iterated(product: Flat, b: Array) -> Array:
        tol = float(eps) ** (2 / 3)
        found, _ = jax.scipy.sparse.linalg.cg(product, b, tol=tol, maxiter=5000, M=inverse)
        left = jnp.linalg.norm(product(found) - b) / jnp.linalg.norm(b)
        return jnp.where((left <= float(eps) ** REACHED) | jnp.all(b == 0), found, jnp.nan)

    solve = decomposed if inverse is None else iterated
    return jax.lax.custom_linear_solve(product, right, solve, symmetric=True)

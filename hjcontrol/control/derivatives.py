r"""Derivatives of the condensed problem: states and costates eliminated.

    g(theta) = dJ/dtheta          H v = d/ds g(theta + s v)   (forward over reverse:
                                       the second-order costate sweep)
    one reverse pass with a shift at every state gives all costates at once:  p_k = dJ/d shift_k
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from hjcontrol.control.problem import ControlProblem
from hjcontrol.control.trajectory import Trajectory
from hjcontrol.networks import Weights


def value_and_gradient(
    problem: ControlProblem, weights: Weights
) -> tuple[Float[Array, ""], Weights]:
    """`J` and `dJ/dtheta`."""
    return jax.value_and_grad(problem.objective)(weights)


def backpropagate(
    problem: ControlProblem, weights: Weights
) -> tuple[Float[Array, ""], Trajectory, Trajectory, Weights]:
    """`J`, states, costates and gradient in one reverse pass."""
    one = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), (problem.inputs, problem.targets)
    )
    _, shapes = jax.eval_shape(problem.sample_cost, weights, *one)
    n = problem.num_samples
    zeros = jax.tree.map(lambda s: jnp.zeros((n, *s.shape), s.dtype), shapes)

    def objective(weights, shifts):
        cost, states = jax.vmap(lambda x, y, s: problem.sample_cost(weights, x, y, s))(
            problem.inputs, problem.targets, shifts
        )
        return jnp.mean(cost) + problem.total_weight_cost(weights), states

    (value, states), (gradient, costates) = jax.value_and_grad(
        objective, argnums=(0, 1), has_aux=True
    )(weights, zeros)
    return value, Trajectory(*states), Trajectory(*costates), gradient


def curvature(problem: ControlProblem, weights: Weights) -> Callable[[Weights], Weights]:
    """The map `v -> H v` at `weights`, the sweep along the states and costates done once."""
    _, product = jax.linearize(jax.grad(problem.objective), weights)
    return product

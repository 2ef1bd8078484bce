r"""Derivatives of the condensed problem: states and costates eliminated.

g(theta) = dJ/dtheta          H v = d/ds g(theta + s v)   (forward over reverse:
                                   the second-order costate sweep)
one reverse pass with a shift at every state gives all costates at once:  p_k = dJ/d shift_k
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from hjcontrol._ground.arguments import admits
from hjcontrol._ground.meshes import automatic
from hjcontrol._ground.shapes import of_one
from hjcontrol.control.chunks import mean_over_chunks
from hjcontrol.control.problem import ControlProblem
from hjcontrol.control.streams import held
from hjcontrol.control.trajectory import Trajectory
from hjcontrol.networks import Weights


@admits()
def value_and_gradient(
    problem: ControlProblem, weights: Weights
) -> tuple[Float[Array, ""], Weights]:
    """`J` and `dJ/dtheta`."""
    weights = automatic(weights)
    return mean_over_chunks(problem, lambda part: jax.value_and_grad(part.objective)(weights))


@admits()
def backpropagate(
    problem: ControlProblem, weights: Weights
) -> tuple[Float[Array, ""], Trajectory, Trajectory, Weights]:
    """`J`, states, costates and gradient in one reverse pass."""
    held(problem)
    n = problem.num_samples
    x, y, u = of_one((problem.inputs, problem.targets, problem.given))
    weights = automatic(weights)
    problem.chain.check_weights("backpropagate", weights)
    _, shapes = jax.eval_shape(problem.sample_cost, weights, x, y, None, u)
    zeros = jax.tree.map(lambda s: jnp.zeros((n, *s.shape), s.dtype), shapes)

    def objective(weights, shifts):
        cost, states = jax.vmap(lambda x, y, s, u: problem.sample_cost(weights, x, y, s, u))(
            problem.inputs, problem.targets, shifts, problem.given
        )
        return jnp.mean(cost) + problem.total_weight_cost(weights), states

    (value, states), (gradient, costates) = jax.value_and_grad(
        objective, argnums=(0, 1), has_aux=True
    )(weights, zeros)
    return value, Trajectory(*states), Trajectory(*costates), gradient


@admits()
def curvature(problem: ControlProblem, weights: Weights) -> Callable[[Weights], Weights]:
    """The map `v -> H v` at `weights`, the sweep along the states and costates done once; in chunks, once
    a product, for nothing of it is kept."""
    if problem.chunked:
        return _by_chunks(problem, weights, curvature)
    _, product = jax.linearize(jax.grad(problem.objective), weights)
    return product


@admits()
def gauss_newton_curvature(
    problem: ControlProblem, weights: Weights
) -> Callable[[Weights], Weights]:
    """The map `v -> G v`: states linearised in the weights, the costs' own curvature kept.

    `G = L^T C_xx L + L^T C_xt + C_tx L + C_tt`, where `L v` moves the states and `C` is the cost as a
    function of states and weights. Positive semidefinite when the costs are convex.
    """
    if problem.chunked:
        return _by_chunks(problem, weights, gauss_newton_curvature)
    costs = jax.vmap(
        lambda states, y, u, w: problem.cost_along(w, states, y, u), in_axes=(0, 0, 0, None)
    )

    def cost(states, w):
        each = costs(states, problem.targets, problem.given, w)
        return jnp.mean(each) + problem.total_weight_cost(w)

    def states_of(w, task):
        trajectory = task.rollout(w)
        return trajectory.runs, trajectory.final

    runs = problem.chain.runs
    if all(run.stage.refusal("forward") is None for run in runs):
        states, forward = jax.linearize(lambda w: states_of(w, problem), weights)
        backward = jax.linear_transpose(forward, weights)
    else:  # an adjoint for each direction: no program has both
        stages = [run.stage.forward() for run in runs]
        other = eqx.tree_at(lambda p: [r.stage for r in p.chain.runs], problem, stages)
        forward = lambda v: jax.jvp(lambda w: states_of(w, other), (weights,), (v,))[1]
        states, backward = jax.vjp(lambda w: states_of(w, problem), weights)
    _, hessian = jax.linearize(jax.grad(cost, argnums=(0, 1)), states, weights)

    def product(v: Weights) -> Weights:
        in_states, in_weights = hessian(forward(v), v)
        return jax.tree.map(jnp.add, backward(in_states)[0], in_weights)

    return product


def _by_chunks(
    problem: ControlProblem, weights: Weights, of: Callable[..., Callable[[Weights], Weights]]
) -> Callable[[Weights], Weights]:
    return lambda v: mean_over_chunks(problem, lambda part: of(part, weights)(v))


def sketched(
    problem: ControlProblem, weights: Weights
) -> tuple[Float[Array, ""], Trajectory, Trajectory, Weights]:
    """`backpropagate` of a problem in chunks, with states and costates of the first chunk alone."""
    value, gradient = value_and_gradient(problem, weights)
    few = problem.first_chunk
    _, states, costates, _ = backpropagate(few, weights)
    share = jnp.asarray(few.num_samples / problem.num_samples, problem.dtype)  # p holds the 1/n
    return value, states, jax.tree.map(lambda p: p * share, costates), gradient


def totals(problem: ControlProblem, weights: Weights) -> tuple[Any, None, None, Weights]:
    """`backpropagate` without states and costates: none are held beyond a chunk's."""
    value, gradient = value_and_gradient(problem, weights)
    return value, None, None, gradient

r"""The objective of a problem, and the sums that it is made of.

J(theta) = (1/n) sum_i [ Phi(x_K^i, y^i) + sum_k l(x_k^i, theta_k) ] + sum_k r(theta_k)
           data_cost: a mean of sample_cost                            weight_cost
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from hjcontrol.control.chunks import mean_over_chunks
from hjcontrol.control.streams import held
from hjcontrol.networks import Weights, advance
from hjcontrol.networks.given import Given, reference_of


def weight_cost(problem: Any, weights: Weights) -> Float[Array, ""]:
    """`sum_k r(theta_k)`, and what couples the stages of each run."""
    total = jnp.zeros((), problem.dtype)
    for theta in weights:
        costs = jax.vmap(lambda th: jnp.asarray(problem.weight_cost(th), problem.dtype))
        total = total + jnp.sum(costs(theta)) if jax.tree.leaves(theta) else total
        total = total + problem.coupling(theta) if problem.couples else total
    return total + sum(c.whole(weights) for c in problem.running if c.couples)


def data_cost(problem: Any, weights: Weights) -> Float[Array, ""]:
    """The mean of the samples' costs."""
    if problem.chunked:  # what a chunk's derivative needs is computed again
        return mean_over_chunks(
            problem, lambda p: jax.checkpoint(lambda w: p.data_cost(w))(weights)
        )
    held(problem)
    cost = lambda x, y, u: problem.sample_cost(weights, x, y, given=u)[0]
    return jnp.mean(jax.vmap(cost)(problem.inputs, problem.targets, problem.given))


def sample_cost(
    problem: Any, weights: Weights, x: PyTree[Array], y: PyTree[Array], shifts: Any, given: Any
) -> tuple[Float[Array, ""], tuple[tuple[PyTree, ...], PyTree]]:
    """Cost of one sample and its states, each state moved by its shift, where there are shifts."""

    def body(r: int, carry: Any, stage: Any, theta: Any, u: Any, *shift: Any) -> tuple[Any, Any]:
        x, cost = carry
        x = jax.tree.map(jnp.add, x, *shift) if shift else x
        return (advance(stage, x, theta, u), cost + problem.state_cost(x, theta, u)), x

    start = (x, jnp.zeros((), problem.dtype))
    along = () if shifts is None else (shifts[0],)
    (x, cost), runs = problem.chain.fold(body, start, weights, *along, given=given)
    x = x if shifts is None else jax.tree.map(jnp.add, x, shifts[1])
    return cost + problem.terminal_cost(x, y), (runs, x)


def cost_along(
    problem: Any, weights: Weights, states: tuple, y: PyTree[Array], given: Any
) -> Float[Array, ""]:
    """Cost of one sample along states that are given."""
    cost = problem.terminal_cost(states[1], y)
    given = (None,) * len(weights) if given is None else given
    for run, theta, xs, u in zip(problem.chain.runs, weights, states[0], given, strict=True):
        read = reference_of(u)
        paid = lambda x, th, r: jnp.asarray(
            problem.state_cost(x, th, Given(None, r)), problem.dtype
        )
        theta = jax.tree.map(lambda a: a[0], theta) if run.tied else theta
        stages = jax.vmap(paid, in_axes=(0, None if run.tied else 0, 0))
        cost = cost + jnp.sum(stages(xs, theta, read))
    return cost

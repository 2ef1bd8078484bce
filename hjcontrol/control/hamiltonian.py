r"""The Hamiltonian of a stage, its derivatives, and the costate.

    H_k(x, p, theta) = r(theta) + sum_i [ l(x^i, theta)/n + p_{k+1}^i . F_k(x^i, theta) ]

    p_K^i = (1/n) dPhi/dx        p_k^i = dH_k/dx^i        dJ/dtheta_k = dH_k/dtheta

Minimum principle, one sign: the costate is p_k = +dJ/dx_k, so it *is* a backprop cotangent.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from hjcontrol.control.problem import ControlProblem
from hjcontrol.control.trajectory import Trajectory
from hjcontrol.networks import AbstractStage, Weights


def inner(p: PyTree[Array], v: PyTree[Array]) -> Float[Array, ""]:
    """`p . v`, over all leaves."""
    return jax.tree.reduce(jnp.add, jax.tree.map(lambda a, b: jnp.sum(a * b), p, v), 0.0)


def sample_hamiltonian(
    problem: ControlProblem, stage: AbstractStage, x: PyTree, p_next: PyTree, theta: PyTree
) -> Float[Array, ""]:
    """One sample's share of `H_k`: `l(x, theta)/n + p_next . F_k(x, theta)`."""
    cost = problem.state_cost(x, theta) / problem.num_samples
    return cost + inner(p_next, stage.step(x, theta))


def hamiltonian(
    problem: ControlProblem, k: int, x: PyTree, p_next: PyTree, theta: PyTree
) -> Float[Array, ""]:
    """`H_k` of the whole ensemble. `x` and `p_next`: every leaf `(n, ...)`; `theta`: one stage's."""
    stage = problem.chain[k]
    share = lambda a, b: sample_hamiltonian(problem, stage, a, b, theta)
    return jnp.sum(jax.vmap(share)(x, p_next)) + problem.weight_cost(theta)


def terminal_costate(problem: ControlProblem, final: PyTree) -> PyTree[Array]:
    """`p_K = (1/n) dPhi/dx`, every leaf `(n, ...)`."""
    slope = jax.vmap(jax.grad(problem.terminal_cost))(final, problem.targets)
    return jax.tree.map(lambda a: a / problem.num_samples, slope)


def costate(
    problem: ControlProblem, weights: Weights, states: Trajectory | None = None
) -> tuple[Trajectory, Weights]:
    """Costate recursion `p_k = dH_k/dx` along a rollout, and `dH_k/dtheta` of every stage.

    **Returns:** the costates, shaped like the states, and the gradient `dJ/dtheta`, shaped like the
    weights. Uses reverse mode stage by stage; an independent check is `hj.verify`.
    """
    states = problem.rollout(weights) if states is None else states
    p = terminal_costate(problem, states.final)
    final, runs, gradient = p, [], []
    for run, theta, xs in reversed(
        list(zip(problem.chain.runs, weights, states.runs, strict=True))
    ):

        def body(p_next: Any, stage: AbstractStage, slices: Any) -> tuple[Any, Any]:
            th, x = slices
            slope = jax.grad(
                lambda a, c: (
                    jnp.sum(
                        jax.vmap(lambda u, q: sample_hamiltonian(problem, stage, u, q, c))(
                            a, p_next
                        )
                    )
                    + problem.weight_cost(c)
                ),
                argnums=(0, 1),
            )
            p, g = slope(x, th)
            return p, (p, g)

        depth_first = jax.tree.map(lambda a: jnp.moveaxis(a, 1, 0), xs)
        p, (ps, gs) = run.scan(body, p, (theta, depth_first), reverse=True)
        runs.append(jax.tree.map(lambda a: jnp.moveaxis(a, 0, 1), ps))
        gradient.append(gs)
    return Trajectory(tuple(reversed(runs)), final), tuple(reversed(gradient))

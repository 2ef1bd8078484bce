r"""The Hamiltonian of a stage, its derivatives, and the costate.

    H_k(x, p, theta) = r(theta) + sum_i [ l(x^i, theta)/n + p_{k+1}^i . F_k(x^i, theta) ]

    p_K^i = (1/n) dPhi/dx        p_k^i = dH_k/dx^i        dJ/dtheta_k = dH_k/dtheta

A cost c that couples stages (`Smoothing`) is no part of a stage's H: its slope is added,
dJ/dtheta_k = dH_k/dtheta + dc/dtheta_k.

Minimum principle, one sign: the costate is p_k = +dJ/dx_k, so it *is* a backprop cotangent.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from hjcontrol._ground.arguments import admits
from hjcontrol.control.problem import ControlProblem
from hjcontrol.control.trajectory import Trajectory, swapped
from hjcontrol.networks import AbstractStage, Run, Weights, advance
from hjcontrol.networks.given import mapped


@admits()
def inner(p: PyTree[Array], v: PyTree[Array]) -> Float[Array, ""]:
    """`p . v`, over all leaves.

    **Raises:** `ValueError` if the two are not shaped alike.
    """
    shapes = [jax.tree.map(jnp.shape, tree) for tree in (p, v)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"inner: `p` and `v` must be shaped alike; found {shapes[0]} and {shapes[1]}."
        )
    return jax.tree.reduce(jnp.add, jax.tree.map(lambda a, b: jnp.sum(a * b), p, v), 0.0)


@admits()
def sample_hamiltonian(
    problem: ControlProblem,
    stage: AbstractStage,
    x: PyTree,
    p_next: PyTree,
    theta: PyTree,
    u: PyTree = None,
) -> Float[Array, ""]:
    """One sample's share of `H_k`: `l(x, theta)/n + p_next . F_k(x, theta, u)`."""
    cost = problem.state_cost(x, theta, u) / problem.num_samples
    return cost + inner(p_next, advance(stage, x, theta, u))


@admits(k=">= 0")
def hamiltonian(
    problem: ControlProblem, k: int, x: PyTree, p_next: PyTree, theta: PyTree
) -> Float[Array, ""]:
    """`H_k` of the whole ensemble. `x` and `p_next`: every leaf `(n, ...)`; `theta`: one stage's."""
    stage, u = problem.chain[k], given_at(problem, k)
    share = lambda a, b, u: sample_hamiltonian(problem, stage, a, b, theta, u)
    return jnp.sum(jax.vmap(share)(x, p_next, u)) + problem.weight_cost(theta)


@admits(k=">= 0")
def given_at(problem: ControlProblem, k: int) -> PyTree[Array]:
    """What stage `k` reads, samples in front; `None` if nothing."""
    for run, u in zip(problem.chain.runs, problem.given, strict=True):
        if k < run.length:
            here = lambda tree, k=k: jax.tree.map(lambda a: a[:, k], tree)
            return mapped(u, here if run.stage.reads == "forcing" else lambda v: v, here)
        k -= run.length
    raise ValueError(
        f"given_at: stages are numbered 0 to {len(problem.chain) - 1}; found `k` beyond."
    )


@admits()
def terminal_costate(problem: ControlProblem, final: PyTree) -> PyTree[Array]:
    """`p_K = (1/n) dPhi/dx`, every leaf `(n, ...)`."""
    slope = jax.vmap(jax.grad(problem.terminal_cost))(final, problem.targets)
    return jax.tree.map(lambda a: a / problem.num_samples, slope)


@admits()
def costate(
    problem: ControlProblem, weights: Weights, states: Trajectory | None = None
) -> tuple[Trajectory, Weights]:
    """Costate recursion `p_k = dH_k/dx` along a rollout, and `dJ/dtheta` of every set of weights:
    `dH_k/dtheta`, summed over the stages that share them, what the weights cost counted once.

    **Returns:** the costates, shaped like the states, and the gradient, shaped like the weights. Uses
    reverse mode stage by stage; an independent check is `hj.verify`.
    """
    states = problem.rollout(weights) if states is None else states

    def body(r: int, p_next: Any, stage: AbstractStage, theta: Any, u: Any, x: Any) -> Any:
        def share(a: Any, c: Any) -> Float[Array, ""]:
            one = lambda a, q, u: sample_hamiltonian(problem, stage, a, q, c, u)
            return jnp.sum(jax.vmap(one)(a, p_next, u))

        p, g = jax.grad(share, argnums=(0, 1))(x, theta)
        return p, (p, g)

    final = terminal_costate(problem, states.final)
    _, outs = problem.fold(body, final, weights, states.runs, reverse=True)
    costates, slopes = zip(*outs, strict=True)
    gradient = tuple(map(Run.gather, problem.chain.runs, slopes))
    paid = jax.grad(problem.total_weight_cost)(weights)
    return Trajectory(swapped(costates), final), jax.tree.map(jnp.add, gradient, paid)

r"""How far the Hamiltonian of each stage can be lowered by its own weights.

    H_k(x, p, theta_k) - min_{theta in Theta} H_k(x, p, theta)      >= 0

States and costates held; stages tied in time have one Hamiltonian, the sum of theirs, which stands at the
first of them. In continuous time Pontryagin makes this zero at an optimum. In discrete time it is so only
where the reachable velocities form a convex set, and the minimum here is sought by a few descent steps
from perturbed starts: a diagnostic, never a proof, in either direction.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from hjcontrol.control import ControlProblem, Trajectory
from hjcontrol.networks import Weights
from hjcontrol.verification.ensemble import rms
from hjcontrol.verification.probes import directions
from hjcontrol.verification.stagewise import placed, stagewise

STARTS = 3
STEPS = 20


def minimum_gap(
    problem: ControlProblem,
    weights: Weights,
    states: Trajectory,
    costates: Trajectory,
    key: Key[Array, ""],
) -> Float[Array, " stages"]:
    """The decrease found in `H_k`, stage by stage."""
    ask = lambda value, theta, _, k, run: lowering(problem, value, theta, k, run)
    return placed(problem, stagewise(problem, weights, states, costates, ask, key))


def lowering(
    problem: ControlProblem, value: Any, theta: PyTree, key: Key[Array, ""], run: int
) -> Float[Array, ""]:
    """The decrease that a few descents of `value` from `theta` and from near it find."""
    if not jax.tree.leaves(theta):
        return jnp.zeros((), problem.dtype)

    def start(d: PyTree) -> PyTree:
        away = lambda a, e: a + 0.1 * jnp.maximum(rms(a), 0.01).astype(a.dtype) * e
        return problem.control_set.project_stage(jax.tree.map(away, theta, d), run)

    def descend(c: PyTree) -> Float[Array, ""]:
        slope = jax.value_and_grad(value)

        def step(carry: Any, _: None) -> tuple[Any, None]:
            c, best, g, rate = carry
            trial = jax.tree.map(lambda a, b: a - rate.astype(a.dtype) * b, c, g)
            trial = problem.control_set.project_stage(trial, run)
            there, g_there = slope(trial)
            better = there < best
            choose = lambda a, b: jnp.where(better, a, b)
            kept = jax.tree.map(choose, (trial, there, g_there), (c, best, g))
            return (*kept, rate * choose(2.0, 0.25)), None

        best, g = slope(c)
        length = jnp.sqrt(sum(jnp.sum(a**2) for a in jax.tree.leaves(g)))
        reach = 0.1 * jnp.sqrt(sum(jnp.sum(a**2) for a in jax.tree.leaves(c)))
        rate = jnp.where(
            length > 0, jnp.maximum(reach, 0.1) / jnp.where(length > 0, length, 1.0), 1.0
        )
        (_, best, _, _), _ = jax.lax.scan(step, (c, best, g, rate), None, length=STEPS)
        return best

    starts = jax.vmap(start)(directions(key, theta, STARTS))
    starts = jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), theta, starts)
    # The starts run one after another: the batch of samples already fills the machine.
    return jnp.maximum(value(theta) - jnp.min(jax.lax.map(descend, starts)), 0.0)

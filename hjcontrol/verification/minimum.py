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

from hjcontrol.control import ControlProblem, Trajectory, sample_hamiltonian
from hjcontrol.networks import Run, Weights
from hjcontrol.verification.pairing import rms
from hjcontrol.verification.probes import directions

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
    p, by_run, given = costates.final, [], problem.given_by_depth
    for r in reversed(range(len(problem.chain.runs))):
        run, theta = problem.chain.runs[r], weights[r]
        xs, ps = (
            jax.tree.map(lambda a: jnp.moveaxis(a, 1, 0), t.runs[r]) for t in (states, costates)
        )
        key, sub = jax.random.split(key)

        def ahead(p_next: Any, stage: Any, theta: Any, u: Any, p: Any) -> tuple[Any, Any]:
            return p, p_next

        if run.tied:
            p, nexts = run.scan(ahead, p, theta, ps, reverse=True)
            value = _along(problem, run, xs, nexts, given[r])
            own = jax.tree.map(lambda a: a[0], theta)
            by_run.append(run.place(_lowering(problem, value, own, sub)[None]))
            continue

        def body(p_next: Any, stage: Any, th: Any, u: Any, slices: Any) -> tuple[Any, Any]:
            x, p, k = slices

            def value(c: PyTree) -> Float[Array, ""]:
                share = lambda a, q, u: sample_hamiltonian(problem, stage, a, q, c, u)
                return jnp.sum(jax.vmap(share)(x, p_next, u)) + problem.weight_cost(c)

            return p, _lowering(problem, value, th, k)

        keys = jax.random.split(sub, run.length)
        p, found = run.scan(body, p, theta, (xs, ps, keys), given[r], reverse=True)
        by_run.append(found)
    return jnp.concatenate(by_run[::-1])


def _along(problem: ControlProblem, run: Run, xs: PyTree, nexts: PyTree, given: PyTree) -> Any:
    """The Hamiltonians of tied stages, summed: what their one set of weights can lower."""

    def value(c: PyTree) -> Float[Array, ""]:
        def body(total: Any, stage: Any, th: Any, u: Any, slices: Any) -> tuple[Any, None]:
            share = lambda a, q, u: sample_hamiltonian(problem, stage, a, q, th, u)
            return total + jnp.sum(jax.vmap(share)(slices[0], slices[1], u)), None

        start = jnp.zeros((), problem.dtype)
        one = jax.tree.map(lambda a: a[None], c)
        total, _ = run.scan(body, start, one, (xs, nexts), given)
        return total + problem.weight_cost(c)

    return value


def _lowering(
    problem: ControlProblem, value: Any, theta: PyTree, key: Key[Array, ""]
) -> Float[Array, ""]:
    """The decrease that a few descents of `value` from `theta` and from near it find."""
    if not jax.tree.leaves(theta):
        return jnp.zeros((), problem.dtype)

    def start(d: PyTree) -> PyTree:
        return problem.control_set.project(
            jax.tree.map(
                lambda a, e: a + 0.1 * jnp.maximum(rms(a), 0.01).astype(a.dtype) * e, theta, d
            )
        )

    def descend(c: PyTree) -> Float[Array, ""]:
        slope = jax.value_and_grad(value)

        def step(carry: Any, _: None) -> tuple[Any, None]:
            c, best, g, rate = carry
            trial = jax.tree.map(lambda a, b: a - rate.astype(a.dtype) * b, c, g)
            trial = problem.control_set.project(trial)
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

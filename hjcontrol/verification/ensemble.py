"""A stage of the whole ensemble, its rules set aside, and sums over samples: what routes share."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from hjcontrol.control import ControlProblem
from hjcontrol.networks import AbstractStage, Run, Weights, advance
from hjcontrol.verification.inlining import inlined


def primal(problem: ControlProblem, stage: AbstractStage) -> Any:
    """`(x, theta, u) -> (l/n, F)` of the ensemble, custom rules inlined: leaves `(n, ...)`."""

    def one(x: PyTree, theta: PyTree, u: PyTree) -> tuple[Array, PyTree]:
        cost = jnp.asarray(problem.state_cost(x, theta, u), problem.dtype)
        return cost / problem.num_samples, advance(stage, x, theta, u)

    return jax.vmap(inlined(one), in_axes=(0, None, 0))


def with_coupling(problem: ControlProblem, run: Run, theta: PyTree, g: PyTree) -> PyTree:
    """The gradient of a run's weights with what couples its stages added."""
    if not problem.couples or run.tied or not jax.tree.leaves(theta):
        return g
    return jax.tree.map(jnp.add, g, jax.grad(inlined(problem.coupling))(theta))


def per_sample(p: PyTree, v: PyTree) -> Float[Array, " n"]:
    """`p^i . v^i` for every sample."""
    dot = lambda a, b: jnp.sum((a * b).reshape(a.shape[0], -1), axis=1)
    return sum(jax.tree.leaves(jax.tree.map(dot, p, v)))


def rms(a: Array) -> Float[Array, ""]:
    """Root mean square over samples and probes."""
    return jnp.sqrt(jnp.mean(a**2))


def summands(problem: ControlProblem, weights: Weights, along: Weights) -> Float[Array, " stages"]:
    """`sum_i |dJ^i/dtheta_k . w_k| + |dr/dtheta_k . w_k|` for one direction `w_k` a stage, by forward
    mode: the size of what `dJ/dtheta_k . w_k` is summed from, which stays where the gradient vanishes."""
    by_run = []
    for r, (run, theta, w) in enumerate(zip(problem.chain.runs, weights, along, strict=True)):
        if not jax.tree.leaves(theta):
            by_run.append(jnp.zeros(run.length, problem.dtype))
            continue

        def shares(theta: PyTree, r: int = r) -> tuple[Array, Array]:
            moved = (*weights[:r], theta, *weights[r + 1 :])
            cost = lambda x, y, u: problem.sample_cost(moved, x, y, given=u)[0]
            each = jax.vmap(inlined(cost))(problem.inputs, problem.targets, problem.given)
            paid = inlined(problem.total_weight_cost)(moved)
            return each / problem.num_samples, paid

        def size(k: Array, theta: PyTree = theta, w: PyTree = w, shares: Any = shares) -> Array:
            only = jax.tree.map(lambda a: jnp.zeros_like(a).at[k].set(a[k]), w)
            _, (each, paid) = jax.jvp(shares, (theta,), (only,))
            return jnp.sum(jnp.abs(each)) + jnp.abs(paid)

        by_run.append(run.place(jax.lax.map(size, jnp.arange(run.sets))))
    return jnp.concatenate(by_run)

r"""Constraints along depth and their multipliers, judged from the problem as it was stated.

    c <= 0  or  c = 0        mu >= 0        min(mu, -c) = 0        p_k - dH_k/dx = mu_k . dc/dx

H_k is the Hamiltonian of the costs alone: the price of the constraints is no part of it, so that what the
costate jumps by at depth k is compared with the multiplier that is claimed there. p is the costate that
came with the solution, or that of its rollout; mu = nu / n. At x_K the terminal cost's slope takes
the place of dH/dx, and that of a terminal constraint is added.
"""

import itertools
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from hjcontrol.control import Budget, ControlProblem, Trajectory
from hjcontrol.control.control_sets import largest
from hjcontrol.control.hamiltonians import inner
from hjcontrol.control.path_checks import names_of
from hjcontrol.control.pricing import all_values, path_values
from hjcontrol.control.references import References
from hjcontrol.networks import Weights, advance
from hjcontrol.networks.given import reference_of
from hjcontrol.verification.inlining import inlined

Path = dict[str, Array]


class Claimed(NamedTuple):
    """The problem as stated, and the multipliers that a solver gives for its constraints."""

    problem: ControlProblem
    terminal: Float[Array, "n m"] | None
    path: Path


class PathFound(NamedTuple):
    """Of each constraint its values and `mu`, by name; by depth what is left of the costate's jump, as a
    share of the largest costate; `end`: values and `mu` of the terminal constraint."""

    values: Path
    mu: Path
    jump: Float[Array, " depths"]
    end: tuple[Float[Array, "n m"], Float[Array, "n m"]] | None


@eqx.filter_jit
def path_found(claimed: Claimed, weights: Weights, costates: Trajectory) -> PathFound:
    """The numbers."""
    problem, n = claimed.problem, claimed.problem.num_samples
    states = problem.rollout(weights)
    values = path_values(problem, weights, states) if problem.path else {}
    budgets = {
        name
        for name, c in zip(names_of(problem.path), problem.path, strict=True)
        if isinstance(c, Budget)
    }
    mu = {name: nu if name in budgets else nu / n for name, nu in claimed.path.items()}
    left = _left(problem, weights, states, costates, mu)
    end = _end(claimed, states.final, costates.final, mu)
    size = jnp.max(jnp.stack([largest(p) for p in (*costates.runs, costates.final)]))
    jump = jnp.concatenate([left, end[None]])
    rule, nu = problem.terminal_constraint, claimed.terminal
    last = None
    if rule is not None:
        g = rule.values(problem, states.final)
        last = g, jnp.zeros_like(g) if nu is None else nu / n
    return PathFound(values, mu, jump / jnp.maximum(size, jnp.finfo(size.dtype).tiny), last)


def _left(
    problem: ControlProblem, weights: Weights, states: Trajectory, costates: Trajectory, mu: Path
) -> Float[Array, " stages"]:
    """Largest entry of `p_k - dH_k/dx - mu_k . dc/dx` at every stage."""
    n, depth, runs = problem.num_samples, len(problem.chain), problem.chain.runs
    ends = [0, *itertools.accumulate(run.length for run in runs)]
    places = [slice(*pair) for pair in itertools.pairwise(ends)]
    along = tuple({name: m[:, p] for name, m in mu.items() if m.ndim} for p in places)
    named = list(zip(names_of(problem.path), problem.path, strict=True))

    def body(
        r: int, p_next: Any, stage: Any, theta: Any, u: Any, x: Any, p: Any, here: Any
    ) -> tuple[Any, Array]:
        def share(x: PyTree, q: PyTree, u: Any, here: Path) -> Array:
            paid = jnp.asarray(problem.state_cost(x, theta, u), problem.dtype) / n
            paid = paid + inner(q, advance(stage, x, theta, u))
            for name, c in named:
                if name in here and any(c.imposed(depth)[places[r]]):
                    paid = paid + here[name] @ c.values(x, theta, reference_of(u))
            return paid

        slope = jax.vmap(jax.grad(inlined(share)))(x, p_next, u, here)
        return p, largest(jax.tree.map(jnp.subtract, p, slope))

    parts = (states.runs, costates.runs, along)
    return jnp.concatenate(problem.fold(body, costates.final, weights, *parts, reverse=True)[1])


def _end(claimed: Claimed, x: PyTree, p: PyTree, mu: Path) -> Float[Array, ""]:
    problem, n, depth = claimed.problem, claimed.problem.num_samples, len(claimed.problem.chain)
    last = (problem.references or References()).final(depth + 1, n)
    here = {name: m[:, depth] for name, m in mu.items() if m.ndim}
    named = list(zip(names_of(problem.path), problem.path, strict=True))
    ending, nu = problem.terminal_constraint, claimed.terminal

    def share(x: PyTree, y: PyTree, read: Any, nu: Any, here: Path) -> Array:
        paid = problem.terminal_cost(x, y)
        if ending is not None and nu is not None:
            paid = paid + nu @ ending(x, y)
        paid = paid / n
        for name, c in named:
            if name in here and c.imposed(depth)[depth]:
                paid = paid + here[name] @ c.values(x, (), read)
        return paid

    slope = jax.vmap(jax.grad(inlined(share)))(x, problem.targets, last, nu, here)
    return largest(jax.tree.map(jnp.subtract, p, slope))


@eqx.filter_jit
def _rows(claimed: Claimed, weights: Weights, active: Array) -> Float[Array, "active m"]:
    """The slopes of some constraints in the weights."""
    flat, unravel = ravel_pytree(weights)
    c, pull = jax.vjp(lambda v: all_values(claimed.problem, unravel(v)), flat)
    one = lambda j: pull(jnp.zeros_like(c).at[j].set(1.0))[0]
    return jax.lax.map(one, active, batch_size=64)


LARGEST = 20_000_000  # numbers in the slopes of the active constraints


def critical(claimed: Claimed, weights: Weights, small: float) -> Float[Array, "active m"] | None:
    """The slopes of the constraints that hold a point: equalities, and those with a multiplier above
    `small`; `None` if they are too many to write down. Directions that they leave alone are critical."""
    problem, held = claimed.problem, []
    if problem.terminal_constraint is not None and claimed.terminal is not None:
        nu = np.asarray(claimed.terminal)
        held.append(((nu > small) | (problem.terminal_constraint.kind == "=")).ravel())
    for name, c in zip(names_of(problem.path), problem.path, strict=True):
        nu = np.asarray(claimed.path[name])
        on = nu > small
        if c.kind == "==":
            where = True if isinstance(c, Budget) else c.imposed(len(problem.chain))
            on = np.broadcast_to(np.asarray(where), nu.shape[1:2] or ())
            on = np.broadcast_to(on[None, :, None], nu.shape) if nu.ndim else on
        held.append(np.ravel(on))
    active = np.flatnonzero(np.concatenate(held))
    size = sum(a.size for a in jax.tree.leaves(weights))
    if active.size * size > LARGEST:
        return None
    return _rows(claimed, weights, jnp.asarray(active))

r"""Transversality of free step lengths: depth as a control.

    x_{k+1} = x_k + h_k f(x_k, theta_k)     dJ/dh_k = sum_i p_{k+1}^i . f(x_k^i, theta_k) + (paid for h_k)

    h_k > 0:  dJ/dh_k = 0         h_k = 0:  dJ/dh_k >= 0         (complementarity; h_k >= 0 by its set)

dJ/dh_k is the Hamiltonian of the flow x' = f, with what is paid for its time: where every step is free, H
is zero all along, and not at the end only. The slope is made of states, costates and velocities
here, and so tests the costates that a solver claims; no gradient of ours enters. Tied stages share one h:
their slopes add up.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PyTree

from hjcontrol.control import ControlProblem, Trajectory
from hjcontrol.control.hamiltonians import inner
from hjcontrol.networks import FreeStep, Run, StepWeights, Weights


class Steps(NamedTuple):
    """One entry a stage, NaN where the step is not free: how far `h_k` is from its condition, `dJ/dh_k`,
    and `h_k`. Those of a tied run stand at its first stage."""

    violation: Float[Array, " stages"]
    slope: Float[Array, " stages"]
    length: Float[Array, " stages"]


def free_steps(
    problem: ControlProblem,
    weights: Weights,
    states: Trajectory,
    costates: Trajectory,
    of: ArrayLike = 1.0,
) -> Steps | None:
    """The condition at every free step; `None` if there is none. `of`: the unit of the gradient, in
    which it is projected (see `control.units`)."""
    of = jnp.asarray(of, problem.dtype)
    runs = problem.chain.runs
    if not any(isinstance(run.stage, FreeStep) for run in runs):
        return None
    p_end, slopes = costates.final, []
    along = zip(runs, weights, states.runs, costates.runs, problem.given_by_depth, strict=True)
    for run, theta, xs, ps, given in reversed(list(along)):
        slopes.append(_slopes(problem, run, theta, (xs, given), ps, p_end))
        p_end = jax.tree.map(lambda a: a[:, 0], ps)
    slopes = list(reversed(slopes))
    # Against the set of h by its own projection, u |h - P(h - slope / u)|, all other weights at rest.
    rest = jax.tree.map(jnp.zeros_like, weights)
    pushed = tuple(
        r if s is None else r._replace(h=s / of) for r, s in zip(rest, slopes, strict=True)
    )
    missed = problem.control_set.violation(weights, pushed)
    blank = lambda count: jnp.full(count, jnp.nan, problem.dtype)
    columns = []
    for run, theta, slope, miss in zip(runs, weights, slopes, missed, strict=True):
        found = (None,) * 3 if slope is None else (of * jnp.abs(miss.h), slope, theta.h)
        fill = lambda a, run=run: (
            blank(run.length) if a is None else jnp.concatenate([a, blank(run.length - run.sets)])
        )
        columns.append([fill(a) for a in found])
    return Steps(*(jnp.concatenate(parts) for parts in zip(*columns, strict=True)))


def _slopes(
    problem: ControlProblem,
    run: Run,
    theta: StepWeights,
    here: tuple[PyTree, PyTree],
    ps: PyTree,
    p_end: PyTree,
) -> Float[Array, " sets"] | None:
    """`dJ/dh` of a run's sets of weights."""
    if not isinstance(run.stage, FreeStep):
        return None
    xs, given = here
    depth = lambda tree: jax.tree.map(lambda a: jnp.moveaxis(a, 1, 0), tree)
    after = jax.tree.map(lambda a, e: jnp.concatenate([a[:, 1:], e[:, None]], axis=1), ps, p_end)

    def body(carry: None, stage: Any, th: StepWeights, u: Any, at: Any) -> tuple[None, Array]:
        x, q = at
        along = inner(q, jax.vmap(stage.rate, (0, None))(x, th))
        paid = lambda h: jnp.mean(
            jax.vmap(lambda a, v: jnp.asarray(problem.state_cost(a, th._replace(h=h), v), h.dtype))(
                x, u
            )
        )
        return None, along + jax.grad(paid)(th.h)

    by_stage = run.scan(body, None, theta, (depth(xs), depth(after)), given)[1]
    cost = lambda h: problem.total_weight_cost((theta._replace(h=h),))
    return run.gather(by_stage) + jax.grad(cost)(theta.h)

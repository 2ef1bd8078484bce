r"""Constancy of the Hamiltonian along depth, where nothing depends on time.

    dH/dt = H_x . x' + H_p . p' + H_theta . theta'  =  H_theta . theta'  =  0

Three statements, each with its own reason:

weights that vary    H_theta = 0 at an optimum: evidence of optimality. Stages `x + h f(x, theta)`
  from step to step   and their costates are the symplectic Euler method for min_theta H, so H is constant
                      to O(h) only, and  p_{k+1/2} . (x_{k+1} - x_k)/h + (l/n + r)/h,  p_{k+1/2}
                      the mean of two costates, to O(h^2)
tied weights         theta' = 0: constant whether they are optimal or not; to O(h), O(h^2) as above
pieces of a flow     theta' = 0 on a piece: constant there, optimal or not, as far as the integrator is
                      exact; the jumps from piece to piece vanish with the pieces' length at an optimum

The correction between the two discrete forms is known, so the O(h) drift it allows is too. Source:
Hairer, Lubich, Wanner, Geometric Numerical Integration, 2nd ed., section IX.3 (the modified Hamiltonian).

    dJ/dh_k = p_{k+1} . f(x_k, theta_k)        dJ/dT = sum_k (h_k / T) dJ/dh_k        (T = sum h_k)

A horizon that is free is optimal where dJ/dT = 0; as H is constant, H is then zero at the end. Costs paid
once a stage do not grow with h: they are no part of dJ/dh.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from hjcontrol.control import ControlProblem, Trajectory
from hjcontrol.networks import Flow, Residual, Run, Weights


class Levels(NamedTuple):
    """H along one run, one entry a stage: at its start; a second form (the symmetric one of discrete
    stages, or H at the end of a flow's piece); `dJ/dh`; and the lengths `h`."""

    first: Float[Array, " stages"]
    second: Float[Array, " stages"]
    slope: Float[Array, " stages"]
    length: Float[Array, " stages"]


def levels(
    problem: ControlProblem, weights: Weights, states: Trajectory, costates: Trajectory
) -> tuple[Levels | None, ...]:
    """H along every run; `None` where H depends on depth: stages that are no step of a flow, or costs
    that read references."""
    found, p_end, x_end = [], costates.final, states.final
    parts = zip(problem.chain.runs, weights, states.runs, costates.runs, strict=True)
    for run, theta, xs, ps in reversed(list(parts)):
        first = lambda tree: jax.tree.map(lambda a: a[:, 0], tree)
        if timed(run) and problem.references is None:
            both = ((xs, _shifted(xs, x_end)), (ps, _shifted(ps, p_end)))
            found.append(_of(problem, run, theta, *both))
        else:
            found.append(None)
        p_end, x_end = first(ps), first(xs)
    return tuple(reversed(found))


def timed(run: Run) -> bool:
    """Whether a run's stages are steps in time with a control that is held over each."""
    flow = isinstance(run.stage, Flow) and run.stage.control == "constant"
    return run.stage.reads != "forcing" and (flow or isinstance(run.stage, Residual))


def autonomous(run: Run) -> Array:
    """Whether every stage of the run has one drift, to the last bit."""
    leaves = [a for a in jax.tree.leaves(run.stage.drift) if hasattr(a, "shape")]
    same = [jnp.all(a == a[:1]) for a in leaves]
    return jnp.all(jnp.asarray(same)) if same else jnp.asarray(True)


def _of(problem: ControlProblem, run: Run, theta: PyTree, x: Any, p: Any) -> Levels:
    if isinstance(run.stage, Flow):
        return _flow(problem, run, theta, x, p)
    h = jnp.broadcast_to(run.stage.h.astype(problem.dtype), (run.length,))
    h = jnp.where(h > 0, h, jnp.nan)
    moved = jax.tree.map(lambda a, b: b - a, *x)
    along = _dot(p[1], moved)
    mean = _dot(jax.tree.map(lambda a, b: 0.5 * (a + b), *p), moved)
    paid = _paid(problem, run, theta, x[0])
    return Levels((along + paid) / h, (mean + paid) / h, along / h, h)


def _flow(problem: ControlProblem, run: Run, theta: PyTree, x: Any, p: Any) -> Levels:
    """At a piece's start, its running cost just paid: `p_k - (1/n) dl/dx`; and at its end."""
    depth = lambda tree: jax.tree.map(lambda a: jnp.moveaxis(a, 1, 0), tree)

    def body(carry: None, stage: Any, th: Any, u: Any, at: Any) -> tuple[None, Any]:
        x0, x1, p0, p1 = at
        rate = jax.vmap(stage.velocity, (None, 0, None))
        cost = lambda a: (
            jnp.sum(jax.vmap(lambda b: _state(problem, b, th))(a)) / len(jax.tree.leaves(a)[0])
        )
        p0 = jax.tree.map(jnp.subtract, p0, jax.grad(cost)(x0))
        whole = lambda q, v: sum(jax.tree.leaves(jax.tree.map(lambda a, b: jnp.sum(a * b), q, v)))
        h = (stage.t1 - stage.t0).astype(problem.dtype)
        start, end = whole(p0, rate(stage.t0, x0, th)), whole(p1, rate(stage.t1, x1, th))
        return None, (start, end, h)

    slices = (depth(x[0]), depth(x[1]), depth(p[0]), depth(p[1]))
    _, (start, end, h) = run.scan(body, None, theta, slices)
    paid = _paid(problem, run, theta, x[0]) / h
    return Levels(start + paid, end + paid, end, h)


def _paid(problem: ControlProblem, run: Run, theta: PyTree, xs: PyTree) -> Array:
    """`sum_i l(x_k, theta_k)/n + r(theta_k)` of every stage; r is constant, and left out, where tied."""

    def body(carry: None, stage: Any, th: Any, u: Any, x: Any) -> tuple[None, Array]:
        cost = jnp.mean(jax.vmap(lambda a: _state(problem, a, th))(x))
        return None, cost + (0.0 if run.tied else jnp.asarray(problem.weight_cost(th)))

    depth_first = jax.tree.map(lambda a: jnp.moveaxis(a, 1, 0), xs)
    return run.scan(body, None, theta, depth_first)[1]


def _state(problem: ControlProblem, x: PyTree, theta: PyTree) -> Float[Array, ""]:
    return jnp.asarray(problem.state_cost(x, theta), problem.dtype)


def _shifted(xs: PyTree, end: PyTree) -> PyTree:
    """The states one stage on."""
    return jax.tree.map(lambda a, e: jnp.concatenate([a[:, 1:], e[:, None]], axis=1), xs, end)


def _dot(p: PyTree, v: PyTree) -> Float[Array, " stages"]:
    """`sum_i p^i . v^i` at every stage; leaves `(n, stages, ...)`."""
    one = lambda a, b: jnp.sum((a * b).reshape(*a.shape[:2], -1), axis=(0, 2))
    return sum(jax.tree.leaves(jax.tree.map(one, p, v)))

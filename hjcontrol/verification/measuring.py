"""Every route asked for, in one compiled program: numbers only, no judgement.

    route A, route B   ->   relative disagreement at every state k = 0..K and all weights k = 0..K-1

Costates are compared whole, `|p_a - p_b| / max(|p_a|, |p_b|)`. What each stage says of its own is its
place's, see `chain`.
"""

from itertools import combinations
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from hjcontrol._ground.quick import quick_jit
from hjcontrol.control import ControlProblem, Trajectory, backpropagate
from hjcontrol.networks import Weights, advance
from hjcontrol.verification.continuous import costate_equation
from hjcontrol.verification.ensemble import rms, summands
from hjcontrol.verification.finite_difference import difference
from hjcontrol.verification.probes import directions
from hjcontrol.verification.recursion import recurse


class Gaps(NamedTuple):
    """One pair of routes: disagreement by stage (`None`: not compared), the methods' own error, and
    whether derivatives are forward mode's throughout."""

    states: Float[Array, " depths"] | None
    weights: Float[Array, " stages"] | None
    state_error: Float[Array, " depths"] | float = 0.0
    weight_error: Float[Array, " stages"] | float = 0.0
    forward: Bool[Array, ""] | bool = True


class Measured(NamedTuple):
    """What the routes say of each other, and of the point."""

    stationarity: Float[Array, ""]
    feasibility: Float[Array, ""]
    gaps: dict[str, Gaps]


@quick_jit
def measure(
    problem: ControlProblem,
    weights: Weights,
    trajectory: Trajectory | None,
    multipliers: Trajectory | None,
    key: Key[Array, ""],
    routes: tuple[str, ...],
) -> Measured:
    """Compare the `routes` that have a whole costate or gradient two by two. `trajectory`: the states a
    solver claims, for the feasibility."""
    _, states, costates, gradient = backpropagate(problem, weights)
    k_along, k_difference = jax.random.split(key)
    full = {"backprop": (costates, gradient)} if "backprop" in routes else {}
    gaps, forward, sizes = {}, jnp.asarray(True), None
    if "recursion" in routes:
        found = recurse(problem, weights, states)
        full["recursion"] = (found.costates, found.gradient)
        forward, sizes = jnp.all(found.forward), found.summands
    if "multipliers" in routes:
        full["multipliers"] = (multipliers, None)
    for a, b in combinations(full, 2):
        (p, g), (q, h) = full[a], full[b]
        between = None
        if g is not None and h is not None and sizes is not None:
            # Relative to the summands' norm: the gradient itself vanishes at a solution.
            between = _ratio(_gradient_norms(problem, g, h), sizes)
        gaps[f"{a}|{b}"] = Gaps(apart(p, q), between, forward=forward)
    if "costate_equation" in routes:
        own = costate_equation(problem, weights)
        ways = directions(k_along, weights, 1)
        scale = summands(problem, weights, jax.tree.map(lambda a: a[0], ways))
        along = lambda g: _along(problem, g, ways, scale)
        for name in ("backprop", "recursion"):
            if name in full:
                p, g = full[name]
                gaps[f"{name}|costate_equation"] = Gaps(
                    apart(p, own.costates),
                    along(jax.tree.map(jnp.subtract, g, own.gradient)),
                    _ratio(_norms(own.costate_error), _norms(own.costates)),
                    along(own.gradient_error),
                )
    if "finite_difference" in routes:
        name = next((r for r in ("backprop", "recursion") if r in full), "backprop")
        _, g = full.get(name, (costates, gradient))
        away = difference(problem, weights, g, k_difference)
        gaps[f"{name}|finite_difference"] = Gaps(None, away.gap, 0.0, away.error)
    return Measured(
        problem.control_set.stationarity(weights, gradient),
        _residual(problem, weights, trajectory),
        gaps,
    )


def check_weights(problem: ControlProblem, weights: Weights) -> None:
    """Refuse weights that are not the problem's. Runs while tracing, so it costs nothing later."""
    wanted = jax.eval_shape(problem.init, jax.eval_shape(lambda: jax.random.key(0)))
    shapes = lambda tree: [getattr(a, "shape", ()) for a in jax.tree.leaves(tree)]
    if jax.tree.structure(wanted) != jax.tree.structure(weights) or shapes(wanted) != shapes(
        weights
    ):
        raise ValueError(
            f"verify: `weights` of shapes {shapes(wanted)} are needed (a tuple with one entry a run, "
            f"see `problem.init`); found {shapes(weights)}."
        )


def _along(
    problem: ControlProblem, g: Weights, ways: Weights, scale: Float[Array, " stages"]
) -> Float[Array, " stages"]:
    """`|g_k . w|` over the probes `w`, relative to the scale of `dJ/dtheta_k . w` (see `ensemble`)."""
    found = []
    for run, a, w in zip(problem.chain.runs, g, ways, strict=True):
        dot = lambda u, v: jnp.sum((u * v).reshape(*v.shape[:2], -1), axis=-1)
        parts = [dot(u[None], v) for u, v in zip(*map(jax.tree.leaves, (a, w)), strict=True)]
        found.append(
            run.place(jax.vmap(rms, 1)(sum(parts))) if parts else jnp.zeros(run.length, scale.dtype)
        )
    return _ratio(jnp.concatenate(found), scale)


def apart(p: Trajectory, q: Trajectory) -> Float[Array, " depths"]:
    """`|p_k - q_k| / max(|p_k|, |q_k|)` over samples and coordinates, for every k."""
    size = jnp.maximum(_norms(p), _norms(q))
    return _ratio(_norms(jax.tree.map(jnp.subtract, p, q)), size)


def _ratio(a: Array, b: Array) -> Array:
    return jnp.where(a == 0, 0.0, a / jnp.maximum(b, jnp.finfo(b.dtype).tiny))


def _norms(p: Trajectory) -> Float[Array, " depths"]:
    """`|p_k|` over samples and coordinates, for every k."""
    first = jax.tree.map(lambda a: jnp.moveaxis(a, 1, 0), p.runs)
    return jnp.concatenate([_norm(first), jnp.sqrt(_squares(p.final, 0))[None]])


def _norm(runs: tuple) -> Float[Array, " stages"]:
    """Norm of each stage's entry; every leaf has the stages in front."""
    return jnp.concatenate([jnp.sqrt(_squares(run, 1)) for run in runs])


def _gradient_norms(problem: ControlProblem, g: Weights, h: Weights) -> Float[Array, " stages"]:
    return jnp.concatenate(
        [
            run.place(_norm((jax.tree.map(jnp.subtract, a, b),)))
            if jax.tree.leaves(a)
            else jnp.zeros(run.length)
            for a, b, run in zip(g, h, problem.chain.runs, strict=True)
        ]
    )


def _squares(tree: object, axes: int) -> Array:
    leaves = jax.tree.leaves(tree)
    return sum(jnp.sum(a**2, axis=tuple(range(axes, a.ndim))) for a in leaves)


def _residual(
    problem: ControlProblem, weights: Weights, trajectory: Trajectory | None
) -> Float[Array, ""]:
    """`max |F_k(x_k) - x_{k+1}|` and `max |x_0 - inputs|`; a rollout has none by construction."""
    worst = jnp.zeros((), problem.dtype)
    if trajectory is None:
        return worst
    gap = lambda a, b: jnp.max(jnp.abs(a - b), initial=0.0)
    largest = lambda tree: jax.tree.reduce(jnp.maximum, tree, worst)
    start = largest(jax.tree.map(gap, problem.inputs, trajectory[0]))

    def body(r: int, after: Any, stage: Any, theta: Any, u: Any, x: Any) -> tuple[Any, Array]:
        step = jax.vmap(lambda a, u: advance(stage, a, theta, u))(x, u)
        return x, largest(jax.tree.map(gap, step, after))

    _, gaps = problem.fold(body, trajectory.final, weights, trajectory.runs, reverse=True)
    for found in gaps:
        start = jnp.maximum(start, jnp.max(found))
    return start

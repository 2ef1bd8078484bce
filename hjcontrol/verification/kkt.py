r"""The conditions of Karush, Kuhn and Tucker, with multipliers.

    dL/dtheta + lambda = 0        theta in Theta        lambda in N(theta)        L = J + nu . g(x_K)

    lambda in N(theta)   <=>   theta = project(theta + lambda)        (Theta closed and convex)
    Box:  lambda = lambda_upper - lambda_lower,  both >= 0,  lambda_upper (upper - theta) = 0 = lambda_lower
          (theta - lower)

A solver that claims multipliers has them tested as they are. Where none are claimed they are read off the
gradient: lambda is -dL/dtheta where a bound is met and the gradient pushes outwards, else 0, so that a wrong
sign is left over in the stationarity. Sources: Nocedal and Wright, Numerical Optimization, 2nd ed., section
12.3; Rockafellar and Wets, Variational Analysis, prop. 6.17 (the projection).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from hjcontrol.control import Box, ControlProblem, Free
from hjcontrol.networks import Weights
from hjcontrol.verification.stagewise import placed


class Residuals(NamedTuple):
    """Largest violation in each stage's weights: `dL/dtheta + lambda`, distance from the set, what
    `lambda` lacks to the normal cone, and product of multiplier and slack (`None` where the set has no
    bounds to be complementary to)."""

    stationarity: Float[Array, " stages"]
    primal: Float[Array, " stages"]
    dual: Float[Array, " stages"]
    complementarity: Float[Array, " stages"] | None


def residuals(
    problem: ControlProblem,
    weights: Weights,
    gradient: Weights,
    claimed: Weights | None,
    tolerance: float,
) -> Residuals:
    """How far weights, `dL/dtheta` and multipliers are from the conditions."""
    the_set = problem.control_set
    away = lambda a, b: jax.tree.map(lambda x, y: x - y, a, b)
    plus = lambda a, b: jax.tree.map(lambda x, y: x + y, a, b)
    worst = lambda tree: _by_stage(problem, tree)
    zero = jax.tree.map(jnp.zeros_like, gradient)
    if isinstance(the_set, Free):
        given = zero if claimed is None else claimed
        return Residuals(worst(plus(gradient, given)), worst(zero), worst(given), None)
    primal = worst(away(weights, the_set.project(weights)))
    if claimed is None and not isinstance(the_set, Box):
        moved = away(weights, gradient)  # Moreau: the part of -g that the projection takes off
        fixed = the_set.project(moved)
        return Residuals(worst(away(weights, fixed)), primal, worst(zero), None)
    if claimed is None:
        claimed = jax.tree.map(lambda g, held: -g * held, gradient, _held(the_set, weights, gradient, tolerance, 0.0))
    dual = worst(away(weights, the_set.project(plus(weights, claimed))))
    slack = None
    if isinstance(the_set, Box):
        slack = worst(jax.tree.map(lambda t, c: _products(the_set, t, c), weights, claimed))
    return Residuals(worst(plus(gradient, claimed)), primal, dual, slack)


def free_coordinates(
    problem: ControlProblem, weights: Weights, gradient: Weights, tolerance: float
) -> Weights | None:
    """1 where a weight may move to first order, 0 where a bound with a multiplier above the tolerance
    holds it; `None` for a set whose faces are not known."""
    if isinstance(problem.control_set, Free):
        return jax.tree.map(jnp.ones_like, weights)
    if not isinstance(problem.control_set, Box):
        return None
    held = _held(problem.control_set, weights, gradient, tolerance, tolerance)
    return jax.tree.map(lambda a: 1.0 - a, held)


def _held(box: Box, weights: Weights, gradient: Weights, tolerance: float, least: float) -> Any:
    """1 where a weight lies at a bound, to the tolerance, and the gradient pushes it outwards."""
    low, high = box.bounds()

    def one(t: Array, g: Array) -> Array:
        lower = (t <= jnp.asarray(low, t.dtype) + tolerance) & (g > least)
        upper = (t >= jnp.asarray(high, t.dtype) - tolerance) & (g < -least)
        return (lower | upper).astype(t.dtype)

    return jax.tree.map(one, weights, gradient)


def _products(box: Box, theta: Array, claimed: Array) -> Array:
    """Multiplier times slack; where there is no bound, the multiplier itself."""
    low, high = (jnp.asarray(b, theta.dtype) for b in box.bounds())
    room = jnp.where(claimed > 0, high - theta, theta - low)
    return jnp.abs(claimed) * jnp.where(jnp.isfinite(room), jnp.abs(room), 1.0)


def _by_stage(problem: ControlProblem, tree: PyTree) -> Float[Array, " stages"]:
    """Largest absolute entry of each stage's part of something stacked like the weights."""
    found = []
    for run, part in zip(problem.chain.runs, tree, strict=True):
        worst = jnp.zeros(run.sets, problem.dtype)
        for a in jax.tree.leaves(part):
            worst = jnp.maximum(worst, jnp.max(jnp.abs(a).reshape(run.sets, -1), axis=1, initial=0.0))
        found.append(worst)
    return placed(problem, tuple(found))

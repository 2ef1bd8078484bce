r"""The conditions of Karush, Kuhn and Tucker, with multipliers.

    dL/dtheta + lambda = 0        theta in Theta        lambda in N(theta)        L = J + nu . g(x_K)

    lambda in N(theta)   <=>   theta = project(theta + lambda)        (Theta closed and convex)
    Box:  lambda = lambda_upper - lambda_lower,  both >= 0,
          lambda_upper (upper - theta) = 0 = lambda_lower (theta - lower)

A solver that claims multipliers has them tested as they are. Where none are claimed they are read off
the gradient: lambda is -dL/dtheta where a bound is met and the gradient pushes outwards, else 0, so that
a wrong sign is left over in the stationarity. Sources: Nocedal and Wright, Numerical Optimization, 2nd
ed., section 12.3; Rockafellar and Wets, Variational Analysis, prop. 6.17 (the projection).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PyTree

from hjcontrol.control import ControlProblem, Free
from hjcontrol.control.units import in_units
from hjcontrol.networks import Weights
from hjcontrol.verification.stagewise import placed


class Residuals(NamedTuple):
    """Largest violation in each stage's weights: `dL/dtheta + lambda`, distance from the set, what
    `lambda` lacks to the normal cone (in units of the gradient), and product of multiplier and slack
    (`None` where the set has no bounds to be complementary to)."""

    stationarity: Float[Array, " stages"]
    primal: Float[Array, " stages"]
    dual: Float[Array, " stages"]
    complementarity: Float[Array, " stages"] | None


def residuals(
    problem: ControlProblem,
    weights: Weights,
    gradient: Weights,
    claimed: Weights | None,
    tol: float,
    of: ArrayLike = 1.0,
) -> Residuals:
    """How far weights, `dL/dtheta` and multipliers are from the conditions. `of`: the unit of the
    gradient (see `control.units`), in which both are projected: `theta - P(theta + lambda / u)`."""
    of = jnp.asarray(of, problem.dtype)
    the_set, bounded = problem.control_set, problem.control_set.elementwise
    away = lambda a, b: jax.tree.map(jnp.subtract, a, b)
    plus = lambda a, b: jax.tree.map(jnp.add, a, b)
    worst = lambda tree: _by_stage(problem, tree)
    zero = jax.tree.map(jnp.zeros_like, gradient)
    primal = worst(away(weights, the_set.project(weights)))
    if claimed is None and not bounded:
        # The remainder of a projected step is in the normal cone by construction (Moreau).
        left = the_set.violation(weights, in_units(gradient, of))
        return Residuals(of * worst(left), primal, worst(zero), None)
    if claimed is None:
        held = the_set.active(weights, gradient, jnp.asarray(tol))[0]
        claimed = jax.tree.map(lambda g, h: jnp.where(h, -g, 0.0), gradient, held)
    dual = worst(away(weights, the_set.project(plus(weights, in_units(claimed, of)))))
    slack = None
    if bounded:
        slack = worst(jax.tree.map(_products, weights, claimed, *the_set.bounds(weights)))
    if isinstance(the_set, Free):
        dual, slack = worst(claimed) / of, None  # theta - (theta + lambda) would round
    return Residuals(worst(plus(gradient, claimed)), primal, dual, slack)


def _products(theta: Array, claimed: Array, low: Array, high: Array) -> Array:
    """Multiplier times slack; where there is no bound, the multiplier itself."""
    room = jnp.where(claimed > 0, high - theta, theta - low)
    return jnp.abs(claimed) * jnp.where(jnp.isfinite(room), jnp.abs(room), 1.0)


def _by_stage(problem: ControlProblem, tree: PyTree) -> Float[Array, " stages"]:
    """Largest absolute entry of each stage's part of something stacked like the weights."""
    found = []
    for run, part in zip(problem.chain.runs, tree, strict=True):
        worst = jnp.zeros(run.sets, problem.dtype)
        for a in jax.tree.leaves(part):
            worst = jnp.maximum(
                worst, jnp.max(jnp.abs(a).reshape(run.sets, -1), axis=1, initial=0.0)
            )
        found.append(worst)
    return placed(problem, tuple(found))

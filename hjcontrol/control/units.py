r"""The units in which a problem's derivatives are judged, measured on the problem itself.

    g = dJ/dtheta       s = max(|g(theta)|, |g(theta + d)|)        |.| the largest entry
    d = NUDGE max(rms theta, SMALL) e,    e_j = sqrt(2) cos j       a leaf at a time
    u = STEP^m          m whole, with   WINDOW u <= s < STEP WINDOW u
    small               |g| <= tol u;   under a control set   u |theta - P(theta - g / u)| <= tol u

At a solution g vanishes and s does not: there g(theta + d) is what the gradient becomes once every weight
moves by a third of its size. J times c has s times c. A unit is a power of ten thousand, so that
c = 1e8 multiplies it by 1e8, and a problem with 1e-2 <= s < 100 has the unit one: there a tolerance is
the absolute number that it looks like. In general a tolerance is relative to s within a factor of STEP,
from tol / WINDOW down to tol / (STEP WINDOW).

states      of max |x|          costates    of n max |p| (a costate carries the 1/n of the mean)
curvature   of the largest Ritz value, where one is at hand

Where s is zero or not finite (a cost that depends on no weight) the unit is one. Nothing is drawn: a
problem and its weights have one unit. The price is two gradients, once a solve.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from hjcontrol._ground.concrete import known
from hjcontrol._ground.quick import quick_jit
from hjcontrol.control.control_sets import Free, largest
from hjcontrol.control.derivatives import backpropagate
from hjcontrol.control.problem import ControlProblem
from hjcontrol.networks import Weights
from hjcontrol.networks.casts import grain

NUDGE, SMALL = 0.3, 0.1
STEP, WINDOW = 1e4, 1e-2
COARSE = 64.0


class Units(NamedTuple):
    """Of `dJ/dtheta`, of costates and of states."""

    gradient: Float[Array, ""] | float
    costate: Float[Array, ""] | float
    state: Float[Array, ""] | float
    grain: float = 0.0  # relative rounding of stages that compute in a coarser precision


def unit(size: Float[Array, ""]) -> Float[Array, ""]:
    """The power of `STEP` that quantities of this size are measured in; one for zero and for
    infinity or NaN."""
    known = jnp.isfinite(size) & (size > 0)
    steps = jnp.floor(jnp.log10(jnp.where(known, size, 1.0) / WINDOW) / jnp.log10(STEP))
    return jnp.where(known & (steps != 0), STEP**steps, 1.0).astype(size.dtype)


def measured(
    problem: ControlProblem,
    weights: Weights,
    ask: Callable[..., Any] = backpropagate,
    here: tuple[Any, ...] | None = None,
) -> Units:
    """The units of a problem at `weights`. `ask`: `backpropagate`, or the same function compiled; `here`:
    states, costates and gradient at the weights, where they are known."""
    here = ask(problem, weights)[1:] if here is None else here
    near = ask(problem, _nudged(problem, weights))[1:]
    found = _of(here, near, jnp.asarray(problem.num_samples, problem.dtype))
    return found._replace(grain=grain(problem.chain))


@quick_jit
def _nudged(problem: ControlProblem, weights: Weights) -> Weights:
    leaves, tree = jax.tree.flatten(weights)
    moved, first = [], 1
    for a in leaves:
        size = jnp.sqrt(jnp.mean(a**2)) if a.size else jnp.zeros((), a.dtype)
        e = jnp.sqrt(2.0) * jnp.cos(jnp.arange(first, first + a.size).reshape(a.shape))
        moved.append(a + (NUDGE * jnp.maximum(size, SMALL) * e).astype(a.dtype))
        first += a.size
    return problem.control_set.project(jax.tree.unflatten(tree, moved))


@quick_jit
def _of(here: PyTree, near: PyTree, samples: Float[Array, ""]) -> Units:
    """From states, costates and gradient at two points."""

    def both(k: int) -> Float[Array, ""]:
        sizes = [largest(point[k]).astype(samples.dtype) for point in (here, near)]
        return jnp.maximum(*(jnp.where(jnp.isfinite(size), size, 0.0) for size in sizes))

    return Units(unit(both(2)), unit(samples * both(1)), unit(both(0)))


def stationarity(
    problem: ControlProblem, weights: Weights, gradient: Weights, of: Float[Array, ""] | float
) -> Float[Array, ""]:
    """`u |theta - P(theta - g / u)|`, u being the unit `of` the gradient: what a set leaves of it, in its
    unit. Without a set, and at u = 1, it is `control_set.stationarity`."""
    if isinstance(problem.control_set, Free):
        return largest(gradient)
    found = problem.control_set.stationarity(weights, in_units(gradient, of))
    return found * jnp.asarray(of, found.dtype)


def plain(of: Float[Array, ""] | float) -> Float[Array, ""] | float:
    """A unit as a number where its value is known: part of the program, and one is no product at all."""
    value = known(of)
    return of if value is None else float(value)


def resolved(tol: Float[Array, ""], default: float, power: float, units: Units) -> Float[Array, ""]:
    """A method's tolerance. The default one is no finer than the dtype resolves, `(COARSE eps)^power`,
    and than twice the rounding of stages that compute in a coarser one; another one is meant as it is.
    `power`: 1 for a method that solves for g, 1/2 for one that compares values of J."""
    dtype, value, coarse = jnp.asarray(units.gradient).dtype, known(tol), 2.0 * units.grain
    fine = dtype == jnp.float64 and not coarse
    if fine or value is None or not np.allclose(value, default, rtol=1e-5, atol=0):
        return tol
    least = 0.0 if dtype == jnp.float64 else (COARSE * float(jnp.finfo(dtype).eps)) ** power
    return jnp.asarray(max(default, least, coarse), tol.dtype)


def in_units(tree: PyTree[Array], of: Float[Array, ""] | float) -> PyTree[Array]:
    """Every leaf divided by a unit; where that is the number one, as it is: the same program, the same
    bits."""
    if isinstance(of, float) and of == 1.0:
        return tree
    return jax.tree.map(lambda a: a / jnp.asarray(of, a.dtype), tree)

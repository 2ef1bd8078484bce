r"""Conjugate gradients in a trust region, in the metric of the preconditioner (Steihaug 1983).

    minimise over z   g.z + 1/2 z.H z    subject to  |z|_B <= radius

The path starts at 0 and ends where the residual is small, at the boundary, or along a direction of
negative curvature. Norms in B come from the recurrences: only the preconditioner `solve = B^-1` is used.
A path at whose end J falls less than the model says is `shortened`.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from hjcontrol._ground.shown import Shown
from hjcontrol.control import ControlProblem, value_and_gradient
from hjcontrol.control.control_sets import largest
from hjcontrol.control.hamiltonians import inner
from hjcontrol.networks import Weights

Linear = Callable[[Weights], Weights]


class Path(Shown):
    """Where the conjugate gradients ended: the step, its length, the model's decrease."""

    step: Weights
    length: Float[Array, ""]
    decrease: Float[Array, ""]
    boundary: Bool[Array, ""]
    products: Int[Array, ""]


def axpy(alpha: Array, x: Weights, y: Weights) -> Weights:
    """`alpha x + y`."""
    return jax.tree.map(lambda a, b: alpha * a + b, x, y)


def steihaug(
    product: Linear,
    solve: Linear,
    g: Weights,
    radius: Array,
    concave: Array,
    tol: Array,
    limit: Array,
) -> Path:
    """Preconditioned conjugate gradients on the model, stopped at the boundary of the region.

    A direction of negative curvature is followed to the length `concave`, or half as far again as
    the path already went: the model knows no better length for it.

    Norms in the metric B come from the recurrences of the method, so B itself is never applied.
    """
    y = solve(g)
    zero = jax.tree.map(jnp.zeros_like, g)
    scalar = jnp.zeros_like(radius)
    start = {
        "z": zero,  # the step
        "r": g,  # g + H z
        "d": jax.tree.map(jnp.negative, y),
        "ry": inner(g, y),
        "zz": scalar,  # z.Bz, z.Bd, d.Bd
        "zd": scalar,
        "dd": inner(g, y),
        "Hz": zero,
        "edge": jnp.asarray(False),
        "count": jnp.asarray(0),
    }

    def proceed(c: dict) -> Array:
        return (largest(c["r"]) > tol) & ~c["edge"] & (c["count"] < limit)

    end = jax.lax.while_loop(proceed, lambda c: _onwards(c, product, solve, radius, concave), start)
    decrease = -inner(g, end["z"]) - 0.5 * inner(end["z"], end["Hz"])
    return Path(end["z"], jnp.sqrt(end["zz"]), decrease, end["edge"], end["count"])


def _onwards(c: dict, product: Linear, solve: Linear, radius: Array, concave: Array) -> dict:
    """One more direction, to the boundary if it leads there."""
    Hd = product(c["d"])
    kappa = inner(c["d"], Hd)
    alpha = c["ry"] / kappa
    beyond = c["zz"] + 2 * alpha * c["zd"] + alpha**2 * c["dd"] >= radius**2
    edge = (kappa <= 0) | beyond
    reach = jnp.where(kappa <= 0, jnp.maximum(concave, 1.5 * jnp.sqrt(c["zz"])), radius)
    reach = jnp.minimum(reach, radius)
    root = jnp.sqrt(jnp.maximum(c["zd"] ** 2 + c["dd"] * (reach**2 - c["zz"]), 0.0))
    to_edge = (root - c["zd"]) / c["dd"]
    alpha = jnp.where(edge, to_edge, alpha)
    r = axpy(alpha, Hd, c["r"])
    y = solve(r)
    ry = inner(r, y)
    beta = ry / c["ry"]
    return {
        "z": axpy(alpha, c["d"], c["z"]),
        "r": r,
        "d": jax.tree.map(lambda a, b: beta * a - b, c["d"], y),
        "ry": ry,
        "zz": c["zz"] + 2 * alpha * c["zd"] + alpha**2 * c["dd"],
        "zd": beta * (c["zd"] + alpha * c["dd"]),
        "dd": ry + beta**2 * c["dd"],
        "Hz": axpy(alpha, Hd, c["Hz"]),
        "edge": edge,
        "count": c["count"] + 1,
    }


SHORTEN = 0.25
SHORTEST = 1e-4


Point = tuple[Weights, Float[Array, ""], Weights]  # weights, J and its gradient


def shortened(
    problem: ControlProblem, at: Point, path: Path, floor: Array, home: Weights
) -> tuple[Path, Int[Array, ""], Point]:
    """The path from `home`, shortened until J falls as the model says (Nocedal & Yuan); how often J was
    asked; and the weights at its end with J and its gradient.

    A whole new path in a smaller region costs a preconditioner and its conjugate gradients; a trial
    on this one costs a gradient.
    """
    _, start, gradient = at
    slope = inner(gradient, path.step)
    bend = -2.0 * (slope + path.decrease)  # of the model along the step
    decrease = lambda a: -a * slope - 0.5 * a**2 * bend

    def too_long(carry: Any) -> Array:
        a, tries, (_, value, _) = carry
        falls = start - value + floor > 0.1 * (decrease(a) + floor)
        return (tries == 0) | (~falls & (a > SHORTEST))

    def shorter(carry: Any) -> Any:
        a, tries, _ = carry
        a = jnp.where(tries == 0, a, SHORTEN * a)
        weights = problem.control_set.project(axpy(a, path.step, home))
        return a, tries + 1, (weights, *value_and_gradient(problem, weights))

    one = jnp.ones_like(start)
    a, tries, end = jax.lax.while_loop(too_long, shorter, (one, jnp.asarray(0), at))
    step = jax.tree.map(lambda z: a * z, path.step)
    return Path(step, a * path.length, decrease(a), path.boundary, path.products), tries, end

r"""Spectral projected gradient steps: descent on any convex set, from projections and gradients alone.

    d = P(theta - a g) - theta           theta <- theta + b d,   b halved until
    J(theta + b d) <= max of the last MEMORY values + 1e-4 b g.d              a <- s.s / s.y

s, y   what weights and gradient moved by        P   projection onto the control set

J may rise over a few steps: a length a that fits the curvature is worth more than descent at each one.
Source: Birgin, Martinez and Raydan, SIAM J. Optim. 10 (2000), 1196-1211 (SPG2).
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from hjcontrol._ground.shown import Shown
from hjcontrol.control import ControlProblem, value_and_gradient
from hjcontrol.control.control_sets import largest
from hjcontrol.control.hamiltonians import inner
from hjcontrol.networks import Weights

MEMORY = 10
SUFFICIENT, SHORTEST, LONGEST, TRIES = 1e-4, 1e-12, 1e12, 40


class Spectral(Shown):
    """The next length, and the last values of J."""

    length: Float[Array, ""]
    values: Float[Array, " memory"]


def first(value: Float[Array, ""], gradient: Weights) -> Spectral:
    """Before the first step: as long as the gradient's largest entry allows, one at most."""
    size = jnp.maximum(largest(gradient), jnp.finfo(value.dtype).tiny)
    return Spectral((1.0 / size).astype(value.dtype), jnp.full(MEMORY, value))


def stepped(
    problem: ControlProblem, memory: Spectral, at: tuple[Weights, Array, Weights]
) -> tuple[Spectral, tuple[Weights, Array, Weights], Int[Array, ""]]:
    """One step from weights, J and its gradient: what is remembered, the same after it, and how often J
    was asked. If J does not fall enough along d, the weights stay."""
    weights, value, gradient = at
    minus = lambda a, b: jax.tree.map(jnp.subtract, a, b)
    along = lambda a, v: jax.tree.map(lambda x, y: x + a * y, weights, v)
    aim = minus(problem.control_set.project(along(-memory.length, gradient)), weights)
    slope, worst = inner(gradient, aim), jnp.max(memory.values)
    floor = 10 * jnp.finfo(value.dtype).eps * jnp.abs(value)  # J is no finer than its roundoff

    def proceed(carry: Any) -> Array:
        _, tries, fell, *_ = carry
        return ~fell & (tries < TRIES)

    def shorten(carry: Any) -> Any:
        b, tries, _, _ = carry
        new = along(b, aim)
        found = value_and_gradient(problem, new)
        fell = found[0] <= worst + SUFFICIENT * b * slope + floor
        return jnp.where(fell, b, 0.5 * b), tries + 1, fell, (new, *found)

    start = (jnp.ones_like(value), jnp.asarray(0), jnp.asarray(False), at)
    _, tries, fell, end = jax.lax.while_loop(proceed, shorten, start)
    weights, value, gradient = jax.tree.map(lambda a, b: jnp.where(fell, a, b), end, at)
    s, y = minus(weights, at[0]), minus(gradient, at[2])
    bend = inner(s, y)
    length = jnp.where(bend > 0, inner(s, s) / jnp.where(bend > 0, bend, 1.0), LONGEST)
    length = jnp.clip(length, SHORTEST, LONGEST).astype(value.dtype)
    values = jnp.concatenate([memory.values[1:], value[None]])
    return Spectral(length, values), (weights, value, gradient), tries

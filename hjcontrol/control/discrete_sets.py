r"""Weights of two or three values, and what rounding to them costs.

    Binary   theta in {-1, 1}^m              Ternary   theta in {-1, 0, 1}^m

Neither is convex: `project` is the nearest point (ties go up), and `stationarity`, a statement about one
projected gradient step, holds at every point whose slopes are below a half. A method that moves weights
continuously solves the relaxation `Box(-1, 1)` and rounds: `gap = J(rounded) - J(relaxed)` says what that
cost. The relaxed optimum bounds the discrete one from below only if it is global.
"""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from hjcontrol.control.control_sets import AbstractControlSet
from hjcontrol.control.problem import ControlProblem
from hjcontrol.networks import Weights


class Binary(AbstractControlSet):
    """Every weight -1 or 1."""

    values: ClassVar[tuple[float, ...]] = (-1.0, 1.0)

    def project(self, theta):
        return jax.tree.map(lambda t: jnp.where(t >= 0, 1.0, -1.0).astype(t.dtype), theta)

    def bounds(self):
        return -1.0, 1.0


class Ternary(AbstractControlSet):
    """Every weight -1, 0 or 1."""

    values: ClassVar[tuple[float, ...]] = (-1.0, 0.0, 1.0)

    def project(self, theta):
        return jax.tree.map(lambda t: jnp.clip(jnp.floor(t + 0.5), -1.0, 1.0), theta)

    def bounds(self):
        return -1.0, 1.0


class Rounding(eqx.Module):
    """Rounded weights, `J` before and after, and the share of weights that rounding moved."""

    weights: Weights
    relaxed: Float[Array, ""]
    objective: Float[Array, ""]
    moved: Float[Array, ""]

    @property
    def gap(self) -> Float[Array, ""]:
        """`J(rounded) - J(relaxed)`."""
        return self.objective - self.relaxed


@eqx.filter_jit
def rounded(
    problem: ControlProblem, weights: Weights, to: AbstractControlSet | None = None
) -> Rounding:
    """The nearest weights in `to` (the problem's own set without it), and what they cost."""
    near = (problem.control_set if to is None else to).project(weights)
    different = [
        jnp.ravel(a != b)
        for a, b in zip(jax.tree.leaves(weights), jax.tree.leaves(near), strict=True)
    ]
    moved = jnp.mean(jnp.concatenate(different).astype(problem.dtype))
    return Rounding(near, problem.objective(weights), problem.objective(near), moved)

"""Weights with all that one forward and one backward pass say of them."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from hjcontrol._ground.shown import Shown
from hjcontrol.control import AbstractControlSet, ControlProblem, Trajectory, backpropagate
from hjcontrol.control.hamiltonians import inner
from hjcontrol.networks import Weights


class Point(Shown):
    """Weights, `J`, `dJ/dtheta`, states and costates (where they are kept)."""

    weights: Weights
    objective: Float[Array, ""]
    gradient: Weights
    paths: tuple[Trajectory, Trajectory] | None

    def bare(self) -> "Point":
        """Without states and costates, as a point of another batch is kept."""
        return Point(self.weights, self.objective, self.gradient, None)

    def finite(self) -> Bool[Array, ""]:
        """Whether `J` and the gradient are."""
        leaves = jax.tree.leaves((self.objective, self.gradient))
        return jnp.all(jnp.stack([jnp.all(jnp.isfinite(a)) for a in leaves]))

    def residual(self, theta_set: AbstractControlSet) -> Float[Array, ""]:
        """`|theta - project(theta - g)|`, Euclidean: unlike the largest coordinate, it falls along every
        short step of descent on a convex problem."""
        moved = theta_set.project(jax.tree.map(jnp.subtract, self.weights, self.gradient))
        gap = jax.tree.map(jnp.subtract, self.weights, moved)
        return jnp.sqrt(inner(gap, gap))


def at(problem: ControlProblem, weights: Weights) -> Point:
    """States forward, costates backward."""
    value, states, costates, gradient = backpropagate(problem, weights)
    return Point(weights, value, gradient, (states, costates))


def choose(first: Bool[Array, ""], a: Point, b: Point) -> Point:
    """`a` where `first`, else `b`."""
    return jax.tree.map(lambda u, v: jnp.where(first, u, v), a, b)

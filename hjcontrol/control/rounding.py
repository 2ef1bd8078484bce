r"""What rounding to weights of few values costs.

    gap = J(project(theta)) - J(theta)

A method that moves weights continuously solves the relaxation, `Box(-1, 1)` for `Binary` and `Ternary`,
and rounds. The relaxed optimum bounds the discrete one from below only if it is global.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from hjcontrol._ground.arguments import admits
from hjcontrol._ground.shown import Shown
from hjcontrol.control.control_sets import AbstractControlSet
from hjcontrol.control.problem import ControlProblem
from hjcontrol.networks import Weights


class Rounding(Shown):
    """Rounded weights, `J` before and after, and the share of weights that rounding moved."""

    weights: Weights
    relaxed: Float[Array, ""]
    objective: Float[Array, ""]
    moved: Float[Array, ""]

    @property
    def gap(self) -> Float[Array, ""]:
        """`J(rounded) - J(relaxed)`."""
        return self.objective - self.relaxed


@admits()
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

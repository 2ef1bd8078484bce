r"""What a solution does about states that it did not expect: weights that answer them, stage by stage.

    theta_k(x) = theta_k + alpha k_k + K_k (x - x_k)          x: the states of all samples, one vector

Where dynamics amplify roundoff, the weights alone do not hold a trajectory, and this does: each stage
answers the state that is really there.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from hjcontrol._ground.arguments import admits
from hjcontrol._ground.shown import Shown
from hjcontrol.control.control_sets import Free
from hjcontrol.control.problem import ControlProblem
from hjcontrol.control.trajectory import Trajectory, swapped
from hjcontrol.networks import AbstractStage, Weights, advance

Gains = tuple[Float[Array, "_ _ _"], ...]  # (stages, m, n d) by run


class Feedback(Shown):
    """Gains about a trajectory, as a Riccati sweep finds them.

    - `gains`: `K_k`, one entry a run of stages, `(stages, m, n d)`: rows in the order of the raveled
      weights of a stage, columns in that of the raveled states of all samples.
    - `weights`, `states`: what the gains are about.
    - `objective`: `J` of the closed loop, evaluated along its own states.
    - `growth`: by how much the dynamics amplify a change of a state until the end, weights fixed.

    **Example:**

        >>> import jax, jax.numpy as jnp, hjcontrol as hj
        >>> problem = hj.ControlProblem(
        ...     [(lambda x, u: 1.2 * x + u, jnp.zeros(1))] * 4,
        ...     jnp.ones((1, 1)),
        ...     terminal=lambda x: 0.5 * jnp.sum(x**2),
        ...     running=hj.control.Ridge(0.1),
        ... )
        >>> solution = hj.solve(problem, "riccati", key=jax.random.key(0))
        >>> solution.feedback.gains[0].shape
        (4, 1, 1)
        >>> moved, states, value = solution.feedback.rollout(problem, inputs=jnp.full((1, 1), 2.0))
        >>> round(float(value / solution.objective), 6)  # linear-quadratic: J goes with the square
        4.0
    """

    gains: Gains
    weights: Weights
    states: Trajectory
    objective: Float[Array, ""]
    growth: Float[Array, ""]

    def doubt(self, problem: ControlProblem, value: Float[Array, ""]) -> str | None:
        """Why `J` cannot be evaluated from the weights in this precision; `None` if it can.

        `value`: `J` of a rollout of the weights. Where growth^2 times the precision exceeds one, the
        weights are rounded another way too; else there is no doubt.
        """
        right, eps = float(self.objective), float(jnp.finfo(self.objective.dtype).eps)
        if float(self.growth) ** 2 * eps <= 1:
            return None
        moved = jax.tree.map(lambda a: a * (1 + jnp.finfo(a.dtype).eps), self.weights)
        other = float(eqx.filter_jit(ControlProblem.objective)(problem, moved))
        found = max(float(value), other, key=lambda J: abs(J - right))
        if abs(found - right) <= eps**0.5 * abs(right) + eps:
            return None
        return (
            f"J = {right:.10g} along the closed loop, {found:.4g} from the weights rounded once; the "
            f"dynamics amplify by {float(self.growth):.1e}."
        )

    @admits()
    def rollout(
        self, problem: ControlProblem, inputs: Any = None
    ) -> tuple[Weights, Trajectory, Float[Array, ""]]:
        """The closed loop from `inputs`, the problem's own without them.

        **Returns:** the weights that it takes, its states, and `J` along them.

        **Raises:** `ValueError` for inputs that are not shaped as the problem's.
        """
        if inputs is not None:
            shapes = [jax.tree.map(jnp.shape, tree) for tree in (problem.inputs, inputs)]
            if shapes[0] != shapes[1]:
                raise ValueError(
                    "rollout: `inputs` must be shaped as the problem's, "
                    f"{shapes[0]}; found {shapes[1]}."
                )
            inputs = jax.tree.map(lambda a, b: jnp.asarray(a, b.dtype), inputs, problem.inputs)
            problem = eqx.tree_at(lambda p: p.inputs, problem, inputs)
        return _rolled(problem, self)


@eqx.filter_jit
def _rolled(problem: ControlProblem, feedback: Feedback) -> Any:
    offsets = tuple(jnp.zeros(K.shape[:2], K.dtype) for K in feedback.gains)
    return closed_loop(problem, feedback.weights, feedback.states, feedback.gains, offsets)


def flatten(x: Any) -> Float[Array, "n d"]:
    """An ensemble's states, one row a sample."""
    return jax.vmap(lambda a: ravel_pytree(a)[0])(x)


def closed_loop(
    problem: ControlProblem, weights: Weights, states: Trajectory, gains: Gains, offsets: Any
) -> tuple[Weights, Trajectory, Float[Array, ""]]:
    """Weights moved by `k_k + K_k dx_k`, within their set, stage after stage along the states that they
    lead to; those states; and `J` along them. `offsets`: `k_k`, one entry a run, `(stages, m)`."""

    def body(r: int, carry: Any, stage: AbstractStage, th: Any, u: Any, old: Any, K: Any, k: Any):
        x, cost = carry
        flat, unravel = ravel_pytree(th)
        new = unravel(flat + k + K @ (flatten(x) - flatten(old)).reshape(-1))
        if not isinstance(problem.control_set, Free):
            new = problem.control_set.project_stage(new, r)
        paid = jax.vmap(lambda a, u: jnp.asarray(problem.state_cost(a, new, u), flat.dtype))(x, u)
        cost = cost + jnp.mean(paid) + jnp.asarray(problem.weight_cost(new), flat.dtype)
        return (jax.vmap(lambda a, u: advance(stage, a, new, u))(x, u), cost), (x, new)

    start = (problem.inputs, jnp.zeros((), problem.dtype))
    along, given = (swapped(states.runs), gains, offsets), problem.given_by_depth
    (x, cost), outs = problem.chain.fold(body, start, weights, *along, given=given)
    met, moved = zip(*outs, strict=True)
    value = cost + jnp.mean(jax.vmap(problem.terminal_cost)(x, problem.targets))
    return tuple(moved), Trajectory(swapped(tuple(met)), x), value

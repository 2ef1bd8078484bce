"""What every solver returns: weights, states, costates, and how it went.

Every solver fills the same keys of `stats`: num_steps, num_evals, objective, stationarity,
compile_seconds, solve_seconds (`message` too, where there is something to say; `path`, the levels of a
homotopy).
"""

from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Float

from hjcontrol._ground.results import RESULTS
from hjcontrol.control.problem import ControlProblem
from hjcontrol.control.terminal_constraint import augmented
from hjcontrol.control.trajectory import Trajectory
from hjcontrol.networks import Weights

STATS = (
    "num_steps",
    "num_evals",
    "objective",
    "stationarity",
    "compile_seconds",
    "solve_seconds",
)


class History(eqx.Module):
    """One row a recorded step: `seconds` since the start (compilation excluded), `objective` and
    `stationarity`, each of shape `(rows,)`."""

    seconds: np.ndarray
    objective: np.ndarray
    stationarity: np.ndarray


class Solution(eqx.Module):
    """Weights with their states and costates, the outcome, and the problem that was solved; of a solver
    that has them, multipliers of the dynamics, of a terminal constraint and of the control set (an
    element of its normal cone: `-dJ/dtheta`).

    **Example:**

        >>> import jax, jax.numpy as jnp, hjcontrol as hj
        >>> x = jnp.array([[1.0], [-0.5]])
        >>> problem = hj.ControlProblem(
        ...     [hj.networks.Residual(hj.networks.Dense(1, 1), 0.5)] * 3,
        ...     x,
        ...     jnp.sin(x),
        ...     terminal=hj.control.least_squares,
        ...     running=hj.control.Ridge(0.1),
        ... )
        >>> solution = hj.solve(problem, "newton", key=jax.random.key(0))
        >>> solution.trajectory.final.shape, sorted(solution.stats)[:2]
        ((2, 1), ['compile_seconds', 'num_evals'])
    """

    weights: Weights
    trajectory: Trajectory
    costate: Trajectory
    objective: Float[Array, ""]
    result: RESULTS
    stats: dict[str, Any]
    history: History
    problem: ControlProblem
    solver: str = eqx.field(static=True)
    multipliers: Trajectory | None = None
    terminal_multiplier: Float[Array, "n m"] | None = None
    weight_multipliers: Weights | None = None

    @property
    def stated(self) -> ControlProblem:
        """The problem whose gradient vanishes here: with a terminal constraint, the one that its
        multipliers augment."""
        nu = self.terminal_multiplier
        return self.problem if nu is None else augmented(self.problem, nu, 1.0)

    def __str__(self) -> str:
        s = self.stats
        message = RESULTS[self.result] or "successful"
        size = sum(a.size for a in jax.tree.leaves(self.weights))
        lines = [
            f"Solution by {self.solver}",
            f"  problem       {self.problem.num_samples} samples, {len(self.problem.chain)} stages, "
            f"{size} weights, {np.dtype(self.problem.dtype).name}",
            f"  objective     {float(self.objective):.12g}",
            f"  stationarity  {s['stationarity']:.3e}   (max |dH/dtheta|)",
            f"  steps         {s['num_steps']}   evaluations {s['num_evals']}",
            f"  seconds       {s['solve_seconds']:.2f} solving, {s['compile_seconds']:.2f} compiling",
            f"  result        {message}",
        ]
        return "\n".join(lines)

"""What every solver returns: weights, states, costates, and how it went.

`stats` has the same keys whoever solved: num_steps, num_evals, objective, stationarity,
compile_seconds, solve_seconds (`message` too, where there is something to say; `path`, the levels of a
homotopy).
"""

from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Float

from hjcontrol._ground.record import Quantity, Record, Told, figure
from hjcontrol._ground.results import GOOD, RESULTS, name_of
from hjcontrol._ground.shown import Shown
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


class History(Shown):
    """One row a recorded step: `seconds` since the start (compilation excluded), `objective` and
    `stationarity`, each of shape `(rows,)`."""

    seconds: np.ndarray
    objective: np.ndarray
    stationarity: np.ndarray


class Solution(Told, Shown):
    """Weights with their states and costates, the outcome, and the problem that was solved; of a solver
    that has them, multipliers of the dynamics, of a terminal constraint and of the control set (an
    element of its normal cone: `-dJ/dtheta`)."""

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

    def as_record(self) -> Record:
        """What this result says of itself."""
        s = self.stats
        size = sum(a.size for a in jax.tree.leaves(self.weights))
        name = name_of(self.result)
        return Record(
            f"Solution by {self.solver}",
            f"objective {figure(Quantity(s['objective'], 12))}, stationary to "
            f"{figure(s['stationarity'], 3)}",
            verdict=name.replace("_", " "),
            tone="good" if name in GOOD else "partial",
            facts={
                "problem": f"{self.problem.num_samples} samples, {len(self.problem.chain)} stages, "
                f"{size} weights, {np.dtype(self.problem.dtype).name}",
                "objective": Quantity(s["objective"], 12),
                "stationarity": f"{figure(Quantity(s['stationarity'], 4))}   (max |dH/dtheta|)",
                "steps": f"{s['num_steps']}   evaluations {s['num_evals']}",
                "seconds": f"{s['solve_seconds']:.2f} solving, {s['compile_seconds']:.2f} compiling",
                "result": RESULTS[self.result],
            },
            lead=("objective", "stationarity", "seconds"),
            trace=tuple(self.history.objective),
        )

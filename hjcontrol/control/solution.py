"""What every solver returns: weights, states, costates, how it went, and what is proven.

Every solver fills the same keys of `stats`: num_steps, num_evals, objective, stationarity,
compile_seconds, solve_seconds, other_seconds (NaN where a solver does not measure one; `message` where
there is something to say; `path`, the levels of a homotopy). The three times add up to the call's.

    gap = objective - bound        no weights within the theorem's reach are better by more
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from hjcontrol._ground.record import Quantity, Record, Told, figure
from hjcontrol._ground.results import GOOD, RESULTS, name_of
from hjcontrol._ground.shown import Shown
from hjcontrol.control.derivatives import backpropagate
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
    "other_seconds",
)


class History(Shown):
    """One row a recorded step: `seconds` since the start (compilation excluded), `objective` and
    `stationarity`, each of shape `(rows,)`."""

    seconds: np.ndarray
    objective: np.ndarray
    stationarity: np.ndarray


class Theorem(NamedTuple):
    """Why a candidate is an optimum: `name`, `statement`, `limits` (cases that are not covered)."""

    name: str
    statement: str
    limits: str


class Solution(Told, Shown):
    """Weights with their states and costates, the outcome, and the problem that was solved; of a solver
    that has them, multipliers of the dynamics, of a terminal constraint and of the control set (an
    element of its normal cone: `-dJ/dtheta`).

    Of a convex training problem also a `bound` below the objective, the `theorem` behind it, and
    `native`, the answer in the problem's own variables (`native.candidate`, `native.dual`). All three are
    `None` where nothing is proven.

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
    _trajectory: Trajectory | None  # None: from the weights, when asked for
    _costate: Trajectory | None
    objective: Float[Array, ""]
    result: RESULTS
    stats: dict[str, Any]
    history: History
    problem: ControlProblem
    solver: str = eqx.field(static=True)
    multipliers: Trajectory | None = None
    terminal_multiplier: Float[Array, "n m"] | None = None
    weight_multipliers: Weights | None = None
    bound: Float[Array, ""] | None = None
    theorem: Theorem | None = None
    native: Any = None

    @property
    def trajectory(self) -> Trajectory:
        """The states `x_0 .. x_K` of all samples."""
        return self._passes()[1] if self._trajectory is None else self._trajectory

    @property
    def costate(self) -> Trajectory:
        """The costates `p_0 .. p_K` of all samples, `p_k = dJ/dx_k`."""
        return self._passes()[2] if self._costate is None else self._costate

    def _passes(self) -> tuple[Float[Array, ""], Trajectory, Trajectory, Weights]:
        return eqx.filter_jit(backpropagate)(self.problem, self.weights)

    @property
    def gap(self) -> Float[Array, ""] | None:
        """`objective - bound`; `None` where no bound is proven."""
        return None if self.bound is None else self.objective - self.bound

    @property
    def relative_gap(self) -> Float[Array, ""] | None:
        """The gap over `|objective|`; `None` where no bound is proven."""
        if self.gap is None:
            return None
        return self.gap / jnp.maximum(jnp.abs(self.objective), jnp.finfo(self.objective.dtype).tiny)

    @property
    def stated(self) -> ControlProblem:
        """The problem whose gradient vanishes here: with a terminal constraint, the one that its
        multipliers augment."""
        nu = self.terminal_multiplier
        return self.problem if nu is None else augmented(self.problem, nu, 1.0)

    def as_record(self) -> Record:
        """What this result says of itself."""
        return _record(self)


def _record(solution: Solution) -> Record:
    s = solution.stats
    size = sum(a.size for a in jax.tree.leaves(solution.weights))
    name = name_of(solution.result)
    proof = {} if solution.bound is None else _proof(solution)
    known = not np.isnan(s["stationarity"])
    left = figure(s["stationarity"], 3)
    best = f"within {figure(solution.gap, 3)} of the best possible"
    said = best if proof else f"stationary to {left}"
    effort = {
        "steps": f"{s['num_steps']}   ({s['num_evals']} evaluations)",
        "seconds": f"{s['solve_seconds']:.2f} solving, {s['compile_seconds']:.2f} compiling",
        "result": RESULTS[solution.result],
    }
    if proof and name in GOOD:  # the gap says more than how the iteration ended
        effort = {"steps": f"{s['num_steps']}   in {s['solve_seconds']:.2f} s"}
    return Record(
        f"Solution by {solution.solver}",
        f"objective {figure(Quantity(s['objective'], 12))}, {said}",
        verdict=name.replace("_", " "),
        tone="good" if name in GOOD else "partial",
        facts={
            "problem": f"{solution.problem.num_samples} samples, {len(solution.problem.chain)} stages, "
            f"{size} weights, {np.dtype(solution.problem.dtype).name}",
            "objective": Quantity(s["objective"], 12),
            **({"stationarity": f"{left}   (max |dH/dtheta|)"} if known else {}),
        }
        | effort
        | proof,
        lead=("objective", "bound below", "gap") if proof else ("objective", "stationarity"),
        trace=tuple(solution.history.objective),
    )


def _proof(solution: Solution) -> dict[str, Any]:
    """What is proven of a convex answer."""
    found: dict[str, Any] = {
        "bound below": Quantity(solution.bound, 12),
        "gap": f"{figure(solution.gap, 3)}   (relative {figure(solution.relative_gap, 3)})",
    }
    if solution.theorem is not None:
        found["theorem"] = f"{solution.theorem.name}. {solution.theorem.statement}"
        found["not covered"] = solution.theorem.limits
    return found

"""What every solver returns: weights, states, costates, how it went, and what is proven.

Every solver fills the same keys of `stats`: num_steps, num_evals, objective, stationarity,
compile_seconds, solve_seconds, other_seconds (NaN where a solver does not measure one; `message` where
there is something to say; `path`, the levels of a homotopy). The three times add up to the call's.

    gap = objective - bound        no weights within the theorem's reach are better by more
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from hjcontrol._ground.arguments import admits, fits
from hjcontrol._ground.meshes import automatic, off_the_mesh
from hjcontrol._ground.record import Quantity, Record, Told, figure
from hjcontrol._ground.results import GOOD, RESULTS, name_of
from hjcontrol._ground.shown import Shown
from hjcontrol._ground.trees import Tree, TreeLike
from hjcontrol.control.derivatives import backpropagate
from hjcontrol.control.ensemble import arrays, sequences
from hjcontrol.control.feedback import Feedback
from hjcontrol.control.pricing import lagrangian
from hjcontrol.control.problem import ControlProblem
from hjcontrol.control.trajectory import Trajectory
from hjcontrol.networks import Chain, Weights
from hjcontrol.networks.model import trained

STATS = (
    "num_steps",
    "num_evals",
    "objective",
    "stationarity",
    "compile_seconds",
    "solve_seconds",
    "other_seconds",
)


def stats_of(
    steps: int, evals: int, objective: Any, stationarity: Any, compiling: float, solving: float
) -> dict[str, Any]:
    """What every solver says of its run; `other_seconds` is the caller's to set."""
    numbers = (float(objective), float(stationarity), compiling, solving, 0.0)
    return dict(zip(STATS, (steps, evals, *numbers), strict=True))


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

    `path_multipliers`: those of the constraints along depth, by name, beside the mean over samples:
    `(n, K + 1, m)`, zero where a constraint is not imposed; a number of a `Budget`.
    Of `riccati` and `ddp` on few states also the `feedback`: gains, and what their closed loop does.

    Of a convex training problem also a `bound` below the objective, the `theorem` behind it, and
    `native`, the answer in the problem's own variables (`native.candidate`, `native.dual`). All three are
    `None` where nothing is proven.

    **Example:**

        >>> import jax, jax.numpy as jnp, hjcontrol as hj
        >>> x = jnp.array([[1.0], [-0.5]])
        >>> stages = [hj.networks.Residual(hj.networks.Dense(1, 1), 0.5)] * 3
        >>> problem = hj.ControlProblem(
        ...     stages, x, jnp.sin(x), terminal=hj.least_squares, running=hj.Ridge(0.1)
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
    path_multipliers: Mapping[str, Array] | None = None
    weight_multipliers: Weights | None = None
    bound: Float[Array, ""] | None = None
    theorem: Theorem | None = None
    native: Any = None
    feedback: Feedback | None = None

    @property
    @off_the_mesh
    def trajectory(self) -> Trajectory:
        """The states `x_0 .. x_K` of all samples."""
        return self._passes()[1] if self._trajectory is None else self._trajectory

    @property
    @off_the_mesh
    def costate(self) -> Trajectory:
        """The costates `p_0 .. p_K` of all samples, `p_k = dJ/dx_k`."""
        return self._passes()[2] if self._costate is None else self._costate

    @property
    @off_the_mesh
    def model(self) -> Any:
        """The trained model, of the kind that the problem was stated with: an `eqx.Module`, a pair
        `(apply, params)`, a flax NNX module, or a list of pieces. In a list, a stage of this library,
        which has no weights in it, comes back as a piece that has, `(step, theta)`."""
        chain, model = self.problem.chain, self.problem.model
        stages = [chain[k] for k in range(len(chain))] if model is None else model
        return trained(stages, chain, self.weights)

    @admits()
    def predict(self, inputs: Any, *, forcing: Any = None, context: Any = None) -> Tree:
        """Final states of new samples: what the trained model answers.

        **Arguments:** `inputs`, `forcing`, `context`: as `ControlProblem` takes them, `(m, ...)`.

        **Raises:** `ValueError` for samples that are not shaped as the problem's.
        """
        given = {"inputs": inputs, "forcing": sequences(forcing), "context": context}
        return _predicted(self.problem, self.weights, given)

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
        """The problem whose gradient vanishes here: with constraints, the one that their multipliers
        price."""
        return priced_by(self.problem, self.terminal_multiplier, self.path_multipliers)

    def as_record(self) -> Record:
        """What this result says of itself."""
        return _record(self)


def _predicted(problem: ControlProblem, weights: Weights, ensemble: dict[str, Any]) -> Tree:
    tree = lambda name, a: None if a is None else fits("predict", name, arrays(a), TreeLike)
    given = tuple(tree(name, a) for name, a in ensemble.items())
    new = automatic(jax.tree.map(lambda a: jnp.asarray(a, problem.dtype), given))
    inputs = problem.inputs if problem.stream is None else problem.stream.first[0]
    old = (inputs, problem.forcing, problem.context)
    shapes = [jax.tree.map(lambda a: jnp.shape(a)[1:], tree) for tree in (old, new)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"predict: one sample's (inputs, forcing, context) must have shapes {shapes[0]}; found "
            f"{shapes[1]}."
        )
    return _answers(problem.chain, weights, *new)


@eqx.filter_jit
def _answers(chain: Chain, weights: Weights, inputs: Any, forcing: Any, context: Any) -> Any:
    return jax.vmap(lambda x, u: chain(weights, x, u))(
        inputs, chain.given(forcing, context, samples=True)
    )


def priced_by(problem: ControlProblem, nu: Any, path: Any) -> ControlProblem:
    """The problem that these multipliers price; the problem itself without any."""
    if path is not None:
        return lagrangian(problem, nu, path)
    return problem if nu is None else lagrangian(problem, nu)


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
        **({"message": s["message"]} if _tells(solution) else {}),
    }
    if proof and name in GOOD:  # the gap says more than how the iteration ended
        effort = {"steps": f"{s['num_steps']}   in {s['solve_seconds']:.2f} s"}
    return Record(
        f"Solution by {solution.solver}",
        f"objective {figure(Quantity(s['objective'], 12))}, {said}",
        verdict=name.replace("_", " "),
        tone="good" if name in GOOD else "partial",
        facts={
            "problem": f"{_samples(solution.problem)}, {len(solution.problem.chain)} stages, {size} "
            f"weights, {np.dtype(solution.problem.dtype).name}",
            "objective": Quantity(s["objective"], 12),
            **({"stationarity": f"{left}   (max |dH/dtheta|)"} if known else {}),
        }
        | effort
        | proof,
        lead=("objective", "bound below", "gap") if proof else ("objective", "stationarity"),
        trace=tuple(solution.history.objective),
    )


def _tells(solution: Solution) -> bool:
    """Whether the message says more than the result: why it is none, or to what in fewer bits."""
    plain = name_of(solution.result) in GOOD and solution.problem.dtype == jnp.float64
    return bool(solution.stats.get("message")) and not plain


def _samples(problem: ControlProblem) -> str:
    unknown = problem.stream is not None and problem.stream.rows is None
    return "batches of a loader" if unknown else f"{problem.num_samples} samples"


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

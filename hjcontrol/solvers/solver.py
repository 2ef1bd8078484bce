"""What a solving method must supply; the loop itself is the driver's.

    state = init(problem, weights)      state = step(problem, state)      ... until terminate
    weights = postprocess(problem, state)

`state` is what the next step needs; `Info` is what a person reads. Methods are immutable, know
nothing of each other, and never loop over steps themselves.
"""

import abc
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from hjcontrol._ground.results import RESULTS
from hjcontrol._ground.shown import Shown
from hjcontrol.control import ControlProblem, Free, Solution, Trajectory
from hjcontrol.control.feedback import Feedback
from hjcontrol.control.units import Units
from hjcontrol.networks import Weights

Ending = tuple[Bool[Array, ""], RESULTS]  # whether to stop, and with which result


class Info(Shown):
    """Where a method stands: `J`, the stationarity `max |dH/dtheta|`, gradient evaluations so far."""

    objective: Float[Array, ""]
    stationarity: Float[Array, ""]
    num_evals: Int[Array, ""]


class Outcome(Shown):
    """What a method hands back: weights, and for transcriptions the multipliers and a message; `path`:
    the levels of a homotopy; `feedback`: gains about the states; `states`, `objective`: where states are
    found apart from the weights (a closed loop, a program's variables), these and `J` along them; `mesh`:
    whether they approximate a flow; `enough`: the stationarity at which weights that are better than the
    last state's are an answer, where that state had stagnated."""

    weights: Weights
    multipliers: Trajectory | None = None
    terminal_multiplier: Float[Array, "n m"] | None = None
    path_multipliers: Mapping[str, Array] | None = None
    weight_multipliers: Weights | None = None
    message: str | None = eqx.field(static=True, default=None)
    path: list[dict[str, float]] | None = None
    feedback: Feedback | None = None
    states: Trajectory | None = None
    objective: Float[Array, ""] | None = None
    mesh: bool = eqx.field(static=True, default=False)
    enough: float | None = eqx.field(static=True, default=None)

    def settled(
        self, result: RESULTS, message: str | None, stationarity: float
    ) -> tuple[RESULTS, str | None]:
        """Result and message, by what the driver has measured at these weights."""
        if self.enough is None or not bool(result == RESULTS.stagnated):
            return result, message
        good = stationarity <= self.enough
        return (RESULTS.successful, None) if good else (result, message)

    def coarse(self, rolled: Trajectory) -> str | None:
        """By how much the states of a mesh differ from a rollout of the flow; `None` if by little."""
        if not self.mesh or self.states is None:
            return None
        gaps = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), rolled, self.states)
        gap = max(jax.tree.leaves(gaps))
        size = max(float(jnp.abs(a).max()) for a in jax.tree.leaves(rolled))
        if gap <= MESH * size:
            return None
        return (
            f"the states at the mesh and those of the flow's own solver differ by {gap:.2g}, the states "
            f"being at most {size:.2g}."
        )

    def doubt(self, problem: ControlProblem, value: Float[Array, ""]) -> str | None:
        """Why `J` of a rollout of the weights, `value`, is not that of the states; `None` if it is."""
        if self.feedback is not None:
            return self.feedback.doubt(problem, value)
        if self.objective is None:
            return None
        right, found = float(self.objective), float(value)
        if abs(found - right) <= GROSS * abs(right) + GROSS**2:
            return None
        return f"J = {right:.10g} along the program's states, {found:.4g} along a rollout of the weights."


def summed(problem: ControlProblem, solver: Any) -> bool:
    """Whether a solver takes all samples a step, of arrays or of a memory map that is read in chunks."""
    whole = getattr(solver, "batch_size", None) is None
    if problem.stream is None:
        return whole
    return whole and solver.sums and problem.stream.rows is not None


MESH = 1e-3  # of the largest state
GROSS = 1e-2  # beyond what a program's tolerance on its constraints explains
Report = Callable[[int, float, float], None]  # step, objective, stationarity


SETS = {
    "free": lambda found: isinstance(found, Free),
    "bounds": lambda found: found.elementwise,
    "smooth": lambda found: found.smooth,
    "convex": lambda found: found.convex,
    "any": lambda found: True,
}
MEANING = {
    "free": "no constraint",
    "bounds": "each weight has bounds of its own",
    "smooth": "smooth constraints with multipliers; a vanishing row of a GroupBall has none",
    "convex": "a projected gradient step means something",
    "any": "every set",
}


class AbstractSolver(Shown):
    """A solving method, with what it declares:

    - `traceable`: the driver runs its steps inside one jitted program.
    - `asks`: the derivative that every stage must have.
    - `sets`: the control sets it treats, a key of `SETS`.
    - `minibatch`: whether a step may use part of the samples.
    - `streams`: whether batches may come from outside; then it has `arriving`.
    - `sums`: whether it asks for sums over samples alone (J, its gradient, curvature times a vector), so
      that a memory map can be read in chunks.
    - `duals`: whether it returns multipliers of its own.
    - `flows`: whether a stage may be a `Flow`, of continuous depth.
    - `couples`: whether a cost may couple the weights of different stages (`Smoothing`).
    - `terminal`: whether it takes a constraint on the final states.
    - `path`: whether it takes constraints along depth.
    - `priced`: whether `AugmentedLagrangian` may make costs of constraints for it; then it has a `tol`,
      and its state has `weights`.
    - `ensemble`: most samples it is meant for; `None` for any number.
    - `package`: the third-party package that it runs on; `None` for JAX and optax.
    """

    made_by: ClassVar[str] = " (an optimiser of optax becomes one by `hj.Gradient(optimiser)`)"

    traceable: ClassVar[bool] = True
    asks: ClassVar[str] = "reverse"
    sets: ClassVar[str] = "convex"
    minibatch: ClassVar[bool] = False
    streams: ClassVar[bool] = False
    sums: ClassVar[bool] = False
    duals: ClassVar[bool] = False
    flows: ClassVar[bool] = True
    couples: ClassVar[bool] = False
    terminal: ClassVar[bool] = False
    path: ClassVar[bool] = False
    priced: ClassVar[bool] = False
    ensemble: ClassVar[int | None] = None
    package: ClassVar[str | None] = None
    default_max_steps: ClassVar[int] = 1000

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """How tables and reports call the method."""

    def check(self, problem: ControlProblem) -> None:
        """Raise `ValueError` if the method cannot treat the problem: what its declarations do not say."""
        del problem

    def ready(self) -> None:
        """Raise `ValueError` or `MissingPackageError` unless what the method runs on is installed."""

    def tried(self, problem: ControlProblem) -> None:
        """Raise `ValueError` if what the method makes of the problem cannot be built: asked where the
        method would be chosen, for the answer may take time."""
        del problem

    def nearby(self) -> "AbstractSolver":
        """The same method, for a start that is nearly solved: without what only pays far away."""
        return self

    def continued(self, start: Solution) -> "AbstractSolver":
        """The same method, beginning at another's solution: what it can use besides the weights."""
        del start
        return self

    def guessed(self, states: tuple[Array, ...]) -> "AbstractSolver":
        """The same method, beginning at these states, `(n, ...)` at each depth.

        **Raises:** `ValueError` if it has no states of its own.
        """
        raise ValueError(
            f"{self.name}: it rolls out its weights, so it cannot begin at states (`Guess`). Use "
            "'direct', or Shooting with `segments` above 1; or pass the weights alone."
        )

    def measuring(self, units: Units) -> "AbstractSolver":
        """The same method with its tolerances in the problem's own units (see `control.units`), which
        the driver measures at the start. Without tolerances there is nothing to do."""
        del units
        return self

    def said(self, problem: ControlProblem) -> str | None:
        """To what tolerance a problem in less than 64 bits is solved; `None` in 64 bits."""
        tol = getattr(self, "tol", None)
        if tol is None or problem.dtype == jnp.float64:
            return None
        unit = float(getattr(self, "unit", 1.0))
        return f"In {problem.dtype}: max |dH/dtheta| <= {float(tol) * unit:.1e}."

    def arriving(self) -> "AbstractSolver":
        """The same method, of whose steps each is given the batch that it takes.

        **Raises:** `ValueError` if it cannot work so.
        """
        raise ValueError(f"{self.name}: it takes no batches from outside. Use hj.Gradient.")

    @abc.abstractmethod
    def init(self, problem: ControlProblem, weights: Weights, key: Key[Array, ""] | None) -> Any:
        """State at the start."""

    @abc.abstractmethod
    def step(self, problem: ControlProblem, state: Any) -> Any:
        """State after one more step."""

    @abc.abstractmethod
    def info(self, state: Any) -> Info:
        """What a person reads of a state."""

    @abc.abstractmethod
    def terminate(self, problem: ControlProblem, state: Any) -> Ending:
        """Whether to stop, and with which result."""

    def settled(self, problem: ControlProblem, state: Any) -> ControlProblem:
        """The problem as a state leaves it: with what a model carries besides its weights."""
        del state
        return problem

    @abc.abstractmethod
    def postprocess(self, problem: ControlProblem, state: Any) -> Outcome:
        """The weights of a state, and what else there is to say, which may be read on the host."""

    def found(self, problem: ControlProblem, state: Any) -> Weights:
        """The weights of a state alone, by a function that may be traced."""
        return self.postprocess(problem, state).weights


class AbstractHostSolver(AbstractSolver):
    """A method whose steps run outside JAX. One `step` is one call of the third-party solver, whose
    inner iterations count as the solve's steps.
    """

    traceable: ClassVar[bool] = False

    @abc.abstractmethod
    def hosted(self, report: Report, max_steps: int) -> "AbstractHostSolver":
        """The same method, reporting each inner iteration and making at most `max_steps` of them."""

"""What a solving method must supply; the loop itself is the driver's.

    state = init(problem, weights)      state = step(problem, state)      ... until terminate
    weights = postprocess(problem, state)

`state` is what the next step needs; `Info` is what a person reads. Methods are immutable, know
nothing of each other, and never loop over steps themselves.
"""

import abc
from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
from jaxtyping import Array, Bool, Float, Int, Key

from hjcontrol._ground.results import RESULTS
from hjcontrol._ground.shown import Shown
from hjcontrol.control import (
    ControlProblem,
    Free,
    Solution,
    Trajectory,
)
from hjcontrol.control.units import Units
from hjcontrol.networks import Weights


class Info(Shown):
    """Where a method stands: `J`, the stationarity `max |dH/dtheta|`, gradient evaluations so far."""

    objective: Float[Array, ""]
    stationarity: Float[Array, ""]
    num_evals: Int[Array, ""]


class Outcome(Shown):
    """What a method hands back: weights, and for transcriptions the multipliers and a message; `path`:
    the levels of a homotopy."""

    weights: Weights
    multipliers: Trajectory | None = None
    terminal_multiplier: Float[Array, "n m"] | None = None
    weight_multipliers: Weights | None = None
    message: str | None = eqx.field(static=True, default=None)
    path: list[dict[str, float]] | None = None


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
    - `duals`: whether it returns multipliers of its own.
    - `flows`: whether a stage may be a `Flow`, of continuous depth.
    - `couples`: whether a cost may couple the weights of different stages (`Smoothing`).
    - `terminal`: whether it takes a constraint on the final states.
    - `ensemble`: most samples it is meant for; `None` for any number.
    - `package`: the third-party package that it runs on; `None` for JAX and optax.
    """

    traceable: ClassVar[bool] = True
    asks: ClassVar[str] = "reverse"
    sets: ClassVar[str] = "convex"
    minibatch: ClassVar[bool] = False
    duals: ClassVar[bool] = False
    flows: ClassVar[bool] = True
    couples: ClassVar[bool] = False
    terminal: ClassVar[bool] = False
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

    def continued(self, start: Solution) -> "AbstractSolver":
        """The same method, beginning at another's solution: what it can use besides the weights."""
        del start
        return self

    def measuring(self, units: Units) -> "AbstractSolver":
        """The same method with its tolerances in the problem's own units (see `control.units`), which
        the driver measures at the start. Without tolerances there is nothing to do."""
        del units
        return self

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
    def terminate(self, problem: ControlProblem, state: Any) -> tuple[Bool[Array, ""], RESULTS]:
        """Whether to stop, and with which result."""

    @abc.abstractmethod
    def postprocess(self, problem: ControlProblem, state: Any) -> Outcome:
        """The weights of a state."""


class AbstractHostSolver(AbstractSolver):
    """A method whose steps run outside JAX. One `step` is one call of the third-party solver, whose
    inner iterations count as the solve's steps.
    """

    traceable: ClassVar[bool] = False

    @abc.abstractmethod
    def hosted(self, report: Report, max_steps: int) -> "AbstractHostSolver":
        """The same method, reporting each inner iteration and making at most `max_steps` of them."""

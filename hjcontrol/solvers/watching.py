"""What looks at a run while it lasts, and may end it: a callback, and samples held out.

    every `every` steps     v = validation cost at the weights          stop = callback(standing)
    patience p              stop after p looks without a new smallest v; its weights are kept

The looks come at fixed steps, whatever the clock says, so that a run can be repeated.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import PyTree

from hjcontrol._ground.annotations import shown
from hjcontrol._ground.arguments import answers, fits
from hjcontrol._ground.shown import Shown
from hjcontrol.control import ControlProblem
from hjcontrol.control.finiteness import data_not_finite
from hjcontrol.networks import Weights
from hjcontrol.solvers.solver import AbstractSolver, Outcome


class Standing(Shown):
    """What a callback reads: `step`, `objective` and `stationarity` (of the batch, with minibatches),
    `seconds` since the start, the `weights`, and the `validation` cost, `None` without such samples."""

    step: int
    objective: float
    stationarity: float
    seconds: float
    weights: PyTree
    validation: float | None


class Watch:
    """The looks of one run. `best`: the state of the smallest validation cost, where `patience` asks."""

    def __init__(
        self,
        problem: ControlProblem,
        callback: Callable[[Standing], Any] | None,
        validation: Any,
        patience: int | None,
        every: int,
    ):
        if callback is not None and not callable(callback):
            raise ValueError(f"solve: `callback` must be a function; found {callback!r}.")
        if callback is not None:
            answers("solve", "callback", callback, "info")
        if patience is not None and validation is None:
            raise ValueError("solve: `patience` counts looks at `validation`; found none. Pass it.")
        self.every = fits("solve", "every", every, int, ">= 1")
        self.patience = (
            None if patience is None else fits("solve", "patience", patience, int, ">= 1")
        )
        self.callback, self.held_out = callback, None
        if validation is not None:
            self.held_out = _held_out(problem, validation)
        self.rows: list[tuple[int, float]] = []
        self.smallest, self.since, self.best, self.looked = math.inf, 0, None, -1
        self.why: str | None = None

    def left(self, step: int) -> int:
        """Steps until the next look."""
        return self.every - step % self.every

    def look(self, solver: AbstractSolver, problem: Any, state: Any, row: tuple) -> str | None:
        """Look at the state behind `row`, (step, objective, stationarity, seconds); why to stop, or
        `None`."""
        step, objective, stationarity, seconds = row
        if step % self.every or step == self.looked:
            return None
        weights, value = solver.postprocess(problem, state).weights, None
        if self.held_out is not None:
            value = self._measured(solver, weights, state, step)
        standing = Standing(step, objective, stationarity, seconds, weights, value)
        if self.callback is not None and _true(self.callback(standing)):
            self.why = f"The callback stopped the run at step {step}."
        elif self.patience is not None and self.since >= self.patience:
            least = f"No smaller validation cost than {self.smallest:.6g}"
            least = "No validation cost that is a finite number" if self.best is None else least
            which = "the last" if self.best is None else "its"
            self.why = (
                f"{least} in the last {self.since} looks, one every {self.every} steps; {which} weights "
                "are returned."
            )
        return self.why

    def end(self, solver: AbstractSolver, problem: Any, state: Any, row: tuple) -> None:
        """Measure the cost of the samples held out where the run ended, whatever the step."""
        if self.held_out is not None and row[0] != self.looked:
            self._measured(solver, solver.postprocess(problem, state).weights, state, row[0])

    def kept(self, state: Any) -> Any:
        """The state whose weights are returned: that of the smallest validation cost, or the last."""
        return state if self.best is None else self.best

    def told(self, outcome: Outcome) -> Outcome:
        """The outcome, and why the run ended."""
        return dataclasses.replace(outcome, message=self.why or outcome.message)

    def _measured(self, solver: AbstractSolver, weights: Weights, state: Any, step: int) -> float:
        value = float(_cost(solver.settled(self.held_out, state), weights))
        self.rows.append((step, value))
        self.looked, self.since = step, self.since + 1
        if value < self.smallest:
            self.smallest, self.since = value, 0
            self.best = None if self.patience is None else state
        return value

    def stats(self) -> dict[str, Any]:
        """What is told of it: `validation`, a row a look, (step, cost)."""
        return {} if self.held_out is None else {"validation": np.asarray(self.rows).reshape(-1, 2)}


def _held_out(problem: ControlProblem, validation: Any) -> ControlProblem:
    """The problem on samples held out.

    **Raises:** `ValueError` for samples unlike the problem's, or that are not finite.
    """
    targets = problem.targets if problem.stream is None else problem.stream.first[1]
    pair = isinstance(validation, (tuple, list)) and len(validation) == 2
    pair = pair and (targets is not None or validation[1] is None)
    asked = "inputs" if targets is None else "a pair (inputs, targets)"
    try:
        found = problem.on(*(validation if pair else (validation,)))
    except ValueError as error:
        raise ValueError(
            f"solve: `validation` must be {asked} like the problem's. {error}"
        ) from None
    words = data_not_finite({"inputs": found.inputs, "targets": found.targets})
    if words is not None:
        raise ValueError(
            f"solve: `validation` must be finite, or no look tells anything: its {words} Leave those "
            "samples out."
        )
    return found


def _true(answer: Any) -> bool:
    try:
        return bool(answer)
    except Exception as error:  # an array of several, or whatever the user's object raises
        raise ValueError(
            f"solve: `callback` must answer true, to stop, or false; found {shown(answer)}."
        ) from error


@eqx.filter_jit
def _cost(problem: ControlProblem, weights: Weights) -> Any:
    return problem.data_cost(weights)


def watching(
    problem: ControlProblem,
    solver: AbstractSolver,
    callback: Any,
    validation: Any,
    patience: Any,
    every: int,
    checkpoint: Any,
) -> Watch | None:
    """The looks asked for; `None` for none.

    **Raises:** `ValueError` for a method that runs outside JAX, or a patience that no checkpoint keeps.
    """
    if callback is None and validation is None and patience is None:
        return None
    if not solver.traceable:
        raise ValueError(
            f"solve: {solver.name} runs outside JAX, and is asked nothing between its steps. Leave "
            "`callback`, `validation` and `patience` out, or use 'gradient' or 'newton'."
        )
    if patience is not None and checkpoint is not None:
        raise ValueError(
            "solve: `patience` counts looks, and no checkpoint keeps the count. Leave one of the two out."
        )
    return Watch(problem, callback, validation, patience, every)

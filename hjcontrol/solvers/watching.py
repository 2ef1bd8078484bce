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

from hjcontrol._ground.arguments import fits
from hjcontrol._ground.shown import Shown
from hjcontrol.control import ControlProblem
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
        if patience is not None and validation is None:
            raise ValueError("solve: `patience` counts looks at `validation`; found none. Pass it.")
        self.every = fits("solve", "every", every, int, ">= 1")
        self.patience = (
            None if patience is None else fits("solve", "patience", patience, int, ">= 1")
        )
        self.callback, self.held_out = callback, None
        if validation is not None:
            pair = isinstance(validation, (tuple, list)) and len(validation) == 2
            self.held_out = problem.on(*(validation if pair else (validation,)))
        self.rows: list[tuple[int, float]] = []
        self.smallest, self.since, self.best, self.looked = math.inf, 0, None, 0
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
        self.looked = step
        weights, value = solver.postprocess(problem, state).weights, None
        if self.held_out is not None:
            value = float(_cost(solver.settled(self.held_out, state), weights))
            self.rows.append((step, value))
            self._judge(value, state)
        if self.callback is not None and self.callback(
            Standing(step, objective, stationarity, seconds, weights, value)
        ):
            self.why = f"The callback stopped the run at step {step}."
        elif self.patience is not None and self.since >= self.patience:
            self.why = (
                f"No smaller validation cost than {self.smallest:.6g} in the last {self.since} looks, "
                f"one every {self.every} steps; its weights are returned."
            )
        return self.why

    def kept(self, state: Any) -> Any:
        """The state whose weights are returned: that of the smallest validation cost, or the last."""
        return state if self.best is None else self.best

    def told(self, outcome: Outcome) -> Outcome:
        """The outcome, and why the run ended."""
        return dataclasses.replace(outcome, message=self.why or outcome.message)

    def _judge(self, value: float, state: Any) -> None:
        self.since += 1
        if value < self.smallest:
            self.smallest, self.since = value, 0
            self.best = None if self.patience is None else state

    def stats(self) -> dict[str, Any]:
        """What is told of it: `validation`, a row a look, (step, cost)."""
        return {} if self.held_out is None else {"validation": np.asarray(self.rows).reshape(-1, 2)}


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

"""The work of `crosscheck`: one problem solved several ways, each solution before the witness.

    lift(d, width) -> depth x [x + h tanh(W x + b)] -> readout(width, classes)
    J = mean cross-entropy + ridge/2 |theta|^2

All solvers start from the same weights. Those whose steps grow with samples, depth and weights together
(direct and the like) have a small copy of the problem, which Newton solves too. What is finished is kept
on the trial as it comes, so that an interruption loses nothing of it.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from hjcontrol import networks
from hjcontrol.cli.errors import CommandError
from hjcontrol.cli.memory import check_memory
from hjcontrol.cli.settings import ALL, SOLVERS, Settings
from hjcontrol.cli.terminal import Screen
from hjcontrol.comparison import crosscheck
from hjcontrol.control import ControlProblem, Ridge, Solution, softmax_cross_entropy
from hjcontrol.data import DataSet, split, subset
from hjcontrol.solvers import by_name, solve
from hjcontrol.verification import verify

OPTIONS = {"newton": {"tol": 1e-12}}  # the others stop at their own tolerances
ROUTES = ("backprop", "pairing", "recursion", "finite_difference")
# An interior-point method factorises a matrix over all samples, stages and weights together, and
# weights shared by all samples fill it in: beyond this size it takes minutes.
SMALL_WIDTH, SMALL_DEPTH = 4, 2
LARGE = ("gradient", "adam", "newton", "gauss-newton")  # all others have the small copy
# Stationary points abound, some 1e-6 apart in objective, and from random weights two good methods
# often end at different ones. Both start near one of them: every weight of a point of stationarity
# 1e-6 is moved by a random 5 %, which puts the gradient back to about 1e-3.
SMALL_START, SMALL_MOVE = 1e-6, 0.05
SMALL_NEWTON = "newton, small copy"


@dataclasses.dataclass
class Trial:
    """Data, settings, and what is finished so far."""

    settings: Settings
    data: DataSet
    train: DataSet
    test: DataSet
    keys: jax.Array
    solutions: dict[str, Solution] = dataclasses.field(default_factory=dict)
    small_newton: Solution | None = None
    small_comparison: Any = None
    certificates: dict[str, Any] = dataclasses.field(default_factory=dict)
    comparisons: dict[str, Any] = dataclasses.field(default_factory=dict)
    refused: dict[str, str] = dataclasses.field(default_factory=dict)  # solver to reason
    interrupted: bool = False
    # Called when a solver has finished, before its solution is verified: what is solved is written.
    keep: Callable[["Trial"], object] = lambda trial: None

    @property
    def test_pair(self) -> tuple[Any, Any]:
        """Inputs and labels that no solver has seen."""
        return self.test.features, self.test.targets


def prepare(settings: Settings, data: DataSet) -> Trial:
    """Split the data. One seed, five keys: split, start, subset, small start, probes."""
    keys = jax.random.split(jax.random.key(settings.seed), 5)
    parts = split(data, settings.train_size, key=keys[0])
    if ALL in settings.solver:
        settings = dataclasses.replace(settings, solver=SOLVERS)
    if set(settings.solver) - set(LARGE) and settings.direct_samples > len(parts.train):
        settings = dataclasses.replace(settings, direct_samples=len(parts.train))
    return Trial(settings, data, parts.train, parts.test, keys)


def network(settings: Settings, data: DataSet, width: int, depth: int) -> ControlProblem:
    """The control problem on a data set."""
    residual = networks.Residual(networks.Dense(width, width, jnp.tanh), settings.step)
    stages = [
        networks.lift(data.features.shape[1], width),
        *[residual] * depth,
        networks.readout(width, len(data.classes)),
    ]
    problem = ControlProblem(
        stages,
        jnp.asarray(data.features),
        jnp.asarray(data.targets),
        terminal=softmax_cross_entropy,
        running=Ridge(settings.ridge),
    )
    check_memory(problem)
    return problem


def small(settings: Settings) -> tuple[int, int]:
    """Width and depth of the small copy."""
    return min(settings.width, SMALL_WIDTH), min(settings.depth, SMALL_DEPTH)


def perform(trial: Trial, screen: Screen) -> None:
    """Solve, verify and compare; Ctrl-C ends the work, and what is finished stays.

    **Raises:** `CommandError` if no solver that was asked for can treat the problem.
    """
    try:
        _full_problem(trial, screen)
        _small_problem(trial, screen)
    except KeyboardInterrupt:
        trial.interrupted = True
    if len(trial.refused) == len(trial.settings.solver):
        words = "; ".join(f"{name}: {reason}" for name, reason in trial.refused.items())
        raise CommandError(f"no solver can treat this problem. {words}")


def _applicable(trial: Trial, problem: ControlProblem, large: bool) -> list[str]:
    """Solvers asked for that can treat the problem; of the others, why not."""
    names = [name for name in trial.settings.solver if (name in LARGE) == large]
    for name in names:
        try:
            method = by_name(name, **OPTIONS.get(name, {}))
            method.check(problem)
        except ValueError as error:
            trial.refused[name] = str(error)
    return [name for name in names if name not in trial.refused]


def _full_problem(trial: Trial, screen: Screen) -> None:
    s = trial.settings
    problem = network(s, trial.train, s.width, s.depth)
    names = _applicable(trial, problem, large=True)
    if not names:
        return
    start = problem.init(trial.keys[1])
    for name in names:
        trial.solutions[name] = _solve(problem, name, start, screen)
        trial.keep(trial)
        _verify(trial, name, trial.solutions[name], screen)
    if len(names) > 1:
        certificates = [trial.certificates[n] for n in names]
        solutions = [trial.solutions[n] for n in names]
        trial.comparisons[" against ".join(names)] = _compare(
            problem, solutions, certificates, screen
        )


def _small_problem(trial: Trial, screen: Screen) -> None:
    s = trial.settings
    if not set(s.solver) - set(LARGE):
        return
    few = subset(trial.train, s.direct_samples, key=trial.keys[2])
    problem = network(s, few, *small(s))
    names = _applicable(trial, problem, large=False)
    if not names:
        return
    with screen.progress("start, small copy") as progress:
        near = by_name("newton", tol=SMALL_START)
        drawn = problem.init(trial.keys[3])
        start = _moved(solve(problem, near, init=drawn, progress=progress).weights, trial.keys[3])
    trial.small_newton = _solve(problem, "newton", start, screen, SMALL_NEWTON)
    for name in names:
        trial.solutions[name] = _solve(problem, name, start, screen)
        trial.keep(trial)
        _verify(trial, name, trial.solutions[name], screen)
    trial.small_comparison = _compare(
        problem,
        [trial.small_newton, *(trial.solutions[n] for n in names)],
        [verify(trial.small_newton, key=trial.keys[4]), *(trial.certificates[n] for n in names)],
        screen,
    )
    trial.comparisons[f"newton against {', '.join(names)}, small copy"] = trial.small_comparison


def _moved(weights: Any, key: jax.Array) -> Any:
    """Every weight times `1 + SMALL_MOVE N(0, 1)`."""
    leaves, structure = jax.tree.flatten(weights)
    keys = jax.random.split(key, len(leaves))
    noise = [jax.random.normal(k, a.shape, a.dtype) for k, a in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(
        structure, [a * (1 + SMALL_MOVE * z) for a, z in zip(leaves, noise, strict=True)]
    )


def _solve(
    problem: ControlProblem, name: str, start: Any, screen: Screen, title: str | None = None
) -> Solution:
    with screen.progress(title or name) as progress:
        return solve(problem, by_name(name, **OPTIONS.get(name, {})), init=start, progress=progress)


def _compare(
    problem: ControlProblem, solutions: list[Solution], certificates: list[Any], screen: Screen
) -> Any:
    with screen.progress("polishing") as progress:
        return crosscheck(
            problem,
            *solutions,
            polish=by_name("newton", **OPTIONS["newton"], switch=1.0),  # near: no cheap steps
            certificates=certificates,
            progress=progress,
        )


def _verify(trial: Trial, name: str, solution: Solution, screen: Screen) -> None:
    screen.line(f"{name:<16} verifying the costate")
    full = name in LARGE  # of the small copy, the curvature says nothing that is asked
    trial.certificates[name] = verify(
        solution, routes=ROUTES, key=trial.keys[4], second_order=full, minimum=full
    )

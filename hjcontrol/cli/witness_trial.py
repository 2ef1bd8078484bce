"""The work of `hjcontrol verify`.

A function is verified as it comes; a network is stated on the data, verified, trained, verified again.
"""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from hjcontrol.cli.errors import CommandError
from hjcontrol.cli.network_source import Target
from hjcontrol.cli.terminal import Screen
from hjcontrol.control import ControlProblem
from hjcontrol.data import DataSet, split, subset
from hjcontrol.networks import Flow
from hjcontrol.reporting.tables import figure
from hjcontrol.solvers import by_name, solve
from hjcontrol.verification import Certificate, Pair, Row, verify

START, TRAINED = "at its start", "trained"


@dataclasses.dataclass
class Trial:
    """Targets, data for those that are networks, and what is finished so far."""

    targets: Sequence[Target]
    key: jax.Array
    train: DataSet | None = None
    test: DataSet | None = None
    certificates: dict[str, Certificate] = dataclasses.field(default_factory=dict)
    accuracies: dict[str, float] = dataclasses.field(default_factory=dict)
    interrupted: bool = False

    def pairs(self) -> list[str]:
        """Pairs of routes of any certificate."""
        return list(dict.fromkeys(p.name for c in self.certificates.values() for p in c.pairs))

    def rows(self) -> list[dict[str, str]]:
        """One row a network's certificate, every cell a string."""
        return [
            {
                "network": name,
                "stages": str(c.problem["stages"]),
                "weights": str(c.problem["weights"]),
                "J": f"{c.objective:.6g}",
                "test": figure(self.accuracies.get(name), 3),
                **{
                    pair.replace("|", " | "): " ".join(_shown(p) for p in c.pairs if p.name == pair)
                    or "–"
                    for pair in self.pairs()
                },
                "verdict": c.verdict,
                "worst at": str(c.worst or "-"),
            }
            for name, c in self.certificates.items()
            if c.pairs
        ]

    def facts(self) -> dict[str, dict[str, Any]]:
        """The same for `result.json`, stage by stage."""
        return {
            name: {
                **c.problem,
                "objective": c.objective,
                "stationarity": c.stationarity,
                "test_accuracy": self.accuracies.get(name),
                "verdict": c.verdict,
                "worst": str(c.worst) if c.worst else None,
                "disagreement": dict(c.agreement),
                "orders": {p.name: p.order[0] for p in c.pairs if p.order is not None},
                "optimality": None
                if c.optimality is None
                else {
                    "verdict": c.optimality.verdict,
                    **{r.name: [r.value, r.verdict] for r in c.optimality.conditions},
                },
                "refuted": [str(f) for f in c.refuted],
                "kinks": [str(f) for f in c.kinks],
                "by_differences": list(c.differenced),
                "per_stage": c.per_stage,
                "places": [_place(row) for row in c.rows],
            }
            for name, c in self.certificates.items()
        }


def prepare(targets: Sequence[Target], data: DataSet | None, count: int, seed: int) -> Trial:
    """Four fifths of the data to train on, of which at most `count` samples are used."""
    a, b, c = jax.random.split(jax.random.key(seed), 3)
    if data is None:
        return Trial(targets, c)
    parts = split(data, 0.8, key=a)
    train = subset(parts.train, count, key=b) if count < len(parts.train) else parts.train
    return Trial(targets, c, train, parts.test)


def perform(trial: Trial, steps: int, also: tuple[bool, bool], screen: Screen) -> None:
    """Verify every target; Ctrl-C ends the work, and what is finished stays."""
    try:
        for target in trial.targets:
            if target.program is not None:
                _function(trial, target, screen)
            elif trial.train is not None and trial.test is not None:
                _network(trial, target, (trial.train, trial.test), steps, also, screen)
    except KeyboardInterrupt:
        trial.interrupted = True


def _function(trial: Trial, target: Target, screen: Screen) -> None:
    fn, args = target.program or (None, ())
    screen.line(f"{target.name:<16} verifying every rule, at its arguments")
    with _refusals(target.name):
        trial.certificates[target.name] = verify(fn, *args, key=trial.key)


def _network(
    trial: Trial,
    target: Target,
    data: tuple[DataSet, DataSet],
    steps: int,
    also: tuple[bool, bool],
    screen: Screen,
) -> None:
    (train, test), name = data, target.name
    classes = len(train.classes)
    problem = target.problem(jnp.asarray(train.features), train.targets, classes)
    weights = problem.init(trial.key)
    screen.line(f"{name:<16} verifying the costate, {START}")
    _verify(trial, f"{name}, {START}", problem, weights, also)
    if steps == 0 or not jax.tree.leaves(weights):
        return
    with screen.progress(name) as progress:
        adam = by_name("adam")
        solution = solve(problem, adam, init=weights, max_steps=steps, progress=progress)
    screen.line(f"{name:<16} verifying the costate, {TRAINED}")
    _verify(trial, f"{name}, {TRAINED}", problem, solution.weights, also)
    on_data = _is_array(problem.inputs) and problem.inputs.shape[0] == len(train)
    if on_data and not target.own_data():
        tested = target.problem(jnp.asarray(test.features), test.targets, classes)
        final = jax.jit(lambda w: tested.rollout(w).final)(solution.weights)
        hits = jnp.argmax(final, axis=-1) == jnp.asarray(test.targets)
        trial.accuracies[f"{name}, {TRAINED}"] = float(jnp.mean(hits))


PLACE = (
    "verdict", "gap", "reach", "live", "rule", "file", "line", "function", "scope", "iteration",
    "argument", "parameter", "index", "sample", "channel", "arithmetic", "reason", "stage",
)  # fmt: skip


def _place(row: Row) -> dict[str, Any]:
    return {name: getattr(row, name) for name in PLACE}


def _shown(pair: Pair) -> str:
    """A pair's disagreement, and the order at which it shrinks where it is judged by that."""
    gap = figure(pair.disagreement, 2)
    if pair.order is None:
        return gap
    return f"{gap} (order {'-' if pair.order[0] is None else f'{pair.order[0]:.2f}'})"


def _is_array(tree: Any) -> bool:
    return hasattr(tree, "shape")


def _verify(
    trial: Trial, title: str, problem: ControlProblem, weights: Any, also: tuple[bool, bool]
) -> None:
    recursion, optimality = also
    continuous = any(isinstance(run.stage, Flow) for run in problem.chain.runs)
    routes = ("backprop", "pairing", *(("recursion",) if recursion else ()))
    routes = (*routes, *(("costate_equation",) if continuous else ()))
    with _refusals(title):
        trial.certificates[title] = verify(
            problem, weights, routes=routes, key=trial.key, optimality=optimality
        )


@contextlib.contextmanager
def _refusals(name: str) -> Iterator[None]:
    """What the witness refuses, and what the user's own code raises while it runs, in one line."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise CommandError(f"{name}: {error}") from None
    except SystemExit as error:  # else the user's code would choose this command's exit code
        raise CommandError(f"{name}: SystemExit: {error}") from None

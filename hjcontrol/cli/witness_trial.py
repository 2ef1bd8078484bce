"""The work of `hjcontrol verify`: each network stated on the data, verified, trained, verified again."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from hjcontrol.cli.errors import CommandError
from hjcontrol.cli.network_source import stated
from hjcontrol.cli.terminal import Screen
from hjcontrol.control import ControlProblem
from hjcontrol.data import DataSet, split, subset
from hjcontrol.reporting.tables import figure
from hjcontrol.solvers import by_name, solve
from hjcontrol.verification import Certificate, verify

START, TRAINED = "at its start", "trained"


@dataclasses.dataclass
class Trial:
    """Data, networks, and what is finished so far."""

    train: DataSet
    test: DataSet
    names: list[str]
    key: jax.Array
    certificates: dict[str, Certificate] = dataclasses.field(default_factory=dict)
    accuracies: dict[str, float] = dataclasses.field(default_factory=dict)
    interrupted: bool = False

    def rows(self) -> list[dict[str, str]]:
        """One row a certificate, every cell a string."""
        return [
            {
                "network": name,
                "stages": str(c.problem["stages"]),
                "weights": str(c.problem["weights"]),
                "J": f"{c.objective:.6g}",
                "test": figure(self.accuracies.get(name), 3),
                **{pair.replace("|", " | "): figure(gap, 2) for pair, gap in c.agreement.items()},
                "verdict": c.verdict,
                "worst at": str(c.worst or "-"),
            }
            for name, c in self.certificates.items()
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
                "refuted": [str(f) for f in c.refuted],
                "kinks": [str(f) for f in c.kinks],
                "by_differences": list(c.differenced),
                "per_stage": c.per_stage,
            }
            for name, c in self.certificates.items()
        }


def prepare(data: DataSet, names: list[str], count: int, seed: int) -> Trial:
    """Four fifths of the data to train on, of which at most `count` samples are used."""
    a, b, c = jax.random.split(jax.random.key(seed), 3)
    parts = split(data, 0.8, key=a)
    train = subset(parts.train, count, key=b) if count < len(parts.train) else parts.train
    return Trial(train, parts.test, names, c)


def perform(trial: Trial, steps: int, recursion: bool, screen: Screen) -> None:
    """Verify every network; Ctrl-C ends the work, and what is finished stays."""
    try:
        for name in trial.names:
            _network(trial, name, steps, recursion, screen)
    except KeyboardInterrupt:
        trial.interrupted = True


def _network(trial: Trial, name: str, steps: int, recursion: bool, screen: Screen) -> None:
    classes = len(trial.train.classes)
    problem = stated(name, jnp.asarray(trial.train.features), trial.train.labels, classes)
    on_data = problem.inputs.shape[0] == len(trial.train) if _is_array(problem.inputs) else False
    weights = problem.init(trial.key)
    screen.line(f"{name:<16} verifying the costate, {START}")
    _verify(trial, f"{name}, {START}", problem, weights, recursion)
    if steps == 0 or not jax.tree.leaves(weights):
        return
    with screen.progress(name) as progress:
        adam = by_name("adam")
        solution = solve(problem, adam, init=weights, max_steps=steps, progress=progress)
    screen.line(f"{name:<16} verifying the costate, {TRAINED}")
    _verify(trial, f"{name}, {TRAINED}", problem, solution.weights, recursion)
    if on_data:
        test = stated(name, jnp.asarray(trial.test.features), trial.test.labels, classes)
        final = jax.jit(lambda w: test.rollout(w).final)(solution.weights)
        hits = jnp.argmax(final, axis=-1) == jnp.asarray(trial.test.labels)
        trial.accuracies[f"{name}, {TRAINED}"] = float(jnp.mean(hits))


def _is_array(tree: Any) -> bool:
    return hasattr(tree, "shape")


def _verify(trial: Trial, title: str, problem: ControlProblem, weights: Any, full: bool) -> None:
    routes = ("backprop", "pairing", *(("recursion",) if full else ()))
    try:
        trial.certificates[title] = verify(problem, weights, routes=routes, key=trial.key)
    except ValueError as error:
        raise CommandError(str(error)) from None

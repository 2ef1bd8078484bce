"""The work of `fit-convex`: one problem solved by convex means and by gradients, judged by one bound.

The twin minimises the same objective as a control problem, from random weights. Its gap is measured
against the convex solution's bound: whoever found the weights, no gap may be negative.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from hjcontrol.cli.errors import CommandError
from hjcontrol.cli.fit_settings import Asked
from hjcontrol.cli.terminal import Screen
from hjcontrol.control import ControlProblem, Solution
from hjcontrol.data import DataSet, load, split
from hjcontrol.networks import Chain, Weights
from hjcontrol.reporting.tables import figure
from hjcontrol.solvers.convex import (
    AbstractConvexProblem,
    ConvexRegression,
    DifferenceOfConvex,
    DifferenceOfMaxAffine,
    GatedReLU,
    SoftmaxReadout,
    fit_lse,
    sample_gates,
)
from hjcontrol.solvers.driver import solve
from hjcontrol.solvers.names import by_name

CLOSED = 1e-6  # relative gap that counts as closed
RIDGE, EPS, TWIN_EPS = 1e-2, 0.3, 1e-2
WARM = 1.0  # of Hopf-Cole: its relative error weighs noise by exp(noise/eps)
VARIABLES = 40_000  # of a lifted quadratic program, beyond which it takes too long
TWIN_STEPS = 3000
LEAST_PENALTY = 1e-2  # of the twin, where no plane presses on any value


@dataclasses.dataclass
class Trial:
    """What came of it."""

    asked: Asked
    name: str
    sizes: tuple[int, int, int]
    convex: Solution
    twin: Solution
    twin_objective: float
    convex_metric: float
    twin_metric: float
    metric: str
    test_pair: Any
    classes: tuple[str, ...] | None
    notes: list[str]

    @property
    def twin_gap(self) -> float:
        """The twin's objective over the bound, both of the convex problem."""
        return self.twin_objective - float(self.convex.bound)

    @property
    def verdict(self) -> str:
        """`certified`: the gap is closed, or for `dc` the point is stationary. `refuted` else, or if the
        twin went below the bound."""
        objective = float(self.convex.objective)
        scale = max(abs(objective), 1e-9)
        if self.asked.model == "dc":
            return "stationary" if float(self.convex.gap) <= 1e-3 * scale else "refuted"
        closed = float(self.convex.gap) <= CLOSED * scale
        return "certified" if closed and self.twin_gap >= -CLOSED * scale else "refuted"

    def rows(self) -> list[dict[str, str]]:
        """A row a way of training."""
        return [
            {"training": name} | self._told(fields)
            for name, fields in (("convex", self._fields()), ("gradient", self._twin_fields()))
        ]

    def tables(self) -> dict[str, dict[str, Any]]:
        """Tables of the report."""
        n, held, d = self.sizes
        asked = {
            "model": self.asked.model,
            "data": self.name,
            "training samples": n,
            "test samples": held,
            "features": d,
            "seed": self.asked.common.seed,
        }
        theorem = self.convex.native.problem.theorem
        notes = {str(k): note for k, note in enumerate(self.notes, start=1)}
        return {
            "Asked": asked,
            "Convex": self._told(self._fields()) | {"verdict": self.verdict},
            "Gradient-trained twin": self._told(self._twin_fields()),
            "Theorem": {
                "name": theorem.name,
                "says": theorem.statement,
                "not covered": theorem.limits,
            },
        } | ({"Notes": notes} if notes else {})

    def _told(self, fields: dict[str, Any]) -> dict[str, str]:
        """Fields for a reader: objectives to the digits in which the two are compared."""
        return {
            "objective": f"{fields['objective']:.10g}",
            "gap": figure(fields["gap"], 2),
            "seconds": figure(fields["seconds"], 3),
            self.metric: figure(fields["test_metric"]),
        }

    def summary(self) -> dict[str, Any]:
        """The content of `result.json`."""
        n, held, d = self.sizes
        return {
            **self._fields(),
            "gradient": self._twin_fields(),
            "model": self.asked.model,
            "data": self.name,
            "num_samples": n,
            "num_test": held,
            "num_features": d,
            "seed": self.asked.common.seed,
            "metric": self.metric,
            "theorem_statement": self.convex.native.problem.theorem.statement,
            "not_covered": self.convex.native.problem.theorem.limits,
            "verdict": self.verdict,
            "notes": self.notes,
        }

    def _fields(self) -> dict[str, Any]:
        return {
            "objective": float(self.convex.objective),
            "gap": float(self.convex.gap),
            "theorem": self.convex.native.problem.theorem.name,
            "seconds": self.convex.stats["solve_seconds"],
            "test_metric": self.convex_metric,
        }

    def _twin_fields(self) -> dict[str, Any]:
        return {
            "objective": self.twin_objective,
            "gap": self.twin_gap,
            "theorem": self.convex.native.problem.theorem.name,
            "seconds": self.twin.stats["solve_seconds"],
            "test_metric": self.twin_metric,
        }


def perform(asked: Asked, screen: Screen) -> Trial:
    """Load, split, solve, descend, compare.

    **Raises:** `CommandError` for options that do not fit the data, `DataError` for data.
    """
    keys = jax.random.split(jax.random.key(asked.common.seed), 2)
    notes: list[str] = []
    if asked.model == "logistic":
        data = load(asked.common.data, asked.common.target)
        parts = split(data, asked.common.train_size, key=keys[0])
        train, test, classes = parts.train, parts.test, data.classes
        pair = (test.features, test.targets)
    else:
        whole = load(asked.common.data, asked.common.target, regression=True)
        parts = split(whole, asked.common.train_size, key=keys[0])
        train, test, classes, pair = parts.train, parts.test, None, None
        if asked.model == "convex-regression":
            train = _distinct(train, notes)
    screen.line(
        f"{asked.model} on {train.name}: {len(train)} training and {len(test)} test samples, "
        f"{train.features.shape[1]} features"
    )
    try:
        convex, control = _SOLVE[asked.model](asked, train, notes)
    except ValueError as error:  # the option does not fit the data: the message says how
        raise CommandError(str(error)) from None
    screen.line(
        f"{'convex':<16} gap {float(convex.gap):.2e} in {convex.stats['solve_seconds']:.2f} s"
    )
    with screen.progress("gradient") as progress:
        twin = solve(
            control,
            by_name("gradient", tol=1e-8),
            key=keys[1],
            max_steps=TWIN_STEPS,
            progress=progress,
        )
    problem = convex.native.problem
    candidate = problem.from_weights(twin.weights)
    judged = eqx.filter_jit(lambda p, c: p.residuals(c).objective)(problem, candidate)
    measure = _accuracy if asked.model == "logistic" else _rmse
    metrics = [measure(problem, c, test) for c in (convex.native.candidate, candidate)]
    return Trial(
        asked,
        train.name,
        (len(train), len(test), train.features.shape[1]),
        convex,
        twin,
        float(judged),
        metrics[0],
        metrics[1],
        "test accuracy" if asked.model == "logistic" else "test RMSE",
        pair,
        classes,
        notes,
    )


def _distinct(data: DataSet, notes: list[str]) -> DataSet:
    """Samples at one place averaged: no function tells them apart."""
    places, index = np.unique(data.features, axis=0, return_inverse=True)
    index = index.reshape(-1)
    if len(places) == len(data):
        return data
    notes.append(f"{len(data) - len(places)} repeated inputs were averaged.")
    targets = np.bincount(index, data.targets) / np.bincount(index)
    return DataSet(places, targets, None, data.feature_names, data.name)


def _logistic(asked: Asked, train: Any, notes: list[str]) -> tuple[Solution, ControlProblem]:
    ridge = RIDGE if asked.ridge is None else asked.ridge
    problem = SoftmaxReadout(train.features, train.targets, ridge, len(train.classes))
    return problem.solve(), problem.as_control_problem()


def _hopf_cole(asked: Asked, train: Any, notes: list[str]) -> tuple[Solution, ControlProblem]:
    fit = fit_lse(
        train.features,
        train.targets,
        WARM if asked.eps is None else asked.eps,
        max_atoms=asked.atoms,
    )
    found = fit.native
    notes.append(
        f"{fit.stats['atoms']} slopes from a ball of radius {found.radius:.3g}, by column generation; "
        f"largest price seen {found.rounds[-1, 1]:.6g}. The gap is over the biases of these slopes."
    )
    return fit, fit.problem


def _regression(asked: Asked, train: Any, notes: list[str]) -> tuple[Solution, ControlProblem]:
    n, d = train.features.shape
    if n * (d + 1) > VARIABLES:
        raise CommandError(
            f"convex-regression: {n} samples of {d} features give {n * (d + 1)} variables; at most "
            f"{VARIABLES} are solved in reasonable time. Reduce --train-size."
        )
    problem = ConvexRegression(train.features, train.targets)
    solution = problem.solve()
    enough = max(1.2 * float(solution.native.dual.sum(axis=1).max()), LEAST_PENALTY)
    if float(solution.objective) <= 1e-9 * n:
        notes.append(
            "Convex functions pass through every sample: too few for so many features, so the optimum "
            "is zero and says nothing of the test."
        )
    eps = TWIN_EPS if asked.eps is None else asked.eps
    notes.append(f"The twin descends on the exact penalty {enough:.3g}, smoothed at eps = {eps:g}.")
    return solution, problem.as_control_problem(penalty=enough, eps=eps)


def _gated(asked: Asked, train: Any, notes: list[str]) -> tuple[Solution, ControlProblem]:
    gates = sample_gates(train.features.shape[1], asked.atoms, seed=asked.common.seed)
    ridge = RIDGE if asked.ridge is None else asked.ridge
    problem = GatedReLU(train.features, train.targets, gates, ridge)
    solution = problem.solve()
    relu = problem.relu_network(solution.native.candidate)
    units, apart = relu.problem.chain[0].out_size, relu.stats["deviation"]
    notes.append(
        f"As a ReLU network of {units} units it agrees with the gated one at the training inputs to "
        f"{apart:.1e}; its own objective is {float(relu.objective):.6g}, which the gated optimum only "
        "bounds from below."
    )
    return solution, problem.as_control_problem()


def _difference(asked: Asked, train: Any, notes: list[str]) -> tuple[Solution, ControlProblem]:
    half = max(1, asked.atoms // 2)
    eps = EPS if asked.eps is None else asked.eps
    given = {
        "pieces": (half, half),
        "delta": 1.0,
        "ridge": RIDGE if asked.ridge is None else asked.ridge,
    }
    notes.append("Not convex: both ways end at stationary points, which need not be one.")
    if eps > 0:
        smooth = DifferenceOfConvex(train.features, train.targets, eps=eps, **given)
        return smooth.solve(tol=1e-5, max_steps=1000), smooth.as_control_problem()
    problem = DifferenceOfMaxAffine(train.features, train.targets, **given)
    notes.append(
        "At eps = 0 the layers are max-affine; the twin follows subgradients, which stop at kinks."
    )
    return problem.solve(), problem.as_control_problem()


_SOLVE: dict[str, Callable[..., tuple[Solution, ControlProblem]]] = {
    "logistic": _logistic,
    "hopf-cole": _hopf_cole,
    "convex-regression": _regression,
    "gated-relu": _gated,
    "dc": _difference,
}


def _outputs(problem: AbstractConvexProblem, candidate: Any, data: Any) -> np.ndarray:
    chain, weights = problem.network(candidate)
    return np.asarray(_forward(chain, weights, jnp.asarray(data.features)))


@eqx.filter_jit
def _forward(chain: Chain, weights: Weights, inputs: jax.Array) -> jax.Array:
    return jax.vmap(chain, in_axes=(None, 0))(weights, inputs)


def _accuracy(problem: AbstractConvexProblem, candidate: Any, data: Any) -> float:
    return float(np.mean(_outputs(problem, candidate, data).argmax(axis=1) == data.targets))


def _rmse(problem: AbstractConvexProblem, candidate: Any, data: Any) -> float:
    """In standard deviations of the training targets."""
    rest = _outputs(problem, candidate, data)[:, 0] - data.targets
    return float(np.sqrt(np.mean(rest**2)))

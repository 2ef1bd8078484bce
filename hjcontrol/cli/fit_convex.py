"""`hjcontrol fit-convex`: training that is convex, with its gap, beside its gradient-trained twin.

The twin minimises the same objective as a control problem, from random weights. Its gap is measured
against the convex solution's bound: no weights, however found, may have a negative gap.
"""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hjcontrol as hj
from hjcontrol._ground.record import Quantity, Record
from hjcontrol.cli.command import REFUTED, SHOWN, Answer, Command, command_line
from hjcontrol.cli.errors import CommandError
from hjcontrol.cli.schema import (
    DATA,
    ENCODE,
    TARGET,
    TRAIN_SIZE,
    folder,
    not_negative,
    one_of,
    option,
    real,
    string,
    train_size,
    whole,
)
from hjcontrol.cli.terminal import Screen

MODELS = ("logistic", "hopf-cole", "convex-regression", "gated-relu", "dc")
CLOSED = 1e-6  # relative gap that counts as closed
RIDGE, EPS, TWIN_EPS = 1e-2, 0.3, 1e-2
WARM = 1.0  # of Hopf-Cole: its relative error weighs noise by exp(noise/eps)
VARIABLES = 40_000  # of a lifted quadratic program, beyond which it takes too long
TWIN_STEPS = 3000
LEAST_PENALTY = 1e-2  # of the twin, where no plane presses on any value


@dataclasses.dataclass(frozen=True)
class Asked:
    """What `fit-convex` is to do; `None` where the model's own default holds."""

    model: str = option("logistic", one_of(MODELS, "model"), ", ".join(MODELS), "MODEL")
    data: str | None = option(
        None,
        string,
        f"diabetes, {DATA}",
        "DATA",
        shown="digits for logistic, diabetes for the others",
    )
    target: str | None = option(None, string, TARGET, "COLUMN")
    encode: str | None = option(None, one_of(("one-hot",), "encoding"), ENCODE, "HOW")
    ridge: float | None = option(
        None, not_negative, "ridge, or the group penalty of gated-relu", "RHO", shown="1e-2"
    )
    eps: float | None = option(
        None,
        real(lambda x: True, "a number >= 0"),
        "temperature, in standard deviations of the target; 0 with dc: max-affine",
        "EPS",
        shown="1 for hopf-cole, 0.3 for dc, 0.01 for the twin of convex-regression",
    )
    atoms: int = option(50, whole(1, 2**20), "most atoms, or gates", "N")
    seed: int = option(0, whole(0), "seed of split, gates and start", "N")
    train_size: float | int = option(0.8, train_size, TRAIN_SIZE, "SIZE")
    out: Path = folder("fit-convex")

    def __post_init__(self) -> None:
        # 0 is max-affine layers, which `dc` alone fits (`convex-regression` always does).
        least, dc = self.eps, self.model == "dc"
        if least is not None and not (least > 0 or (least == 0 and dc)):
            bound = ">= 0" if dc else "> 0"
            raise CommandError(
                f"--eps: a number {bound} is needed by {self.model}; found {least:g}."
            )


@dataclasses.dataclass
class Trial:
    """What came of it: `found` has a row for each way of training, as in `result.json`."""

    asked: Asked
    train: Any
    test: Any
    convex: Any
    twin: Any
    found: dict[str, dict[str, Any]]
    notes: list[str]

    @property
    def verdict(self) -> str:
        """`certified`: the gap is closed, or for `dc` the point is stationary. `refuted` else, or if the
        twin went below the bound."""
        gap, twin_gap = (self.found[way]["gap"] for way in ("convex", "gradient"))
        scale = max(abs(self.found["convex"]["objective"]), 1e-9)
        if self.asked.model == "dc":
            return "stationary" if gap <= 1e-3 * scale else "refuted"
        closed = gap <= CLOSED * scale
        return "certified" if closed and twin_gap >= -CLOSED * scale else "refuted"

    @property
    def metric(self) -> str:
        """What is measured on the test part."""
        return "test accuracy" if self.asked.model == "logistic" else "test RMSE"

    def content(self) -> dict[str, Any]:
        """The command's JSON."""
        return {
            **self.found["convex"],
            "gradient": self.found["gradient"],
            "model": self.asked.model,
            "data": self.train.name,
            "num_samples": len(self.train),
            "num_test": len(self.test),
            "num_features": self.train.features.shape[1],
            "seed": self.asked.seed,
            "metric": self.metric,
            "theorem_statement": self.convex.native.problem.theorem.statement,
            "not_covered": self.convex.native.problem.theorem.limits,
            "verdict": self.verdict,
            "notes": self.notes,
        }

    def record(self) -> Record:
        """The convex solution first, the twin beside it."""
        from hjcontrol.reporting.page import report_record

        rows = [
            {
                "training": way,
                "objective": Quantity(told["objective"], 10),
                "gap": Quantity(told["gap"], 2),
                "seconds": Quantity(told["seconds"], 3),
                self.metric: Quantity(told["test_metric"], 4),
            }
            for way, told in self.found.items()
        ]
        logistic = self.asked.model == "logistic"
        found = report_record(
            {"gradient": self.twin},
            convex=self.convex,
            test=(self.test.features, self.test.targets) if logistic else None,
            classes=self.train.classes if logistic else None,
            title=f"Convex training of {self.train.name}: {self.asked.model}",
            command=command_line.get(),
            verdict=self.verdict,
        )
        theorem = self.convex.native.problem.theorem
        proof = f"Theorem: {theorem.name}. Not covered: {theorem.limits}"
        return found._replace(
            rows={"Convex against gradients": rows}, notes=(*found.notes, proof, *self.notes)
        )

    def more(self) -> list[Record]:
        """What only the page shows."""
        return [self.twin.as_record()._replace(title="Gradient-trained twin")]


def run(asked: Asked, screen: Screen) -> Iterator[Answer]:
    """Solve by convex means, descend by gradients, compare."""
    trial = perform(asked, screen)
    yield Answer(
        trial.content(),
        trial.record,
        more=trial.more,
        told=[f"verdict: {trial.verdict}"],
        code=REFUTED if trial.verdict == "refuted" else SHOWN,
    )


def perform(asked: Asked, screen: Screen) -> Trial:
    """Load, split, solve, descend, compare.

    **Raises:** `CommandError` for options that do not fit the data, `DataError` for data.
    """
    import equinox as eqx
    import jax

    keys = jax.random.split(jax.random.key(asked.seed), 2)
    notes: list[str] = []
    if asked.model == "logistic":
        data = hj.data.load(asked.data or "digits", asked.target, encode=asked.encode)
        parts = hj.data.split(data, asked.train_size, key=keys[0])
        train, test = parts.train, parts.test
    else:
        samples = hj.data.load(
            asked.data or "diabetes", asked.target, encode=asked.encode, regression=True
        )
        parts = hj.data.split(samples, asked.train_size, key=keys[0])
        train, test = parts.train, parts.test
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
        twin = hj.solve(
            control,
            hj.solvers.by_name("gradient", tol=1e-8),
            key=keys[1],
            max_steps=TWIN_STEPS,
            progress=progress,
        )
    problem = convex.native.problem
    candidate = problem.from_weights(twin.weights)
    judged = eqx.filter_jit(lambda p, c: p.residuals(c).objective)(problem, candidate)
    measure = _accuracy if asked.model == "logistic" else _rmse
    told = lambda objective, solved, candidate: {
        "objective": float(objective),
        "gap": float(objective) - float(convex.bound),
        "theorem": problem.theorem.name,
        "seconds": solved.stats["solve_seconds"],
        "test_metric": measure(problem, candidate, test),
    }
    first = told(convex.objective, convex, convex.native.candidate) | {"gap": float(convex.gap)}
    found = {"convex": first, "gradient": told(judged, twin, candidate)}
    return Trial(asked, train, test, convex, twin, found, notes)


def _distinct(data: Any, notes: list[str]) -> Any:
    """Samples at one place averaged: no function tells them apart."""
    import numpy as np

    places, index = np.unique(data.features, axis=0, return_inverse=True)
    index = index.reshape(-1)
    if len(places) == len(data):
        return data
    notes.append(f"{len(data) - len(places)} repeated inputs were averaged.")
    targets = np.bincount(index, data.targets) / np.bincount(index)
    return dataclasses.replace(data, features=places, targets=targets)


def _logistic(asked: Asked, train: Any, notes: list[str]) -> tuple[Any, Any]:
    from hjcontrol.solvers.convex import SoftmaxReadout

    del notes
    ridge = RIDGE if asked.ridge is None else asked.ridge
    problem = SoftmaxReadout(train.features, train.targets, ridge, len(train.classes))
    return problem.solve(), problem.as_control_problem()


def _hopf_cole(asked: Asked, train: Any, notes: list[str]) -> tuple[Any, Any]:
    from hjcontrol.solvers.convex import fit_lse

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


def _regression(asked: Asked, train: Any, notes: list[str]) -> tuple[Any, Any]:
    from hjcontrol.solvers.convex import ConvexRegression

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


def _gated(asked: Asked, train: Any, notes: list[str]) -> tuple[Any, Any]:
    from hjcontrol.solvers.convex import GatedReLU, sample_gates

    gates = sample_gates(train.features.shape[1], asked.atoms, seed=asked.seed)
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


def _difference(asked: Asked, train: Any, notes: list[str]) -> tuple[Any, Any]:
    from hjcontrol.solvers.convex import DifferenceOfConvex, DifferenceOfMaxAffine

    half = max(1, asked.atoms // 2)
    eps = EPS if asked.eps is None else asked.eps
    given = {
        "atoms": (half, half),
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


_SOLVE: dict[str, Callable[..., tuple[Any, Any]]] = {
    "logistic": _logistic,
    "hopf-cole": _hopf_cole,
    "convex-regression": _regression,
    "gated-relu": _gated,
    "dc": _difference,
}


def _outputs(problem: Any, candidate: Any, data: Any) -> Any:
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    import numpy as np

    chain, weights = problem.network(candidate)
    forward = eqx.filter_jit(lambda weights, x: jax.vmap(chain, in_axes=(None, 0))(weights, x))
    return np.asarray(forward(weights, jnp.asarray(data.features)))


def _accuracy(problem: Any, candidate: Any, data: Any) -> float:
    return float((_outputs(problem, candidate, data).argmax(axis=1) == data.targets).mean())


def _rmse(problem: Any, candidate: Any, data: Any) -> float:
    """In standard deviations of the training targets."""
    rest = _outputs(problem, candidate, data)[:, 0] - data.targets
    return float((rest**2).mean() ** 0.5)


FIT_CONVEX = Command(
    "fit-convex",
    """Train by convex optimisation, with a bound that no weights can beat, and beside it by gradients.

    Writes report.html and result.json. Exit code 0: the gap is closed; 1: it is not, or the twin went
    below the bound.
    """,
    Asked,
    run,
    config="config",
)

"""`hjcontrol crosscheck`: a real network trained as a control problem, each way checked by another.

    lift(d, width) -> depth x [x + h tanh(W x + b)] -> readout(width, classes)
    J = mean cross-entropy + ridge/2 |theta|^2

All solvers start from the same weights. Those whose steps grow with samples, depth and weights together
(direct and the like) have a small copy of the problem, which Newton solves too.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hjcontrol as hj
from hjcontrol._ground.record import Quantity, Record
from hjcontrol.cli.command import Answer, Command, command_line, exit_code, told, verdict
from hjcontrol.cli.errors import CommandError, check_memory
from hjcontrol.cli.schema import (
    DATA,
    ENCODE,
    TARGET,
    TRAIN_SIZE,
    folder,
    not_negative,
    one_of,
    option,
    positive,
    some_of,
    string,
    train_size,
    whole,
)
from hjcontrol.cli.terminal import Screen
from hjcontrol.solvers.names import NAMES

ALL = "all"  # every solver that is applicable; those that are not are named, with the reason
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


@dataclasses.dataclass(frozen=True)
class Asked:
    """What `crosscheck` is to do."""

    data: str = option("digits", string, DATA, "DATA")
    target: str | None = option(None, string, TARGET, "COLUMN")
    encode: str | None = option(None, one_of(("one-hot",), "encoding"), ENCODE, "HOW")
    width: int = option(16, whole(1), "width of the state", "N")
    depth: int = option(8, whole(1, 10**5), "residual stages", "N")
    step: float = option(0.25, positive, "Euler step h of a residual stage", "H")
    ridge: float = option(1e-3, not_negative, "strength of the ridge cost", "RHO", shown="1e-3")
    seed: int = option(0, whole(0), "seed of split, start and probes", "N")
    train_size: float | int = option(0.8, train_size, TRAIN_SIZE, "SIZE")
    solver: tuple[str, ...] = option(
        ("gradient", "newton", "direct"),
        some_of((*NAMES, ALL), "solver"),
        f"{', '.join(NAMES)}, or all that can; may be repeated",
        "NAME",
        kind="many",
    )
    direct_samples: int = option(
        24, whole(2), "samples of the small copy for the direct method", "N"
    )
    out: Path = folder("crosscheck")

    @property
    def solvers(self) -> tuple[str, ...]:
        """The solvers by name."""
        return NAMES if ALL in self.solver else self.solver

    @property
    def small(self) -> tuple[int, int]:
        """Width and depth of the small copy."""
        return min(self.width, SMALL_WIDTH), min(self.depth, SMALL_DEPTH)


@dataclasses.dataclass
class Trial:
    """Data, and what is finished so far. Five keys: split, start, subset, small start, probes."""

    asked: Asked
    data: Any
    train: Any
    test: Any
    keys: Any
    solutions: dict[str, Any] = dataclasses.field(default_factory=dict)
    small_newton: Any = None
    small_comparison: Any = None
    certificates: dict[str, Any] = dataclasses.field(default_factory=dict)
    comparisons: dict[str, Any] = dataclasses.field(default_factory=dict)
    refused: dict[str, str] = dataclasses.field(default_factory=dict)  # solver to reason

    @property
    def test_pair(self) -> tuple[Any, Any]:
        """Inputs and labels that no solver has seen."""
        return self.test.features, self.test.targets

    @property
    def all_solutions(self) -> dict[str, Any]:
        """The solutions, and Newton's of the small copy."""
        small = {} if self.small_newton is None else {SMALL_NEWTON: self.small_newton}
        return self.solutions | small


def run(asked: Asked, screen: Screen) -> Iterator[Answer]:
    """Solve, verify and compare; every solution is an answer before it is verified."""
    import jax

    keys = jax.random.split(jax.random.key(asked.seed), 5)
    data = hj.data.load(asked.data, asked.target, encode=asked.encode)
    parts = hj.data.split(data, asked.train_size, key=keys[0])
    trial = Trial(asked, data, parts.train, parts.test, keys)
    screen.line(
        f"{data.name}: {len(trial.train)} training and {len(trial.test)} test samples, "
        f"{data.features.shape[1]} features, {len(data.classes)} classes"
    )
    for work in (_full_problem, _small_problem):
        for _ in work(trial, screen):
            yield _answer(trial)
    if len(trial.refused) == len(asked.solvers):
        words = "; ".join(f"{name}: {reason}" for name, reason in trial.refused.items())
        raise CommandError(f"no solver can treat this problem. {words}")


def _full_problem(trial: Trial, screen: Screen) -> Iterator[None]:
    asked = trial.asked
    problem = _network(asked, trial.train, asked.width, asked.depth)
    names = _applicable(trial, problem, large=True)
    if not names:
        return
    start = problem.init(trial.keys[1])
    for name in names:
        yield from _solved_and_verified(trial, problem, name, start, screen)
    if len(names) > 1:
        certificates = [trial.certificates[n] for n in names]
        solutions = [trial.solutions[n] for n in names]
        compared = _compared(problem, solutions, certificates, screen)
        trial.comparisons[" against ".join(names)] = compared
        yield


def _small_problem(trial: Trial, screen: Screen) -> Iterator[None]:
    import jax
    import numpy as np

    asked = trial.asked
    if not set(asked.solvers) - set(LARGE):
        return
    count = min(asked.direct_samples, len(trial.train))
    few = hj.data.subset(trial.train, count, key=trial.keys[2])
    problem = _network(asked, few, *asked.small)
    names = _applicable(trial, problem, large=False)
    if not names:
        return
    with screen.progress("start, small copy") as progress:
        near = hj.solvers.by_name("newton", tol=SMALL_START)
        drawn = problem.init(trial.keys[3])
        weights = hj.solve(problem, near, init=drawn, progress=progress).weights
    leaves, structure = jax.tree.flatten(weights)
    keys = jax.random.split(trial.keys[3], len(leaves))
    drawn = lambda keys: [
        jax.random.normal(keys[k], a.shape, a.dtype) for k, a in enumerate(leaves)
    ]
    noise = jax.device_get(jax.jit(drawn)(keys))
    moved = [
        jax.numpy.asarray(np.asarray(a) * (1 + SMALL_MOVE * z))
        for a, z in zip(leaves, noise, strict=True)
    ]
    start = jax.tree.unflatten(structure, moved)
    trial.small_newton = _solved(problem, "newton", start, screen, SMALL_NEWTON)
    for name in names:
        yield from _solved_and_verified(trial, problem, name, start, screen)
    judged = hj.verify(trial.small_newton, key=trial.keys[4])
    trial.small_comparison = _compared(
        problem,
        [trial.small_newton, *(trial.solutions[n] for n in names)],
        [judged, *(trial.certificates[n] for n in names)],
        screen,
    )
    trial.comparisons[f"newton against {', '.join(names)}, small copy"] = trial.small_comparison
    yield


def _network(asked: Asked, data: Any, width: int, depth: int) -> Any:
    """The control problem on a data set."""
    import jax.numpy as jnp

    networks = hj.networks
    residual = networks.Residual(networks.Dense(width, width, jnp.tanh), asked.step)
    lift = networks.lift(data.features.shape[1], width)
    readout = networks.readout(width, len(data.classes))
    problem = hj.ControlProblem(
        [lift, *[residual] * depth, readout],
        jnp.asarray(data.features),
        jnp.asarray(data.targets),
        terminal=hj.control.softmax_cross_entropy,
        running=hj.control.Ridge(asked.ridge),
    )
    check_memory(problem)
    return problem


def _applicable(trial: Trial, problem: Any, large: bool) -> list[str]:
    """Solvers asked for that can treat the problem; of the others, why not."""
    names = [name for name in trial.asked.solvers if (name in LARGE) == large]
    for name in names:
        try:
            hj.solvers.by_name(name, **OPTIONS.get(name, {})).check(problem)
        except ValueError as error:
            trial.refused[name] = str(error)
    return [name for name in names if name not in trial.refused]


def _solved_and_verified(
    trial: Trial, problem: Any, name: str, start: Any, screen: Screen
) -> Iterator[None]:
    solution = trial.solutions[name] = _solved(problem, name, start, screen, name)
    yield
    full = name in LARGE  # the small problem is not checked for curvature
    with screen.working(f"{name:<16} verifying the costate"):
        trial.certificates[name] = hj.verify(
            solution, routes=ROUTES, key=trial.keys[4], second_order=full, minimum=full
        )
    yield


def _solved(problem: Any, name: str, start: Any, screen: Screen, title: str) -> Any:
    solver = hj.solvers.by_name(name, **OPTIONS.get(name, {}))
    with screen.progress(title) as progress:
        return hj.solve(problem, solver, init=start, progress=progress)


def _compared(problem: Any, solutions: list[Any], certificates: list[Any], screen: Screen) -> Any:
    polish = hj.solvers.by_name("newton", **OPTIONS["newton"], switch=1.0)  # near: no cheap steps
    with screen.progress("polishing") as progress:
        return hj.crosscheck(
            problem, *solutions, polish=polish, certificates=certificates, progress=progress
        )


# ---------------------------------------------------------------------------------------- answer


def _answer(trial: Trial) -> Answer:
    content = {
        "problem": _problem_facts(trial),
        "solvers": {name: _solver_facts(s, trial) for name, s in trial.solutions.items()},
        "costate": {name: dict(c.agreement) for name, c in trial.certificates.items()},
        "finite_difference": {name: c.finite_difference for name, c in trial.certificates.items()},
        "direct": _direct_facts(trial),
        "verdict": verdict(trial.certificates),
    }
    return Answer(
        content | ({"not_applicable": dict(trial.refused)} if trial.refused else {}),
        lambda: _record(trial),
        told=told(trial.certificates),
        code=exit_code(trial.certificates),
        kept=f"finished and kept: {', '.join(trial.solutions)}",
    )


def _record(trial: Trial) -> Record:
    from hjcontrol.reporting.page import report_record

    every = ALL in trial.asked.solver
    found = report_record(
        trial.all_solutions,
        certificates=trial.certificates,
        comparisons={} if every else trial.comparisons,
        test=trial.test_pair,
        classes=trial.train.classes,
        title=f"Crosscheck of {trial.data.name}",
        command=command_line.get(),
        verdict=verdict(trial.certificates),
    )
    parts = list(found.detail)
    direct = _direct_facts(trial)
    if direct is not None:
        width, depth = trial.asked.small
        size = f"small copy (width {width}, depth {depth}, from stationarity {SMALL_START:.0e})"
        facts = {name.replace("_", " "): value for name, value in direct.items()}
        parts.insert(1, Record("Direct against Newton", size, facts=facts))
    if every:
        rows = {"": matched_rows(trial)}
        parts.insert(1, Record("Every solver, polished by Newton and matched", "", rows=rows))
    notes = [f"{name}: not applicable. {reason}" for name, reason in trial.refused.items()]
    return found._replace(detail=parts, notes=(*found.notes, *notes))


def _problem_facts(trial: Trial) -> dict[str, Any]:
    """What was asked, and the sizes that came of it."""
    asked = trial.asked
    d, m = trial.train.features.shape[1], len(trial.train.classes)
    inner = asked.depth * (asked.width + 1) * asked.width
    return {
        "data": asked.data,
        "target": asked.target,
        "num_features": d,
        "num_classes": m,
        "classes": list(trial.train.classes),
        "num_samples": len(trial.train),
        "num_test": len(trial.test),
        "width": asked.width,
        "depth": asked.depth,
        "step": asked.step,
        "ridge": asked.ridge,
        "seed": asked.seed,
        "num_weights": (d + 1) * asked.width + inner + (asked.width + 1) * m,
        "dtype": str(trial.train.features.dtype),
    }


def _solver_facts(solution: Any, trial: Trial) -> dict[str, Any]:
    from hjcontrol.reporting.tables import accuracy, outcome

    names = ("objective", "stationarity", "num_steps", "compile_seconds", "solve_seconds")
    return {name: solution.stats[name] for name in names} | {
        "test_accuracy": accuracy(solution, trial.test_pair),
        "result": outcome(solution)[0],
    }


def _direct_facts(trial: Trial) -> dict[str, Any] | None:
    """The transcribed problem against Newton's solution of it; `None` if it was not reached."""
    newton, direct = trial.small_newton, trial.solutions.get("direct")
    if newton is None or direct is None:
        return None
    certificate = trial.certificates.get("direct")
    pairs = {} if certificate is None else certificate.agreement
    comparison = trial.small_comparison
    place = 1 + [name for name in trial.solutions if name not in LARGE].index("direct")
    return {
        "num_samples": direct.problem.num_samples,
        "objective_gap": abs(float(direct.objective) - float(newton.objective)),
        # After polishing, and up to permutations and signs of hidden units.
        "weight_distance": None
        if comparison is None
        else float(comparison.weight_distance[0, place]),
        "multiplier_disagreement": next(
            (v for k, v in pairs.items() if set(k.split("|")) == {"backprop", "multipliers"}), None
        ),
        "seconds": direct.stats["solve_seconds"],
        "newton_seconds": newton.stats["solve_seconds"],
    }


def matched_rows(trial: Trial) -> list[dict[str, Any]]:
    """One row per solver: the stationary point that Newton takes it to, and which solvers before it on
    the same problem end at that point, up to permutation and sign of hidden units."""
    rows = []
    for c in trial.comparisons.values():
        size = "small copy" if c is trial.small_comparison else "full problem"
        for i, name in enumerate(c.names):
            same = [a for a, b in c.same if b == name]
            rows.append(
                {
                    "solver": name,
                    "problem": size,
                    "polished J": Quantity(float(c.polished[i].objective), 12),
                    "polished to": Quantity(c.polished[i].stats["stationarity"], 2),
                    "same point as": ", ".join(same) or ("-" if i else "(first)"),
                    "costates": c.certificates[i].verdict,
                }
            )
    return rows


CROSSCHECK = Command(
    "crosscheck",
    """Train a network as an optimal control problem, several ways, and check each by another.

    Writes report.html and result.json. Exit code 0: all costates verified; 1: refuted; 3: not
    refuted, and not all was shown.
    """,
    Asked,
    run,
    config="config",
)

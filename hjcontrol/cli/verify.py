"""`hjcontrol verify`: is a backward pass right? For our architectures, your network, your function.

A function is verified as it comes, at the arguments that it brings. A network is stated on the data,
verified at its start, trained by some steps of Adam, and verified again.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hjcontrol as hj
from hjcontrol._ground.record import Mark, Quantity, Record
from hjcontrol.cli.command import Answer, Command, command_line, exit_code, told, verdict
from hjcontrol.cli.errors import CommandError, refusals
from hjcontrol.cli.schema import DATA, TARGET, flag, folder, option, string, strings, whole
from hjcontrol.cli.sources import Target, checked_names, read_target
from hjcontrol.cli.terminal import Screen

DEFAULT = "residual"
SAMPLES, STEPS = 256, 100
START, TRAINED = "at its start", "trained"
PLACE = (
    "verdict", "gap", "reach", "live", "rule", "file", "line", "function", "scope", "iteration",
    "argument", "parameter", "index", "sample", "channel", "arithmetic", "reason", "stage",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Asked:
    """What `verify` is to do. What is asked of networks alone is `None` where it was not given."""

    targets: tuple[str, ...] = option(
        (),
        strings,
        "MODULE:OBJECT or FILE.py:OBJECT of your own, or a name of `hjcontrol list architectures`. "
        "The object is a network; or a tuple (fn, *args), a function of no arguments that returns "
        "(fn, args), or a function with a default for every argument",
        "TARGET...",
        kind="arguments",
        shown=DEFAULT,
    )
    architecture: tuple[str, ...] = option(
        (), strings, "one more TARGET; may be repeated", "TARGET", kind="many"
    )
    data: str | None = option(None, string, DATA, "DATA", shown="digits")
    target: str | None = option(None, string, TARGET, "COLUMN")
    samples: int | None = option(None, whole(2), "samples to verify on", "N", shown=str(SAMPLES))
    steps: int | None = option(
        None, whole(0), "steps of Adam; 0: as it stands", "N", shown=str(STEPS)
    )
    seed: int = option(0, whole(0), "seed of split, start and random costates", "N")
    recursion: bool = flag("also the whole costate by forward mode; slower")
    optimality: bool = flag("also every condition of optimality; slower")
    out: Path = folder("verify")

    @property
    def names(self) -> list[str]:
        """The targets by name, each once."""
        return list(dict.fromkeys((*self.targets, *self.architecture))) or [DEFAULT]


@dataclasses.dataclass
class Trial:
    """The data for those targets that are networks, and what is finished so far."""

    asked: Asked
    key: Any
    train: Any = None
    test: Any = None
    certificates: dict[str, Any] = dataclasses.field(default_factory=dict)
    accuracies: dict[str, float] = dataclasses.field(default_factory=dict)


def run(asked: Asked, screen: Screen) -> Iterator[Answer]:
    """Verify every target; each certificate is an answer."""
    import jax

    targets = _read(asked)
    a, b, key = jax.random.split(jax.random.key(asked.seed), 3)
    trial = Trial(asked, key)
    if any(t.program is None for t in targets):
        data = hj.data.load(asked.data or "digits", asked.target)
        parts = hj.data.split(data, 0.8, key=a)
        count = SAMPLES if asked.samples is None else asked.samples
        trial.train, trial.test = parts.train, parts.test
        if count < len(parts.train):
            trial.train = hj.data.subset(parts.train, count, key=b)
        screen.line(
            f"{data.name}: verified on {len(trial.train)} samples, "
            f"{trial.train.features.shape[1]} features, {len(trial.train.classes)} classes"
        )
    for target in targets:
        work = _network if target.program is None else _function
        for _ in work(trial, target, screen):
            yield _answer(trial)


def _read(asked: Asked) -> list[Target]:
    """The targets, their files executed."""
    names = checked_names(asked.names)
    found = [read_target(name) for name in names]
    of_networks = ("data", "target", "samples", "steps", "recursion", "optimality")
    given = [name for name in of_networks if getattr(asked, name) not in (None, False)]
    if given and all(t.program is not None for t in found):
        what = "functions with their own" if len(found) > 1 else "a function with its own arguments"
        raise CommandError(
            f"--{given[0]}: says nothing of {', '.join(names)}, {what}: there is no data and no "
            "training. Leave it out."
        )
    return found


def _function(trial: Trial, target: Target, screen: Screen) -> Iterator[None]:
    fn, args = target.program or (None, ())
    place = f"{target.name:<16} verifying every rule, at its arguments"
    with refusals(target.name), screen.working(place):
        trial.certificates[target.name] = hj.verify(fn, *args, key=trial.key)
    yield


def _network(trial: Trial, target: Target, screen: Screen) -> Iterator[None]:
    import jax
    import jax.numpy as jnp

    train, test, name = trial.train, trial.test, target.name
    classes = len(train.classes)
    problem = target.problem(jnp.asarray(train.features), train.targets, classes)
    weights = problem.init(trial.key)
    _verify(trial, name, START, problem, weights, screen)
    yield
    steps = STEPS if trial.asked.steps is None else trial.asked.steps
    if steps == 0 or not jax.tree.leaves(weights):
        return
    with screen.progress(name) as progress:
        adam = hj.solvers.by_name("adam")
        solution = hj.solve(problem, adam, init=weights, max_steps=steps, progress=progress)
    _verify(trial, name, TRAINED, problem, solution.weights, screen)
    on_data = hasattr(problem.inputs, "shape") and problem.inputs.shape[0] == len(train)
    if on_data and not target.own_data():
        tested = target.problem(jnp.asarray(test.features), test.targets, classes)
        final = jax.jit(lambda w: tested.rollout(w).final)(solution.weights)
        hits = jnp.argmax(final, axis=-1) == jnp.asarray(test.targets)
        trial.accuracies[f"{name}, {TRAINED}"] = float(jnp.mean(hits))
    yield


def _verify(trial: Trial, name: str, when: str, problem: Any, weights: Any, screen: Screen) -> None:
    title, place = f"{name}, {when}", f"{name:<16} verifying the costate, {when}"
    continuous = any(isinstance(run.stage, hj.networks.Flow) for run in problem.chain.runs)
    routes = ["backprop", "pairing"]
    routes += ["recursion"] if trial.asked.recursion else []
    routes += ["costate_equation"] if continuous else []
    with refusals(title), screen.working(place):
        trial.certificates[title] = hj.verify(
            problem, weights, routes=routes, key=trial.key, optimality=trial.asked.optimality
        )


# ---------------------------------------------------------------------------------------- answer


def _answer(trial: Trial) -> Answer:
    found = trial.certificates
    return Answer(
        {"verdict": verdict(found), "networks": _facts(trial)},
        lambda: _record(trial)._replace(detail=()),
        more=lambda: _record(trial).detail,
        told=[*_in_full(found), *told(found)],
        code=exit_code(found),
        kept=f"finished and kept: {', '.join(found)}",
    )


def _in_full(certificates: dict[str, Any]) -> list[str]:
    """A certificate without its table of routes: places of functions, untested parts, optimality."""
    said = []
    for name, certificate in certificates.items():
        if not certificate.pairs or not certificate:
            said.append(f"{name}\n{certificate}\n")
        elif certificate.optimality is not None:
            said.append(f"{name}\n{certificate.optimality}\n")
    return said


def _record(trial: Trial) -> Record:
    from hjcontrol.reporting.page import report_record

    certificates = {name: c for name, c in trial.certificates.items() if c.pairs}
    networks = [
        {
            "network": name,
            "stages": c.problem["stages"],
            "weights": c.problem["weights"],
            "J": Quantity(c.objective, 6),
            "test accuracy": Quantity(trial.accuracies.get(name), 3),
            "verdict": Mark(c.verdict),
        }
        for name, c in certificates.items()
    ]
    routes = [
        {
            "network": name,
            "routes": pair.name.replace("|", " | "),
            "disagreement": Quantity(pair.disagreement, 2),
            "order": None if pair.order is None else Quantity(pair.order[0], 3),
            "worst at": str(pair.worst or "-"),
        }
        for name, c in certificates.items()
        for pair in c.pairs
    ]
    tables = {"Networks": networks, "Disagreement of routes to the costate": routes}
    return report_record(
        {},
        certificates=trial.certificates,
        title="Backward passes" + (f" on {trial.train.name}" if trial.train else ""),
        command=command_line.get(),
        verdict=verdict(trial.certificates),
        heat_caption="{}: every stage, every pair of routes",
    )._replace(rows={caption: rows for caption, rows in tables.items() if rows})


def _facts(trial: Trial) -> dict[str, dict[str, Any]]:
    """Every certificate, stage by stage."""
    return {
        name: {
            **c.problem,
            "objective": c.objective,
            "stationarity": c.stationarity,
            "test_accuracy": trial.accuracies.get(name),
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
            "places": [{name: getattr(row, name) for name in PLACE} for row in c.rows],
        }
        for name, c in trial.certificates.items()
    }


VERIFY = Command(
    "verify",
    """Verify a backward pass: of a network against the Pontryagin costate, stage by stage; of a function,
    every custom rule where it runs. A function brings its own arguments: no data, no training.

    Writes report.html (tables, heat maps, the lines that are wrong) and result.json. Exit code 0: all was
    shown (what is declared deliberate too); 1: refuted; 2: bad usage or input; 3: not refuted, and not
    all was shown (untested, undefined, detached, or consistent with a gap over 1e-6); 130: interrupted.
    """,
    Asked,
    run,
    config="config",
)

"""`hjcontrol solve`: the problem of a PROBLEM.toml, solved by one method, resumable, and verified.

    data = "digits"                 # or wine, breast_cancer, iris, diabetes, FILE.csv, FILE.npz
    solver = "newton"
    [network]                       # width, depth, step, activation; or `architecture` with its options
    [costs]                         # ridge, terminal; further running costs by name. Real targets
                                    # (diabetes) are for terminal = "least-squares": regression
    [control-set]                   # kind = "box", and its numbers
    [options.newton]                # of a solver, under its name

Files of --out: solution.npz (weights, one array per leaf), result.json, report.html. The run itself is
kept in --checkpoint DIR: after Ctrl-C, a terminated or a killed process, the same line with --resume ends
at the very bits that it would have ended at. Names of costs, control sets, architectures and options are
the library's own; they are resolved where the problem is stated (`stated_problem.py`).
"""

import dataclasses
import functools
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import hjcontrol as hj
from hjcontrol._ground.record import Record
from hjcontrol.cli.command import INTERRUPTED, Answer, Command, command_line, exit_code, told
from hjcontrol.cli.errors import CommandError, check_memory
from hjcontrol.cli.schema import (
    DATA,
    ENCODE,
    TARGET,
    TRAIN_SIZE,
    Check,
    flag,
    folder,
    misspelt,
    not_negative,
    one_of,
    option,
    path,
    positive,
    real,
    string,
    table,
    train_size,
    whole,
)
from hjcontrol.cli.terminal import Screen
from hjcontrol.solvers.names import NAMES

ACTIVATIONS = ("tanh", "sigmoid", "softplus", "relu", "gelu", "silu", "sin")
TERMINALS = ("softmax-cross-entropy", "least-squares")
NETWORK: dict[str, Check] = {
    "architecture": string,
    "width": whole(1),
    "depth": whole(1, 10**5),
    "step": positive,
    "activation": one_of(ACTIVATIONS, "activation"),
}
COSTS: dict[str, Check] = {"terminal": one_of(TERMINALS, "terminal cost"), "ridge": not_negative}


def _options(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(v, dict) for v in value.values()):
        raise CommandError(
            f"{name}: one table a solver is needed, as [options.newton]; found {value!r}."
        )
    return value


@dataclasses.dataclass(frozen=True)
class Asked:
    """What `solve` is to do. Tables whose keys the library knows stay tables."""

    problem: str = option(
        dataclasses.MISSING,
        string,
        "PROBLEM.toml, see examples/*.toml",
        "PROBLEM.toml",
        kind="argument",
        file=False,
    )
    data: str = option("digits", string, f"diabetes, {DATA}", line=False)
    target: str | None = option(None, string, TARGET, line=False)
    encode: str | None = option(None, one_of(("one-hot",), "encoding"), ENCODE, line=False)
    samples: int | None = option(None, whole(2), "training samples, default all", line=False)
    train_size: float | int = option(0.8, train_size, TRAIN_SIZE, line=False)
    seed: int = option(0, whole(0), "seed of split and start", "N", shown="the file's, or 0")
    solver: str = option(
        "newton",
        one_of((*NAMES, "auto"), "solver"),
        f"auto, {', '.join(NAMES)}",
        "NAME",
        shown="the file's, or newton",
    )
    max_steps: int | None = option(None, whole(0), "step limit", "N", shown="the solver's own")
    network: Mapping[str, Any] = option(
        dict, table(NETWORK, open_to="architecture"), "stages", line=False
    )
    costs: Mapping[str, Any] = option(dict, table(COSTS, open_to=""), "costs by name", line=False)
    control_set: Mapping[str, Any] = option(
        dict, table({"kind": string}, open_to=""), "kind, and its numbers", line=False
    )
    options: Mapping[str, Any] = option(dict, _options, "of a solver, under its name", line=False)
    checkpoint: Path | None = option(
        None, path, "folder that keeps the run, so that it can be resumed", "DIR", file=False
    )
    every: float = option(
        30.0,
        real(lambda t: t >= 0, "a number of seconds >= 0"),
        "seconds between checkpoints",
        "S",
        shown="30",
        file=False,
    )
    resume: bool = flag("go on from the newest checkpoint, to the same bits")
    out: Path = folder("solve", file=False)

    def __post_init__(self) -> None:
        if self.resume and self.checkpoint is None:
            raise CommandError("--resume needs --checkpoint DIR, the folder to resume from.")
        for name in self.options:
            if name not in NAMES:
                raise CommandError(
                    f"{self.problem}: options.{name}: unknown solver; the solvers are "
                    f"{', '.join(NAMES)}.{misspelt(name, NAMES)}"
                )


def run(asked: Asked, screen: Screen) -> Iterator[Answer]:
    """Solve, then verify; the solution is an answer before it is verified."""
    import jax

    from hjcontrol.cli.real_targets import loaded
    from hjcontrol.cli.stated_problem import method, stated

    split_key, subset_key, start_key, probe_key = jax.random.split(jax.random.key(asked.seed), 4)
    data = loaded(asked, screen)
    parts = hj.data.split(data, asked.train_size, key=split_key)
    train = parts.train
    if asked.samples is not None and asked.samples < len(train):
        train = hj.data.subset(train, asked.samples, key=subset_key)
    problem = stated(asked, train)
    check_memory(problem)
    if asked.solver == "auto":
        asked = _chosen(asked, problem, screen)
    solver = method(asked)
    size = sum(a.size for a in jax.tree.leaves(jax.eval_shape(problem.init, start_key)))
    aimed = "a real target" if data.classes is None else f"{len(data.classes)} classes"
    screen.line(
        f"{data.name}: {len(train)} training and {len(parts.test)} test samples, "
        f"{data.features.shape[1]} features, {aimed}; "
        f"{len(problem.chain)} stages, {size} weights, {type(problem.control_set).__name__}"
    )
    solution = _solved(asked, problem, solver, start_key, screen)
    found = Solved(asked, train, parts.test, solution, parts.target_scale)
    yield found.answer(None)._replace(files={"solution.npz": found.write_weights})
    yield found.answer(_verified(found.solution, probe_key, screen))


def _chosen(asked: Asked, problem: Any, screen: Screen) -> Asked:
    """`auto` resolved, and said."""
    try:
        selection = hj.solvers.select(problem)
    except ValueError as error:
        raise CommandError(str(error)) from None
    screen.line(f"auto: {selection.name}, {selection.reason}")
    return dataclasses.replace(asked, solver=selection.name)


def _solved(asked: Asked, problem: Any, solver: Any, key: Any, screen: Screen) -> Any:
    from hjcontrol.solvers import Checkpoint

    place = None if asked.checkpoint is None else Checkpoint(asked.checkpoint, asked.every)
    if asked.resume and not _newest(asked.checkpoint):
        screen.line(f"{asked.checkpoint}: no checkpoint there; the run begins at its start")
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always", UserWarning)
        try:
            with screen.progress(solver.name) as progress:
                return hj.solve(
                    problem,
                    solver,
                    key=key,
                    max_steps=asked.max_steps,
                    progress=progress,
                    checkpoint=place,
                    resume=asked.resume,
                )
        except ValueError as error:  # a problem that is refused, or the checkpoint of another run
            raise CommandError(str(error)) from None
        except KeyboardInterrupt:
            raise CommandError(_how_to_resume(asked), INTERRUPTED) from None
        finally:
            for warning in heard:
                screen.line(f"note: {warning.message}")


def _newest(folder: Path | None) -> str | None:
    found = [] if folder is None else sorted(folder.glob("checkpoint-*.npz"))
    return found[-1].name if found else None


def _how_to_resume(asked: Asked) -> str:
    newest = _newest(asked.checkpoint)
    if newest is None:
        return (
            "interrupted; nothing is written. With --checkpoint DIR a run can be resumed where it was "
            "interrupted."
        )
    line = command_line.get()
    line = line if asked.resume else f"{line} --resume"
    return f"interrupted; {asked.checkpoint / newest} has the run. Go on with: {line}"  # pyright: ignore


def _verified(solution: Any, key: Any, screen: Screen) -> Any:
    try:
        with screen.working(f"{solution.solver:<16} verifying the costate"):
            return hj.verify(solution, routes=("backprop", "pairing"), key=key)
    except ValueError as error:
        screen.line(f"not verified: {error}")
        return None


# ---------------------------------------------------------------------------------------- answer


@dataclasses.dataclass(frozen=True)
class Solved:
    """The solution, and the data that it was found on and is tested on; `target_scale` divided real
    targets."""

    asked: Asked
    train: Any
    test: Any
    solution: Any
    target_scale: float = 1.0

    @property
    def labelled(self) -> tuple[Any, Any] | None:
        """The test pair that an accuracy is taken on; none of real targets."""
        return None if self.train.classes is None else (self.test.features, self.test.targets)

    @functools.cached_property
    def scores(self) -> dict[str, float | None]:
        """Of real targets: `train_r2`, `train_rmse`, `test_r2`, `test_rmse`."""
        from hjcontrol.cli.real_targets import scores
        from hjcontrol.cli.stated_problem import entered

        found = {}
        parts = {} if self.labelled else {"train": self.train, "test": self.test}
        for part, data in parts.items():
            outputs = self.solution.predict(**entered(self.asked, data))
            told = scores(outputs, data.targets, self.target_scale)
            found |= {f"{part}_{name}": value for name, value in told.items()}
        return found

    def write_weights(self, file: Path) -> Path:
        """One array per leaf, named as `run0.W`: the run, then the path within it. No pickles."""
        import io

        import jax
        import numpy as np

        from hjcontrol._ground.files import write_atomically

        leaves = jax.tree_util.tree_leaves_with_path(self.solution.weights)
        named = {f"run{at[0].idx}{jax.tree_util.keystr(at[1:])}": np.asarray(a) for at, a in leaves}
        buffer = io.BytesIO()
        np.savez(buffer, **named)
        return write_atomically(file, buffer.getvalue())

    def facts(self) -> dict[str, Any]:
        """What was asked."""
        return {
            "problem": self.asked.problem,
            "data": self.asked.data,
            "num_samples": len(self.train),
            "num_test": len(self.test),
            "seed": self.asked.seed,
            "control_set": type(self.solution.problem.control_set).__name__,
            "solver": self.solution.solver,
        }

    def answer(self, certificate: Any) -> Answer:
        """What is known with this certificate, or yet without one."""
        from hjcontrol.reporting.tables import accuracy, outcome

        solution = self.solution
        right = accuracy(solution, self.labelled)
        content = (
            self.facts()
            | {**solution.stats, "result": outcome(solution)[0], "test_accuracy": right}
            | self.scores
            | {"costate": {} if certificate is None else dict(certificate.agreement)}
            | {"verdict": None if certificate is None else certificate.verdict}
        )
        certificates = {} if certificate is None else {solution.solver: certificate}
        return Answer(
            content,
            lambda: self.record(certificates),
            told=told(certificates),
            code=exit_code(certificates),
            kept="the solution is kept",
        )

    def record(self, certificates: Mapping[str, Any]) -> Record:
        """The solution, and what the witness says of it."""
        from hjcontrol.cli.real_targets import score_rows
        from hjcontrol.reporting.page import report_record

        name = self.solution.solver
        certificate = certificates.get(name)
        found = report_record(
            {name: self.solution},
            certificates=certificates,
            test=self.labelled,
            classes=self.train.classes,
            title=f"{self.train.name}, solved by {name}",
            command=command_line.get(),
            verdict=None if certificate is None else certificate.verdict,
        )
        if not self.scores:
            return found
        return found._replace(
            rows={"Fit, in the target's units": score_rows(self.scores)} | dict(found.rows)
        )


SOLVE = Command(
    "solve",
    """Solve a training problem that a TOML file states: data, network, costs, control set, solver.

    Writes solution.npz, report.html and result.json. Exit code 0: solved as far as `result` says and its
    costate verified; 1: refuted; 3: not refuted, and not all was shown.
    """,
    Asked,
    run,
    config="problem",
)

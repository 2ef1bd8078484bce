"""`hjcontrol solve`: the problem of a PROBLEM.toml, solved by one method, resumable, and verified.

Files of --out: solution.npz (weights, one array a leaf), result.json, report.html. The run itself is
kept in --checkpoint DIR: after Ctrl-C, a terminated or a killed process, the same line with --resume ends
at the very bits that it would have ended at.
"""

import dataclasses
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from hjcontrol.cli.errors import CommandError
from hjcontrol.cli.folder import output_folder, save, save_json, save_page
from hjcontrol.cli.invocation import command_line
from hjcontrol.cli.solve_settings import Asked, read
from hjcontrol.cli.terminal import Screen
from hjcontrol.cli.verdicts import exit_code, told
from hjcontrol.solvers.names import NAMES

INTERRUPTED = 130
Text = str | None


def solve(
    problem: Annotated[str, typer.Argument(help="PROBLEM.toml, see examples/*.toml")],
    solver: Annotated[
        Text,
        typer.Option(
            help=f"auto, {', '.join(NAMES)}", show_default="the file's, or newton", metavar="NAME"
        ),
    ] = None,
    seed: Annotated[
        Text, typer.Option(help="of split and start", show_default="the file's, or 0", metavar="N")
    ] = None,
    max_steps: Annotated[
        Text, typer.Option(help="step limit", show_default="the solver's own", metavar="N")
    ] = None,
    checkpoint: Annotated[
        Text,
        typer.Option(help="folder that keeps the run, so that it can be resumed", metavar="DIR"),
    ] = None,
    every: Annotated[
        Text, typer.Option(help="seconds between checkpoints", show_default="30", metavar="S")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="go on from the newest checkpoint, to the same bits")
    ] = False,
    out: Annotated[
        Text, typer.Option(help="folder to write to", show_default="./solve", metavar="DIR")
    ] = None,
) -> None:
    """Solve a training problem that a TOML file states: data, network, costs, control set, solver.

    Writes solution.npz, report.html and result.json. Exit code 0: solved as far as `result` says and its
    costate verified; 1: refuted; 3: not refuted, and not all was shown.
    """
    given = {
        "solver": solver,
        "seed": seed,
        "max_steps": max_steps,
        "checkpoint": checkpoint,
        "every": every,
        "resume": resume or None,
        "out": out,
    }
    asked = read(problem, given)
    with output_folder(asked.out):
        raise typer.Exit(_run(asked, Screen()))


def _run(asked: Asked, screen: Screen) -> int:
    import jax

    jax.config.update("jax_enable_x64", True)  # the command owns its process

    from hjcontrol.cli.memory import check_memory
    from hjcontrol.cli.stated_problem import method, stated
    from hjcontrol.data import DataError, load, split, subset

    split_key, subset_key, start_key, probe_key = jax.random.split(jax.random.key(asked.seed), 4)
    try:
        data = load(asked.data, asked.target)
        parts = split(data, asked.train_size, key=split_key)
        train = parts.train
        if asked.samples is not None and asked.samples < len(train):
            train = subset(train, asked.samples, key=subset_key)
    except DataError as error:
        raise CommandError(str(error)) from None
    problem = stated(asked, train)
    check_memory(problem)
    if asked.solver == "auto":
        asked = _chosen(asked, problem, screen)
    solver = method(asked)
    size = sum(a.size for a in jax.tree.leaves(jax.eval_shape(problem.init, start_key)))
    screen.line(
        f"{data.name}: {len(train)} training and {len(parts.test)} test samples, "
        f"{data.features.shape[1]} features, {len(data.classes)} classes; "
        f"{len(problem.chain)} stages, {size} weights, {type(problem.control_set).__name__}"
    )
    solution = _solved(asked, problem, solver, start_key, screen)
    facts = _facts(asked, train, parts.test, solution)
    written = [asked.out / "solution.npz", _keep(asked, facts, solution, parts.test, None)]
    try:
        certificate = _verified(solution, probe_key, screen)
        written[1] = _keep(asked, facts, solution, parts.test, certificate)
        _tell(facts, (parts.test.features, parts.test.targets), solution, certificate, screen)
        for file in (
            _page(asked, facts, train, parts.test, solution, certificate, screen),
            *written,
        ):
            screen.line(str(file))
    except KeyboardInterrupt:
        kept = " and ".join(map(str, written))
        raise CommandError(f"interrupted; {kept} hold what was solved.", INTERRUPTED) from None
    return exit_code({} if certificate is None else {asked.solver: certificate})


def _chosen(asked: Asked, problem: Any, screen: Screen) -> Asked:
    """`auto` resolved, and said."""
    from hjcontrol.solvers import select

    try:
        selection = select(problem)
    except ValueError as error:
        raise CommandError(str(error)) from None
    screen.line(f"auto: {selection.name}, {selection.reason}")
    return dataclasses.replace(asked, solver=selection.name)


def _solved(asked: Asked, problem: Any, solver: Any, key: Any, screen: Screen) -> Any:
    from hjcontrol.solvers import Checkpoint
    from hjcontrol.solvers import solve as solve_problem

    place = None if asked.checkpoint is None else Checkpoint(asked.checkpoint, asked.every)
    if asked.resume and not _newest(asked.checkpoint):
        screen.line(f"{asked.checkpoint}: no checkpoint there; the run begins at its start")
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always", UserWarning)
        try:
            with screen.progress(solver.name) as progress:
                return solve_problem(
                    problem,
                    solver,
                    key=key,
                    max_steps=asked.max_steps,
                    progress=progress,
                    checkpoint=place,
                    resume=asked.resume,
                )
        except (
            ValueError
        ) as error:  # the method refuses the problem, or the checkpoint is another's
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
    from hjcontrol.verification import verify

    screen.line(f"{solution.solver:<16} verifying the costate")
    try:
        return verify(solution, routes=("backprop", "pairing"), key=key)
    except ValueError as error:
        screen.line(f"not verified: {error}")
        return None


def _facts(asked: Asked, train: Any, test: Any, solution: Any) -> dict[str, Any]:
    return {
        "problem": asked.source,
        "data": asked.data,
        "num_samples": len(train),
        "num_test": len(test),
        "seed": asked.seed,
        "control_set": type(solution.problem.control_set).__name__,
        "solver": solution.solver,
    }


def _keep(asked: Asked, facts: dict[str, Any], solution: Any, test: Any, certificate: Any) -> Path:
    """Write solution.npz and result.json: once before anything is verified, once after."""
    from hjcontrol.cli.stored import write_weights
    from hjcontrol.reporting.tables import accuracy, outcome

    right = accuracy(solution, (test.features, test.targets))
    if certificate is None:
        save(asked.out / "solution.npz", lambda p: write_weights(p, solution.weights))
    return save_json(
        asked.out / "result.json",
        facts
        | {**solution.stats, "result": outcome(solution)[0], "test_accuracy": right}
        | {"costate": {} if certificate is None else dict(certificate.agreement)}
        | {"verdict": None if certificate is None else certificate.verdict},
    )


def _tell(
    facts: dict[str, Any], pair: Any, solution: Any, certificate: Any, screen: Screen
) -> None:
    from hjcontrol.reporting.tables import certificate_rows, outcome, solver_rows

    name = facts["solver"]
    certificates = {} if certificate is None else {name: certificate}
    screen.line("")
    screen.table("Solution", solver_rows({name: solution}, pair))
    screen.line("")
    screen.table("Disagreement of routes to the costate", certificate_rows(certificates))
    kind, remedy = outcome(solution)
    if remedy:
        screen.line(f"\n{kind.replace('_', ' ')}: {remedy}")
    screen.verdict(told(certificates))


def _page(
    asked: Asked,
    facts: dict[str, Any],
    train: Any,
    test: Any,
    solution: Any,
    certificate: Any,
    screen: Screen,
) -> Path:
    from hjcontrol.reporting import report

    name = facts["solver"]
    return save_page(
        asked.out / "report.html",
        lambda path: report(
            path,
            {name: solution},
            certificates={} if certificate is None else {name: certificate},
            test=(test.features, test.targets),
            classes=train.classes,
            tables={"Asked": facts},
            title=f"{train.name}, solved by {name}",
            command=command_line.get(),
            verdict=None if certificate is None else certificate.verdict,
        ),
        screen,
    )

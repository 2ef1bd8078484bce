"""`hjcontrol crosscheck`: a real network trained as a control problem, each way checked by another.

This file is the command's face: its options, the order of its work, what it prints and writes. It
imports nothing heavy until the options are known to be good.
"""

from typing import Annotated, Any

import typer

from hjcontrol.cli.errors import CommandError
from hjcontrol.cli.folder import output_folder, save_json, save_page
from hjcontrol.cli.invocation import command_line
from hjcontrol.cli.settings import ALL, SOLVERS, Settings, settings
from hjcontrol.cli.terminal import Screen
from hjcontrol.cli.verdicts import exit_code, told, verdict

INTERRUPTED = 130
INTERRUPTION = "Interrupted by Ctrl-C: what had finished is shown."

Text = str | None


def _option(help: str, default: str, metavar: str) -> Any:
    return typer.Option(help=help, show_default=default, metavar=metavar)


def crosscheck(
    data: Annotated[
        Text, _option("digits, wine, breast_cancer, iris, FILE.csv or FILE.npz", "digits", "DATA")
    ] = None,
    target: Annotated[
        Text, typer.Option(help="target column of FILE.csv, default the last", metavar="COLUMN")
    ] = None,
    width: Annotated[Text, _option("width of the state", "16", "N")] = None,
    depth: Annotated[Text, _option("residual stages", "8", "N")] = None,
    step: Annotated[Text, _option("Euler step h of a residual stage", "0.25", "H")] = None,
    ridge: Annotated[Text, _option("strength of the ridge cost", "1e-3", "RHO")] = None,
    seed: Annotated[Text, _option("seed of split, start and probes", "0", "N")] = None,
    train_size: Annotated[
        Text, _option("training part: a fraction or a number of samples", "0.8", "SIZE")
    ] = None,
    solver: Annotated[
        list[str] | None,
        _option(
            f"{', '.join(SOLVERS)}, or all that can; may be repeated",
            "gradient, newton, direct",
            "NAME",
        ),
    ] = None,
    direct_samples: Annotated[
        Text, _option("samples of the small copy for the direct method", "24", "N")
    ] = None,
    config: Annotated[
        Text,
        typer.Option(help="the same options by name, below the command line", metavar="FILE.toml"),
    ] = None,
    out: Annotated[Text, _option("folder to write to", "./crosscheck", "DIR")] = None,
) -> None:
    """Train a network as an optimal control problem, several ways, and check each by another.

    Writes report.html and result.json. Exit code 0: all costates verified; 1: refuted; 3: not
    refuted, and not all was shown.
    """
    given = {
        "data": data, "target": target, "width": width, "depth": depth, "step": step,
        "ridge": ridge, "seed": seed, "train_size": train_size, "solver": solver,
        "direct_samples": direct_samples, "out": out,
    }  # fmt: skip
    raise typer.Exit(run(settings(given, config), Screen(), command_line.get()))


def run(asked: Settings, screen: Screen, command: str) -> int:
    """Do the work of the command and return its exit code.

    **Raises:** `CommandError` for data or a folder that cannot be used.
    """
    from hjcontrol.data import DataError, load

    try:
        data = load(asked.data, asked.target)
        with output_folder(asked.out):
            return _work(asked, data, screen, command)
    except DataError as error:
        raise CommandError(str(error)) from None


def _work(asked: Settings, data: Any, screen: Screen, command: str) -> int:
    import jax

    jax.config.update("jax_enable_x64", True)  # the command owns its process

    from hjcontrol.cli.result import summary
    from hjcontrol.cli.trial import perform, prepare

    trial = prepare(asked, data)
    trial.keep = lambda t: save_json(asked.out / "result.json", summary(t))
    screen.line(
        f"{data.name}: {len(trial.train)} training and {len(trial.test)} test samples, "
        f"{data.features.shape[1]} features, {len(data.classes)} classes"
    )
    perform(trial, screen)
    if trial.interrupted and not trial.solutions:
        raise KeyboardInterrupt
    found = verdict(trial.certificates)
    _show(trial, screen, every=ALL in asked.solver)
    written = _write(trial, found, screen, command)
    if trial.interrupted:
        raise CommandError(
            f"interrupted; finished and kept: {', '.join(trial.solutions)} (in {written}).",
            INTERRUPTED,
        )
    return exit_code(trial.certificates)


def _show(trial: Any, screen: Screen, every: bool) -> None:
    from hjcontrol.cli.result import direct_facts, matched_rows, small_size
    from hjcontrol.cli.trial import SMALL_NEWTON
    from hjcontrol.reporting.tables import certificate_rows, figure, solver_rows

    small = {} if trial.small_newton is None else {SMALL_NEWTON: trial.small_newton}
    screen.line("")
    screen.table("Solvers", solver_rows(trial.solutions | small, trial.test_pair))
    screen.line("")
    screen.table("Disagreement of routes to the costate", certificate_rows(trial.certificates))
    direct = direct_facts(trial)
    if direct is not None:
        screen.line("")
        cells = {key.replace("_", " "): figure(value, 2) for key, value in direct.items()}
        screen.table(f"Direct against Newton, {small_size(trial)}", [{"": "", **cells}])
    if every:
        screen.line("")
        screen.table("Every solver, polished by Newton and matched", matched_rows(trial))
    else:
        for name, comparison in trial.comparisons.items():
            screen.line(f"\n{name}\n{comparison}")
    for name, reason in trial.refused.items():
        screen.line(f"\n{name}: not applicable. {reason}")
    screen.verdict(told(trial.certificates))


def _write(trial: Any, found: str | None, screen: Screen, command: str) -> Any:
    from hjcontrol.cli.result import direct_facts, problem_facts, small_size, summary
    from hjcontrol.cli.trial import SMALL_NEWTON
    from hjcontrol.reporting import report

    folder = trial.settings.out
    result = save_json(folder / "result.json", summary(trial))
    small = {} if trial.small_newton is None else {SMALL_NEWTON: trial.small_newton}
    direct = direct_facts(trial)
    page = save_page(
        folder / "report.html",
        lambda path: report(
            path,
            trial.solutions | small,
            certificates=trial.certificates,
            comparisons=trial.comparisons,
            test=trial.test_pair,
            classes=trial.train.classes,
            tables={"Asked": problem_facts(trial)}
            | ({} if direct is None else {f"Direct against Newton, {small_size(trial)}": direct}),
            title=f"Crosscheck of {trial.data.name}",
            command=command,
            verdict=found,
            notice=INTERRUPTION if trial.interrupted else None,
        ),
        screen,
    )
    screen.line(str(page))
    screen.line(str(result))
    return result

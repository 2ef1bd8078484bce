"""`hjcontrol fit-convex`: training that is convex, with its gap, beside its gradient-trained twin.

This file is the command's face: its options, what it prints and writes. It imports nothing heavy until
the options are known to be good.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from hjcontrol.cli.errors import CommandError
from hjcontrol.cli.fit_settings import MODELS, Asked, fit_settings
from hjcontrol.cli.folder import output_folder, save_json, save_page
from hjcontrol.cli.invocation import command_line
from hjcontrol.cli.terminal import Screen

REFUTED = 1
Text = str | None


def fit_convex(
    model: Annotated[
        Text, typer.Option(help=", ".join(MODELS), show_default="logistic", metavar="MODEL")
    ] = None,
    data: Annotated[
        Text,
        typer.Option(
            help="digits, wine, breast_cancer, iris, diabetes, FILE.csv or FILE.npz",
            show_default="digits for logistic, diabetes for the others",
            metavar="DATA",
        ),
    ] = None,
    target: Annotated[
        Text, typer.Option(help="target column of FILE.csv, default the last", metavar="COLUMN")
    ] = None,
    ridge: Annotated[
        Text,
        typer.Option(
            help="ridge, or the group penalty of gated-relu", show_default="1e-2", metavar="RHO"
        ),
    ] = None,
    eps: Annotated[
        Text,
        typer.Option(
            help="temperature, in standard deviations of the target; 0 with dc: max-affine",
            show_default="1 for hopf-cole, 0.3 for dc, 0.01 for the twin of convex-regression",
            metavar="EPS",
        ),
    ] = None,
    atoms: Annotated[
        Text, typer.Option(help="most atoms, gates or pieces", show_default="50", metavar="N")
    ] = None,
    seed: Annotated[
        Text, typer.Option(help="seed of split, gates and start", show_default="0", metavar="N")
    ] = None,
    train_size: Annotated[
        Text,
        typer.Option(
            help="training part: a fraction or a number of samples",
            show_default="0.8",
            metavar="SIZE",
        ),
    ] = None,
    out: Annotated[
        Text, typer.Option(help="folder to write to", show_default="./fit-convex", metavar="DIR")
    ] = None,
) -> None:
    """Train by convex optimisation, with a bound that no weights can beat, and beside it by gradients.

    Writes report.html and result.json. Exit code 0: the gap is closed; 1: it is not, or the twin went
    below the bound.
    """
    given = {
        "data": data,
        "target": target,
        "ridge": ridge,
        "seed": seed,
        "train_size": train_size,
        "out": out,
    }
    raise typer.Exit(run(fit_settings(model, given, eps, atoms), Screen(), command_line.get()))


def run(asked: Asked, screen: Screen, command: str) -> int:
    """Do the work of the command and return its exit code.

    **Raises:** `CommandError` for data, options or a folder that cannot be used.
    """
    from hjcontrol.data import DataError

    with output_folder(asked.common.out):
        try:
            return _work(asked, screen, command)
        except DataError as error:
            raise CommandError(str(error)) from None


def _work(asked: Asked, screen: Screen, command: str) -> int:
    import jax

    jax.config.update("jax_enable_x64", True)  # the command owns its process

    from hjcontrol.cli.convex_trial import perform

    trial = perform(asked, screen)
    screen.line("")
    screen.line(str(trial.convex))
    screen.line("")
    screen.table("Convex against gradients", trial.rows())
    for note in trial.notes:
        screen.line(note)
    screen.line(f"\nverdict: {trial.verdict}", style="bold")
    for path in _write(trial, screen, command):
        screen.line(str(path))
    return REFUTED if trial.verdict == "refuted" else 0


def _write(trial: Any, screen: Screen, command: str) -> list[Path]:
    from hjcontrol.reporting import report

    folder = trial.asked.common.out
    result = save_json(folder / "result.json", trial.summary())
    page = save_page(
        folder / "report.html",
        lambda path: report(
            path,
            {"gradient": trial.twin},
            convex=trial.convex,
            test=trial.test_pair,
            classes=trial.classes,
            tables=trial.tables(),
            title=f"Convex training of {trial.name}: {trial.asked.model}",
            command=command,
            verdict=trial.verdict,
        ),
        screen,
    )
    return [page, result]

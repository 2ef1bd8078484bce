"""`hjcontrol pde`: the initial-value problem that a layer's weights are, stated, checked and shown.

This file is the command's face: its options, what it prints and writes. It imports nothing heavy until
the options are known to be good.
"""

from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from hjcontrol.cli.errors import CommandError
from hjcontrol.cli.folder import output_folder, save_json, save_page
from hjcontrol.cli.invocation import command_line
from hjcontrol.cli.settings import magnitude, settings
from hjcontrol.cli.terminal import Screen

REFUTED = 1
Text = str | None


class Asked(NamedTuple):
    """What `pde` is to do. `eps` is `None` where the file, or the default, decides."""

    weights: str | None
    time: float
    eps: float | None
    window: float | None
    out: Path


def pde(
    weights: Annotated[
        Text,
        typer.Argument(
            help="arrays W (N, d) and b (N,), perhaps eps; left out: a layer fitted to the diabetes data",
            metavar="WEIGHTS.npz",
            show_default=False,
        ),
    ] = None,
    time: Annotated[
        Text, typer.Option(help="the time t at which the layer is u", show_default="1", metavar="T")
    ] = None,
    eps: Annotated[
        Text,
        typer.Option(help="viscosity >= 0", show_default="the file's eps, or 0.1", metavar="EPS"),
    ] = None,
    window: Annotated[
        Text,
        typer.Option(
            help="half the side of what is shown", show_default="where the layer bends", metavar="R"
        ),
    ] = None,
    out: Annotated[
        Text, typer.Option(help="folder to write to", show_default="./pde", metavar="DIR")
    ] = None,
) -> None:
    """State the Hamilton-Jacobi problem that an LSE layer solves, and measure whether it does.

    Writes report.html and result.json. Exit code 0: the residual is roundoff; 1: it is not.
    """
    asked = Asked(
        weights,
        1.0 if time is None else magnitude("--time", time, above=True),
        None if eps is None else magnitude("--eps", eps, above=False),
        None if window is None else magnitude("--window", window, above=True),
        settings({"out": out or "pde"}).out,
    )
    raise typer.Exit(run(asked, Screen(), command_line.get()))


def run(asked: Asked, screen: Screen, command: str) -> int:
    """Do the work of the command and return its exit code.

    **Raises:** `CommandError` for weights or a folder that cannot be used.
    """
    from hjcontrol.data import DataError

    try:
        with output_folder(asked.out):
            return _work(asked, screen, command)
    except DataError as error:
        raise CommandError(str(error)) from None


def _work(asked: Asked, screen: Screen, command: str) -> int:
    import jax

    jax.config.update("jax_enable_x64", True)  # the command owns its process

    from hjcontrol.cli.pde_trial import perform

    trial = perform(asked.weights, asked.time, asked.eps, asked.window, screen)
    screen.line("")
    screen.table("Residual of u_t + |grad u|^2 = eps lap u", trial.rows())
    for note in trial.notes:
        screen.line(note)
    screen.line(f"\nverdict: {trial.verdict}", style="bold")
    for path in _write(trial, asked.out, screen, command):
        screen.line(str(path))
    return REFUTED if trial.verdict == "refuted" else 0


def _write(trial: Any, folder: Path, screen: Screen, command: str) -> list[Path]:
    from hjcontrol.reporting.field_page import field_report

    result = save_json(folder / "result.json", trial.summary())
    page = save_page(
        folder / "report.html",
        lambda path: field_report(
            path,
            trial.view,
            rows=trial.rows(),
            residual=trial.residuals["heat"]["relative"],
            tables=trial.tables(),
            notes=trial.notes,
            title=f"The Hamilton-Jacobi problem of {trial.name}",
            verdict=trial.verdict,
            command=command,
        ),
        screen,
    )
    return [page, result]

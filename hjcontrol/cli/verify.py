"""`hjcontrol verify`: is a network's backward pass the costate? For our architectures, and for yours.

Each network is verified at its start and, after some steps of Adam, at trained weights.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from hjcontrol.cli.errors import CommandError
from hjcontrol.cli.folder import output_folder, save, save_json
from hjcontrol.cli.invocation import command_line
from hjcontrol.cli.settings import settings
from hjcontrol.cli.terminal import Screen

REFUTED, INTERRUPTED = 1, 130
DEFAULT = "residual"
Text = str | None


def verify(
    architecture: Annotated[
        list[str] | None,
        typer.Option(
            help="see `hjcontrol architectures`; or MODULE:OBJECT or FILE.py:OBJECT, your own network; "
            "may be repeated",
            show_default=DEFAULT,
            metavar="NAME",
        ),
    ] = None,
    data: Annotated[
        Text, typer.Option(help="digits, wine, ..., FILE.csv or FILE.npz", show_default="digits")
    ] = None,
    target: Annotated[
        Text, typer.Option(help="target column of FILE.csv, default the last", metavar="COLUMN")
    ] = None,
    samples: Annotated[
        Text, typer.Option(help="samples to verify on", show_default="256", metavar="N")
    ] = None,
    steps: Annotated[
        Text,
        typer.Option(help="steps of Adam; 0: as it stands", show_default="100", metavar="N"),
    ] = None,
    seed: Annotated[Text, typer.Option(show_default="0", metavar="N")] = None,
    recursion: Annotated[
        bool, typer.Option("--recursion", help="also the whole costate by forward mode; slower")
    ] = False,
    optimality: Annotated[
        bool, typer.Option("--optimality", help="also every condition of optimality; slower")
    ] = False,
    out: Annotated[
        Text, typer.Option(help="folder to write to", show_default="./verify", metavar="DIR")
    ] = None,
) -> None:
    """Verify a network's backward pass against the Pontryagin costate, stage by stage.

    Writes report.html (table and heat maps) and result.json. Exit code 0: verified; 1: refuted.
    """
    from hjcontrol.cli.network_source import checked_names

    asked = settings({"data": data, "target": target, "seed": seed, "out": out or "verify"})
    count, limit = _whole("--samples", samples, 256, 2), _whole("--steps", steps, 100, 0)
    import jax

    jax.config.update("jax_enable_x64", True)  # the command owns its process

    names = checked_names(list(architecture or [DEFAULT]))
    screen = Screen()
    with output_folder(asked.out):
        raise typer.Exit(_run(names, asked, count, limit, (recursion, optimality), screen))


def _whole(option: str, text: str | None, default: int, least: int) -> int:
    if text is None:
        return default
    if not text.isdecimal() or not least <= int(text) < 2**31:
        raise CommandError(f"{option}: a whole number >= {least} is needed; found {text}.")
    return int(text)


def _run(
    names: list[str], asked: Any, count: int, limit: int, also: tuple[bool, bool], screen: Screen
) -> int:
    from hjcontrol.cli.witness_trial import perform, prepare
    from hjcontrol.data import DataError, load

    try:
        trial = prepare(load(asked.data, asked.target), names, count, asked.seed)
    except DataError as error:
        raise CommandError(str(error)) from None
    screen.line(
        f"{trial.train.name}: verified on {len(trial.train)} samples, "
        f"{trial.train.features.shape[1]} features, {len(trial.train.classes)} classes"
    )
    perform(trial, limit, also, screen)
    if trial.interrupted and not trial.certificates:
        raise KeyboardInterrupt
    return _tell(trial, asked.out, screen)


def _tell(trial: Any, folder: Path, screen: Screen) -> int:
    from hjcontrol.cli.result import verdict
    from hjcontrol.reporting import report
    from hjcontrol.reporting.tables import figure

    found = verdict(trial.certificates)
    screen.line("")
    screen.table("Disagreement of routes to the costate, the worst of all stages", trial.rows())
    for name, certificate in trial.certificates.items():
        if certificate.verdict == "refuted":
            screen.line(f"\n{name}\n{certificate}")
        elif certificate.optimality is not None:
            screen.line(f"\n{name}\n{certificate.optimality}")
    screen.line(f"\nverdict: {found or 'none, nothing was verified'}", style="bold")
    content = {"verdict": found, "networks": trial.facts()}
    result = save_json(
        folder / "result.json", content | ({"interrupted": True} if trial.interrupted else {})
    )
    page = save(
        folder / "report.html",
        lambda path: report(
            path,
            {},
            certificates=trial.certificates,
            tables={
                name: {k: figure(v) for k, v in facts.items() if not isinstance(v, (dict, list))}
                for name, facts in trial.facts().items()
            },
            title=f"Backward passes on {trial.train.name}",
            command=command_line.get(),
            verdict=found,
            heat_caption="{}: every stage, every pair of routes",
            notice="Interrupted by Ctrl-C: what had finished is shown."
            if trial.interrupted
            else None,
        ),
    )
    screen.line(str(page))
    screen.line(str(result))
    if trial.interrupted:
        raise CommandError(
            f"interrupted; finished and kept: {', '.join(trial.certificates)} (in {result}).",
            INTERRUPTED,
        )
    return REFUTED if found == "refuted" else 0

"""`hjcontrol verify`: is a backward pass right? For our architectures, your network, your function.

Each network is verified at its start and, after some steps of Adam, at trained weights; a function at the
arguments that it brings.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from hjcontrol.cli.errors import CommandError
from hjcontrol.cli.folder import output_folder, save_json, save_page
from hjcontrol.cli.invocation import command_line
from hjcontrol.cli.settings import settings
from hjcontrol.cli.terminal import Screen
from hjcontrol.cli.verdicts import exit_code, told, verdict

INTERRUPTED = 130
DEFAULT = "residual"
Text = str | None


def verify(
    targets: Annotated[
        list[str] | None,
        typer.Argument(
            help="MODULE:OBJECT or FILE.py:OBJECT of your own, or a name of `hjcontrol architectures`. "
            "The object is a network; or a tuple (fn, *args), a function of no arguments that returns "
            "(fn, args), or a function with a default for every argument",
            show_default=DEFAULT,
            metavar="TARGET...",
        ),
    ] = None,
    architecture: Annotated[
        list[str] | None,
        typer.Option(help="one more TARGET; may be repeated", metavar="TARGET"),
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
    """Verify a backward pass: of a network against the Pontryagin costate, stage by stage; of a function,
    every custom rule where it runs. A function brings its own arguments: no data, no training.

    Writes report.html (tables, heat maps, the lines that are wrong) and result.json. Exit code 0: all was
    shown (what is declared deliberate too); 1: refuted; 2: bad usage or input; 3: not refuted, and not
    all was shown (untested, undefined, detached, or consistent with a gap over 1e-6); 130: interrupted.
    """
    from hjcontrol.cli.network_source import checked_names

    asked = settings({"data": data, "target": target, "seed": seed, "out": out or "verify"})
    count, limit = _whole("--samples", samples, 256, 2), _whole("--steps", steps, 100, 0)
    import jax

    jax.config.update("jax_enable_x64", True)  # the command owns its process

    names = checked_names([*(targets or ()), *(architecture or ())] or [DEFAULT])
    of_networks = {
        "--data": data,
        "--target": target,
        "--samples": samples,
        "--steps": steps,
        "--recursion": recursion or None,
        "--optimality": optimality or None,
    }
    given = [name for name, value in of_networks.items() if value is not None]
    with output_folder(asked.out):
        found = _read(names, given)
        raise typer.Exit(_run(found, asked, count, limit, (recursion, optimality), Screen()))


def _read(names: list[str], given: list[str]) -> list[Any]:
    from hjcontrol.cli.network_source import read_target

    found = [read_target(name) for name in names]
    if given and all(t.program is not None for t in found):
        what = (
            "a function with its own arguments" if len(found) == 1 else "functions with their own"
        )
        raise CommandError(
            f"{given[0]}: says nothing of {', '.join(names)}, {what}: there is no data and no training. "
            "Leave it out."
        )
    return found


def _whole(option: str, text: str | None, default: int, least: int) -> int:
    if text is None:
        return default
    if not text.isdecimal() or not least <= int(text) < 2**31:
        raise CommandError(f"{option}: a whole number >= {least} is needed; found {text}.")
    return int(text)


def _run(
    targets: list[Any], asked: Any, count: int, limit: int, also: tuple[bool, bool], screen: Screen
) -> int:
    from hjcontrol.cli.witness_trial import perform, prepare
    from hjcontrol.data import DataError, load

    try:
        networks = any(t.program is None for t in targets)
        data = load(asked.data, asked.target) if networks else None
        trial = prepare(targets, data, count, asked.seed)
    except DataError as error:
        raise CommandError(str(error)) from None
    if trial.train is not None:
        screen.line(
            f"{trial.train.name}: verified on {len(trial.train)} samples, "
            f"{trial.train.features.shape[1]} features, {len(trial.train.classes)} classes"
        )
    perform(trial, limit, also, screen)
    if trial.interrupted and not trial.certificates:
        raise KeyboardInterrupt
    return _tell(trial, asked.out, screen)


def _tell(trial: Any, folder: Path, screen: Screen) -> int:
    from hjcontrol.reporting import report
    from hjcontrol.reporting.tables import figure

    found = verdict(trial.certificates)
    networks = trial.rows()
    screen.line("")
    screen.table("Disagreement of routes to the costate, the worst of all stages", networks)
    for name, certificate in trial.certificates.items():
        if not certificate.pairs or not certificate:
            screen.line(f"\n{name}\n{certificate}")
        elif certificate.optimality is not None:
            screen.line(f"\n{name}\n{certificate.optimality}")
    screen.verdict(told(trial.certificates))
    content = {"verdict": found, "networks": trial.facts()}
    result = save_json(
        folder / "result.json", content | ({"interrupted": True} if trial.interrupted else {})
    )
    page = save_page(
        folder / "report.html",
        lambda path: report(
            path,
            {},
            certificates=trial.certificates,
            tables={
                name: {k: figure(v) for k, v in facts.items() if not isinstance(v, (dict, list))}
                for name, facts in trial.facts().items()
            },
            title="Backward passes" + (f" on {trial.train.name}" if trial.train else ""),
            command=command_line.get(),
            verdict=found,
            heat_caption="{}: every stage, every pair of routes",
            notice="Interrupted by Ctrl-C: what had finished is shown."
            if trial.interrupted
            else None,
        ),
        screen,
    )
    screen.line(str(page))
    screen.line(str(result))
    if trial.interrupted:
        raise CommandError(
            f"interrupted; finished and kept: {', '.join(trial.certificates)} (in {result}).",
            INTERRUPTED,
        )
    return exit_code(trial.certificates)

"""`hjcontrol claims`: every claim of the theory with its check and its control.

This file is the command's face: its options, what it prints and writes.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from hjcontrol.cli.errors import CommandError
from hjcontrol.cli.folder import output_folder, save, save_json
from hjcontrol.cli.invocation import command_line
from hjcontrol.cli.settings import settings
from hjcontrol.cli.terminal import Screen

UNSOUND, INTERRUPTED = 1, 130


def claims(
    only: Annotated[
        list[str] | None,
        typer.Option(help="a claim by its id; may be repeated", metavar="ID", show_default="all"),
    ] = None,
    fast: Annotated[
        bool, typer.Option("--fast", help="leave out what takes minutes: training above all")
    ] = False,
    out: Annotated[
        str | None, typer.Option(help="folder to write to", show_default="./claims", metavar="DIR")
    ] = None,
) -> None:
    """Check every published claim of the theory, and see every check's control fail.

    Writes claims.html, claims.md with its pictures, and claims.json. Exit code 0: each claim came out as
    its verdict on record says, and each control failed; 1: one did not.
    """
    asked = settings({"out": out or "claims"}).out
    raise typer.Exit(run(only or [], fast, asked, Screen(), command_line.get()))


def run(only: list[str], fast: bool, out: Path, screen: Screen, command: str) -> int:
    """Do the work of the command and return its exit code.

    **Raises:** `CommandError` for an unknown claim or a folder that cannot be used.
    """
    with output_folder(out):
        from hjcontrol.reproduction import CLAIMS, by_id

        try:
            chosen = [by_id(name) for name in only] or list(CLAIMS)
        except ValueError as error:
            raise CommandError(f"--only: {error}") from None
        entries, interrupted = _audited(chosen, fast, screen)
        if interrupted and not entries:
            raise KeyboardInterrupt
        _show(entries, screen)
        written = _write(entries, fast, interrupted, out, screen, command)
        if interrupted:
            raise CommandError(
                f"interrupted; {len(entries)} of {len(chosen)} claims finished and kept (in {written}).",
                INTERRUPTED,
            )
        return 0 if all(e.sound for e in entries) else UNSOUND


def _audited(chosen: list[Any], fast: bool, screen: Screen) -> tuple[list[Any], bool]:
    from hjcontrol.reproduction import audit

    entries: list[Any] = []
    try:
        for k, claim in enumerate(chosen, 1):
            with screen.working(f"{k:>3}/{len(chosen)} {claim.id}", 0.0 if fast else claim.seconds):
                entries += audit([claim], fast=fast)
            mark = "" if entries[-1].sound else "   UNSOUND"
            screen.line(
                f"{k:>3}/{len(chosen)} {claim.id:<26} {entries[-1].verdict:<22} "
                f"{entries[-1].seconds:6.1f} s{mark}"
            )
    except KeyboardInterrupt:
        return entries, True
    return entries, False


def _show(entries: list[Any], screen: Screen) -> None:
    from hjcontrol.reproduction import VERDICTS
    from hjcontrol.reproduction.record import claim_rows

    screen.line("")
    screen.table("Claims", claim_rows([e.summary() for e in entries]), words=True)
    for e in entries:
        if e.verdict == "fails as stated":
            screen.line(f"{e.claim.id}: {e.counterexample}")
    for e in entries:
        for fault in e.faults:
            screen.line(f"UNSOUND {e.claim.id}: {fault}", style="bold red")
    counts = {v: sum(e.verdict == v for e in entries) for v in VERDICTS}
    screen.line("\n" + ", ".join(f"{n} {v}" for v, n in counts.items() if n))
    sound = sum(e.sound for e in entries)
    failed = sum(not f.holds for e in entries for f in e.control.findings)
    asked = sum(len(e.control.findings) for e in entries)
    screen.line(
        f"{sound} of {len(entries)} sound; {failed} of {asked} controls failed, as they must",
        style="bold",
    )


def _write(
    entries: list[Any], fast: bool, interrupted: bool, out: Path, screen: Screen, command: str
) -> Path:
    from hjcontrol.reproduction.record import claims_markdown, claims_page

    summaries = [e.summary() for e in entries]
    pictures = {e.claim.id: e.evidence.picture for e in entries if e.evidence.picture is not None}
    content = {
        "fast": fast,
        "sound": all(e.sound for e in entries),
        "claims": summaries,
    } | ({"interrupted": True} if interrupted else {})
    notice = "Interrupted by Ctrl-C: what had finished is shown." if interrupted else None
    page = save(
        out / "claims.html",
        lambda path: claims_page(path, summaries, pictures, command=command, notice=notice),
    )
    text = save(out / "claims.md", lambda path: claims_markdown(path, summaries, pictures))
    result = save_json(out / "claims.json", content)
    for path in (page, text, result):
        screen.line(str(path))
    return result

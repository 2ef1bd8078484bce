"""`hjcontrol claims`: every claim of the theory with its check and its control."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hjcontrol.cli.command import Answer, Command, command_line
from hjcontrol.cli.errors import CommandError
from hjcontrol.cli.schema import as_given, flag, folder, option
from hjcontrol.cli.terminal import Screen
from hjcontrol.cli.verdicts import REFUTED, SHOWN


@dataclasses.dataclass(frozen=True)
class Asked:
    """What `claims` is to do."""

    only: list[str] | tuple[()] = option(
        (), as_given, "a claim by its id; may be repeated", "ID", kind="many", shown="all"
    )
    fast: bool = flag("leave out what takes minutes: training above all")
    out: Path = folder("claims")


def run(asked: Asked, screen: Screen) -> Iterator[Answer]:
    """Audit claim after claim; those that are audited are an answer."""
    from hjcontrol import reproduction

    try:
        chosen = [reproduction.by_id(name) for name in asked.only] or list(reproduction.CLAIMS)
    except ValueError as error:
        raise CommandError(f"--only: {error}") from None
    entries: list[Any] = []
    for k, claim in enumerate(chosen, 1):
        place = f"{k:>3}/{len(chosen)} {claim.id}"
        with screen.working(place, 0.0 if asked.fast else claim.seconds):
            entries += reproduction.audit([claim], fast=asked.fast)
        entry = entries[-1]
        mark = "" if entry.sound else "   UNSOUND"
        screen.line(
            f"{k:>3}/{len(chosen)} {claim.id:<26} {entry.verdict:<22} {entry.seconds:6.1f} s{mark}"
        )
        yield _answer(entries[:], len(chosen), asked.fast)


def _answer(entries: list[Any], count: int, fast: bool) -> Answer:
    from hjcontrol.reproduction.claims_markdown import claims_markdown
    from hjcontrol.reproduction.claims_page import claims_page

    told = [e.summary() for e in entries]
    sound = all(e.sound for e in entries)
    pictures = {e.claim.id: e.evidence.picture for e in entries if e.evidence.picture is not None}
    command = command_line.get()
    return Answer(
        {"fast": fast, "sound": sound, "claims": told},
        lambda screen: _show(entries, screen),
        SHOWN if sound else REFUTED,
        f"{len(entries)} of {count} claims finished and kept",
        pages={
            "claims.html": lambda path, notice: claims_page(
                path, told, pictures, command=command, notice=notice
            ),
            "claims.md": lambda path, notice: claims_markdown(path, told, pictures),
        },
    )


def _show(entries: list[Any], screen: Screen) -> None:
    from hjcontrol.reproduction import VERDICTS
    from hjcontrol.reproduction.claims_rows import claim_rows

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


CLAIMS = Command(
    "claims",
    """Check every published claim of the theory, and see every check's control fail.

    Writes claims.html, claims.md with its pictures, and claims.json. Exit code 0: each claim came out as
    its verdict on record says, and each control failed; 1: one did not.
    """,
    Asked,
    run,
    result="claims.json",
)

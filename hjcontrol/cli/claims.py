"""`hjcontrol claims`: every claim of the theory with its check and its control."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hjcontrol.cli.command import REFUTED, SHOWN, Answer, Command, command_line
from hjcontrol.cli.errors import CommandError
from hjcontrol.cli.schema import as_given, flag, folder, option
from hjcontrol.cli.terminal import Screen


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
    from hjcontrol.reporting.page import provenance
    from hjcontrol.reproduction.auditing import turned
    from hjcontrol.reproduction.record import audit_record, claims_markdown

    found = [e.summary() for e in entries]
    pictures = {e.claim.id: e.evidence.picture for e in entries if e.evidence.picture is not None}
    made = provenance(command_line.get())
    sound = all(e.sound for e in entries)
    tried = sum(len(e.control.findings) for e in entries)
    told = [f"{e.claim.id}: {e.counterexample}" for e in entries if e.verdict == "fails as stated"]
    told += [f"UNSOUND {e.claim.id}: {fault}" for e in entries for fault in e.faults]
    told.append(
        f"{sum(e.sound for e in entries)} of {len(entries)} sound; {sum(map(turned, found))} of {tried} "
        "controls turned, as they must"
    )
    return Answer(
        {"fast": fast, "sound": sound, "claims": found},
        lambda: audit_record(found, pictures)._replace(detail=(), provenance=made),
        more=lambda: audit_record(found, pictures).detail,
        told=told,
        code=SHOWN if sound else REFUTED,
        kept=f"{len(entries)} of {count} claims finished and kept",
        drawn={"claims.md": lambda path: claims_markdown(path, found, pictures)},
    )


CLAIMS = Command(
    "claims",
    """Check every published claim of the theory, and see every check's control turn it.

    Writes claims.html, claims.md with its pictures, and claims.json. Exit code 0: each claim came out as
    its verdict on record says, and each control turned what it tries; 1: one did not.
    """,
    Asked,
    run,
    result="claims.json",
    page="claims.html",
)

"""What a person sees while a command runs.

On a terminal a live line per solver; elsewhere plain lines, seconds apart. Everything goes to standard
output, so that standard error holds errors alone. If the reader leaves (`| head`), the screen falls
silent and the work goes on: the files are the product, the lines are commentary.
"""

import contextlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from hjcontrol._ground.record import Record


class _PatientConsole(Console):
    """Stops printing after a broken pipe, and lets the work finish."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Screen:
    """Lines, tables and progress on a console.

    `quiet` shows none of them. `aside` leaves standard output to the result: progress goes to standard
    error if that is a terminal, and the rest is not shown.
    """

    def __init__(self, console: Console | None = None, *, quiet: bool = False, aside: bool = False):
        if console is None:
            wide = None if sys.stdout.isatty() else 120
            console = _PatientConsole(width=wide, highlight=False, quiet=quiet or aside)
        self.console = console
        self.meter = console
        if aside and not quiet and sys.stderr.isatty():
            self.meter = Console(stderr=True, highlight=False)

    def line(self, text: str, style: str = "") -> None:
        """One line, never wrapped nor read as markup: paths stay whole."""
        self.console.print(Text(text, style=style), soft_wrap=True)

    def answer(self, record: Record, told: Sequence[str] = ()) -> None:
        """A record in 80 columns, and the lines `told` below it."""
        if not self.console.quiet:
            self.line(f"\n{brief(record)}\n")
        for line in told:
            self.line(line, style="bold" if line.startswith("verdict: ") else "")

    def table(self, title: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Rows of equal keys, in words that are folded to fit."""
        if not rows:
            return
        table = Table(title=Text(title, style="bold"), title_justify="left", box=None)
        for name in rows[0]:
            table.add_column(Text(name), overflow="fold")
        for row in rows:
            table.add_row(*(Text(str(cell)) for cell in row.values()))
        self.console.print(table)

    def progress(self, name: str) -> AbstractContextManager[Callable[..., None]]:
        """A callback for `hj.solve(..., progress=)`."""
        from hjcontrol.solvers.progress import followed

        return followed(name, self.meter)

    def working(self, text: str, seconds: float | None = None) -> AbstractContextManager[Any]:
        """A live line with its seconds while work of one piece goes on; elsewhere one plain line, if
        `seconds` is not given or more than a few."""
        from hjcontrol._ground.progress import shown

        return shown(text, self.meter, expected=seconds)


def brief(record: Record) -> Record:
    """What a terminal shows of a record: no pictures, and of a part that is good its headline only."""
    parts = []
    for part in record.detail:
        if part.tone == "good" and part.verdict and part.headline:
            part = Record(part.title, part.headline)
        if part.headline or part.facts or part.rows or part.notes or part.detail:
            parts.append(brief(part))
    return record._replace(detail=parts)

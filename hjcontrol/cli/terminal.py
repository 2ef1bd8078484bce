"""What a person sees while a command runs.

On a terminal a live line per solver; elsewhere plain lines, seconds apart. Everything goes to standard
output, so that standard error holds errors alone. If the reader leaves (`| head`), the screen falls
silent and the work goes on: the files are the product, the lines are commentary.
"""

import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text


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

    def verdict(self, lines: Sequence[str]) -> None:
        """A line that stands out, and what belongs to it."""
        for i, line in enumerate(lines):
            self.line(line if i else f"\n{line}", style="" if i else "bold")

    def table(self, title: str, rows: Sequence[dict[str, str]], words: bool = False) -> None:
        """Rows of equal keys; after the first, columns are numbers unless `words`."""
        if not rows:
            return
        table = Table(title=Text(title, style="bold"), title_justify="left", box=None)
        for i, name in enumerate(rows[0]):
            side = "right" if i and not words else "left"
            table.add_column(Text(name), justify=side, overflow="fold")
        for row in rows:
            table.add_row(*(Text(cell) for cell in row.values()))
        self.console.print(table)

    def progress(self, name: str) -> AbstractContextManager[Callable[..., None]]:
        """A callback for `hj.solve(..., progress=)`."""
        from hjcontrol.solvers.progress import followed

        return followed(name, self.meter)

    def working(self, text: str, seconds: float = 0.0) -> AbstractContextManager[Any]:
        """A live line with its seconds while work of one piece goes on; elsewhere one plain line if it
        is expected to take more than a few `seconds`."""
        from hjcontrol._ground.progress import shown

        return shown(text, self.meter, expected=seconds)

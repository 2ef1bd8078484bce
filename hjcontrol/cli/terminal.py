"""What a person sees while a command runs. The only file that knows rich.

On a terminal a live line a solver; elsewhere plain lines, seconds apart. Everything goes to
standard output, so that standard error holds errors alone. A reader who leaves (`| head`)
does not stop the work: the files are the product, the lines are commentary.
"""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

PLAIN_SECONDS = 5.0  # between two lines of progress where there is no terminal
Progress = Callable[[int, float, float, float], None]


class _PatientConsole(Console):
    """A console that falls silent when nobody reads it any more."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Screen:
    """Lines, tables and progress on a console."""

    def __init__(self, console: Console | None = None):
        if console is None:
            wide = None if sys.stdout.isatty() else 120
            console = _PatientConsole(width=wide, highlight=False)
        self.console = console

    def line(self, text: str, style: str = "") -> None:
        """One line, never wrapped nor read as markup: paths stay whole."""
        self.console.print(Text(text, style=style), soft_wrap=True)

    def verdict(self, lines: Sequence[str]) -> None:
        """A line that stands out, and what belongs to it."""
        for i, line in enumerate(lines):
            self.line(line if i else f"\n{line}", style="" if i else "bold")

    def table(self, title: str, rows: Sequence[Mapping[str, Any]], words: bool = False) -> None:
        """Rows of equal keys; after the first, columns are numbers unless `words`."""
        if not rows:
            return
        table = Table(title=Text(title, style="bold"), title_justify="left", box=None)
        for i, name in enumerate(rows[0]):
            side = "right" if i and not words else "left"
            table.add_column(Text(name), justify=side, overflow="fold")
        for row in rows:
            table.add_row(*(Text(str(cell)) for cell in row.values()))
        self.console.print(table)

    @contextlib.contextmanager
    def progress(self, name: str) -> Iterator[Progress]:
        """A callback for `hj.solve(..., progress=)`."""
        meter = _Meter(name)
        if self.console.is_terminal and not self.console.quiet:
            with Live(meter, console=self.console, refresh_per_second=8):
                yield meter.update
                meter.done = True
        else:
            self.line(str(meter))
            yield self._plain(meter)
            if meter.steps is not None and meter.shown != str(meter):
                self.line(str(meter))

    @contextlib.contextmanager
    def working(self, text: str, seconds: float = 0.0) -> Iterator[None]:
        """A live line with its seconds while work of one piece goes on; elsewhere one plain line if it
        is expected to take more than a few `seconds`."""
        if self.console.is_terminal and not self.console.quiet:
            with Live(_Waiting(text), console=self.console, refresh_per_second=4, transient=True):
                yield
        else:
            if seconds > PLAIN_SECONDS:
                self.line(f"{text}, about {seconds:.0f} s")
            yield

    def _plain(self, meter: "_Meter") -> Progress:
        last = time.monotonic()

        def update(*figures: Any) -> None:
            nonlocal last
            meter.update(*figures)
            if time.monotonic() - last >= PLAIN_SECONDS:
                last, meter.shown = time.monotonic(), str(meter)
                self.line(meter.shown)

        return update


class _Waiting:
    """A line whose seconds run."""

    def __init__(self, text: str):
        self.text, self.began = text, time.monotonic()

    def __rich__(self) -> Text:
        waited = time.monotonic() - self.began
        return Text(f"{self.text} {waited:.0f} s", style="cyan", no_wrap=True, overflow="ellipsis")


class _Meter:
    """One solver's line: step, objective, stationarity, seconds."""

    def __init__(self, name: str):
        self.name, self.began, self.done = name, time.monotonic(), False
        self.steps: int | None = None
        self.shown = ""
        self.figures = (float("nan"), float("nan"), 0.0)

    def update(self, steps: int, objective: float, stationarity: float, seconds: float) -> None:
        self.steps, self.figures = steps, (objective, stationarity, seconds)

    def __str__(self) -> str:
        name = f"{self.name:<16}"
        if self.steps is None:
            return f"{name} compiling"
        objective, stationarity, seconds = self.figures
        return (
            f"{name} step {self.steps:>5}   J = {objective:<14.9g} max|dH/dtheta| = "
            f"{stationarity:.2e}   {seconds:.1f} s"
        )

    def __rich__(self) -> Text:
        waited = time.monotonic() - self.began
        text = str(self) if self.steps is not None else f"{self} {waited:.0f} s"
        return Text(text, style="" if self.done else "cyan", no_wrap=True, overflow="ellipsis")

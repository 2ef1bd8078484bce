"""How far long work has come: a live line on a terminal, plain lines some seconds apart elsewhere.

    with shown("newton") as say: say("step 7")
    with reported(progress, "verify"): ...                 far below: tell("measuring 12 places")

The live line is rich's, met here only when there is a terminal to draw on. Plain lines end with a line
feed, so that a log holds whole lines. A reader who has left does not stop the work.
"""

import contextlib
import contextvars
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

PLAIN_SECONDS = 5.0  # between two lines of progress where there is no terminal

_LISTENER: contextvars.ContextVar[Callable[[str], None] | None] = contextvars.ContextVar(
    "listener", default=None
)


@contextlib.contextmanager
def reported(progress: bool | Callable[[str], None] | None, text: str) -> Iterator[None]:
    """While this lasts, what `tell` says is shown (`True`) or handed to the function `progress`."""
    with contextlib.ExitStack() as stack:
        say = progress if callable(progress) else None
        if progress is True:
            line = stack.enter_context(shown(text))
            say = lambda words: line(f"{text}: {words}")
        token = _LISTENER.set(say)
        try:
            yield
        finally:
            _LISTENER.reset(token)


def tell(words: str) -> None:
    """Hand words on what is done now to the listener of `reported`, if there is one."""
    say = _LISTENER.get()
    if say is not None:
        say(words)


@contextlib.contextmanager
def shown(
    text: str, console: Any = None, *, expected: float | None = None
) -> Iterator[Callable[[str], None]]:
    """A function that shows its argument in the place of `text`; the last text stays.

    - `console`: a rich console to write on; without it, standard error.
    - `expected`: seconds that a work of one piece may take. Its line is not kept once it is done, and
      without a terminal it is written only if the work is expected to be long.
    """
    console = _terminal() if console is None else console
    if console is not None and console.is_terminal and not console.quiet:
        from rich.live import Live

        line = _Line(text)
        with Live(line, console=console, refresh_per_second=8, transient=expected is not None):
            yield line.say
            line.done = True
        return
    write = _write if console is None else partial(_printed, console)
    if expected is None or expected > PLAIN_SECONDS:
        write(text if expected is None else f"{text}, about {expected:.0f} s")
    said = written = text
    last = time.monotonic()

    def say(words: str) -> None:
        nonlocal said, written, last
        said = words
        if time.monotonic() - last >= PLAIN_SECONDS:
            last, written = time.monotonic(), words
            write(words)

    yield say
    if said != written:
        write(said)


def _terminal() -> Any:
    """A console on standard error if that is a terminal, and rich is there to draw on it."""
    if not sys.stderr.isatty():
        return None
    try:
        from rich.console import Console
    except ImportError:
        return None
    return Console(stderr=True, highlight=False)


def _printed(console: Any, words: str) -> None:
    from rich.text import Text

    console.print(Text(words), soft_wrap=True)  # as Text: brackets in a name are no markup


def _write(words: str) -> None:
    with contextlib.suppress(OSError, ValueError):
        print(words, file=sys.stderr, flush=True)


class _Line:
    """One line that changes; until it does, the seconds that it has stood."""

    def __init__(self, text: str):
        self.text, self.began, self.first, self.done = text, time.monotonic(), True, False

    def say(self, text: str) -> None:
        self.text, self.first = text, False

    def __rich__(self) -> Any:
        from rich.text import Text

        waited = f" {time.monotonic() - self.began:.0f} s" if self.first else ""
        style = "" if self.done else "cyan"
        return Text(f"{self.text}{waited}", style=style, no_wrap=True, overflow="ellipsis")

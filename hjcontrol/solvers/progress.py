"""How far a solve has come, in one line: step, objective, stationarity, seconds."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from hjcontrol._ground.progress import shown

Progress = Callable[[int, float, float, float], None]  # step, objective, stationarity, seconds


@contextlib.contextmanager
def followed(name: str, console: Any = None) -> Iterator[Progress]:
    """A `progress` for `solve` that shows the figures of the solver `name` on a rich console, or on
    standard error."""
    label = f"{name:<16}"
    with shown(f"{label} compiling", console) as say:

        def progress(step: int, objective: float, stationarity: float, seconds: float) -> None:
            say(
                f"{label} step {step:>5}   J = {objective:<14.9g} max|dH/dtheta| = "
                f"{stationarity:.2e}   {seconds:.1f} s"
            )

        yield progress

"""What ends a command early: one line for the person, one code for the shell.

A problem that does not fit into this machine's memory is refused before it is drawn. An operating system
grants memory that it has not got, and ends the process once it is used: no message would be read then.
"""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

USAGE = 2
COPIES = 3  # of the weights, at the least: themselves, a gradient, a step


class CommandError(Exception):
    """A command cannot go on. The message says what was asked, what was found, what to do."""

    def __init__(self, message: str, code: int = USAGE):
        super().__init__(message)
        self.code = code


def told_error(error: BaseException) -> str:
    """An error of the user's code: its type, the line that raised it, its message."""
    from hjcontrol.verification.naming import raised_at

    return f"{type(error).__name__}{raised_at(error)}: {error}"


@contextlib.contextmanager
def refusals(where: str) -> Iterator[None]:
    """What the library refuses, and what the user's code raises, as one line that begins with `where`."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise CommandError(f"{where}: {error}") from None
    except SystemExit as error:  # else the user's code would choose the command's exit code
        raise CommandError(f"{where}: SystemExit: {error}") from None


def check_memory(problem: Any) -> None:
    """Refuse a problem whose weights and states are larger than this machine's memory.

    **Raises:** `CommandError` with both figures.
    """
    import jax

    from hjcontrol._ground.shapes import of_drawn

    has = _memory()
    weights = of_drawn(problem.init)
    states = jax.eval_shape(problem.rollout, weights)
    size = lambda tree: sum(a.size * a.dtype.itemsize for a in jax.tree.leaves(tree))
    needs = COPIES * size(weights) + size(states)
    if has is not None and needs > has:
        raise CommandError(
            f"not enough memory: the weights and the states take {needs / 2**30:.3g} GiB, and this "
            f"machine has {has / 2**30:.3g}. Reduce the width, the depth or the samples."
        )


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # a system that does not say
        return None

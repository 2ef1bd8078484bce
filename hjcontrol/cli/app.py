"""The application: its commands, and what becomes of their errors.

Exit codes: 0 done (and verified), 1 refuted, 2 bad usage or input or a file that cannot be written,
3 nothing is refuted and not everything was tested, 70 a fault of the program itself, 130 Ctrl-C or a
polite end (SIGTERM, SIGHUP). An error is one line on standard error; 1 is never anything but a
refutation. `HJCONTROL_TRACEBACK=1` shows where an error came from.
"""

import gc
import os
import shlex
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from hjcontrol._ground.interruptions import interrupted_once
from hjcontrol.cli.certify import CERTIFY
from hjcontrol.cli.claims import CLAIMS
from hjcontrol.cli.command import INTERRUPTED, as_function, command_line
from hjcontrol.cli.crosscheck import CROSSCHECK
from hjcontrol.cli.doctor import DOCTOR
from hjcontrol.cli.errors import USAGE, CommandError
from hjcontrol.cli.explore import EXPLORE
from hjcontrol.cli.fit_convex import FIT_CONVEX
from hjcontrol.cli.list import ARCHITECTURES, LAYERS, LIST
from hjcontrol.cli.pde import PDE
from hjcontrol.cli.solve import SOLVE
from hjcontrol.cli.verify import VERIFY

FAULT = 70
NO_MEMORY = "not enough memory. Reduce the width, the depth or the samples."
ALL = (
    CROSSCHECK, SOLVE, VERIFY, FIT_CONVEX, CERTIFY, PDE, EXPLORE, CLAIMS, LIST, LAYERS, ARCHITECTURES,
    DOCTOR,
)  # fmt: skip
COMMANDS = {command.name: command for command in ALL}

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")
for _command in COMMANDS.values():
    app.command(_command.name)(as_function(_command))


def _print_version(asked: bool) -> bool:
    if asked:
        from hjcontrol import __version__

        print(f"hjcontrol {__version__}")
        raise typer.Exit
    return asked


@app.callback()
def _top(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and stop."
        ),
    ] = False,
) -> None:
    """Training as optimal control, checked two ways."""
    del version  # its callback has answered


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (default: the process's own) and return the exit code."""
    own = argv is None  # the process serves this command alone
    if own:  # tracing makes millions of objects, few of them cycles, and a search takes a tenth
        gc.set_threshold(1_000_000)
    argv = list(sys.argv[1:] if argv is None else argv)
    command = next((a for a in argv if a in COMMANDS), None)
    who = "hjcontrol" if command is None else f"hjcontrol {command}"
    if hasattr(sys.stdout, "reconfigure"):  # a class name that the terminal cannot show is no error
        sys.stdout.reconfigure(errors="replace")
        sys.stderr.reconfigure(errors="replace")
    with interrupted_once():
        code = _guarded(argv, who)
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the last flush
    if own:
        gc.freeze()  # or the interpreter looks through all of them once more as it ends
    return code


def _guarded(argv: list[str], who: str) -> int:
    try:
        command_line.set(shlex.join(["hjcontrol", *argv]))
        code = app(argv or ["--help"], prog_name="hjcontrol", standalone_mode=False)
        if code == INTERRUPTED:  # typer has turned a Ctrl-C of ours into an exit without words
            raise KeyboardInterrupt
        return code if isinstance(code, int) else 0
    except (KeyboardInterrupt, typer.Abort):
        return _fail(who, "interrupted; nothing was finished, nothing is written.", INTERRUPTED)
    except CommandError as error:
        return _fail(who, str(error), error.code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _fail(who, f"{where}{error.strerror or error}.", USAGE)
    except MemoryError:
        return _fail(who, NO_MEMORY, USAGE)
    except Exception as error:
        if os.environ.get("HJCONTROL_TRACEBACK"):
            raise
        if "RESOURCE_EXHAUSTED" in str(error):  # XLA's word for memory that the device has not got
            return _fail(who, NO_MEMORY, USAGE)
        # Usage errors of typer, whose class has moved between its versions.
        if hasattr(error, "format_message") and hasattr(error, "exit_code"):
            return _fail(who, f"{error.format_message()} See `{who} --help`.", USAGE)
        return _fail(
            who,
            f"a fault of the program ({type(error).__name__}: {error}). "
            "HJCONTROL_TRACEBACK=1 shows where.",
            FAULT,
        )


def _fail(who: str, message: str, code: int) -> int:
    print(f"{who}: {' '.join(message.split())}", file=sys.stderr)
    return code

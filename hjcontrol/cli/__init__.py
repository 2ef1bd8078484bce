"""The command line: one file a command. Importing it imports nothing heavy: `--help` is quick."""

from hjcontrol._ground.third_party import needs

needs("The command line", "typer", "rich")
from hjcontrol.cli.app import main  # noqa: E402  (without typer it cannot be imported)

__all__ = ["main"]

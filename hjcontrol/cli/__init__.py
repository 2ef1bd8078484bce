"""The command line: one file a command. Importing it imports nothing heavy: `--help` is quick."""

from hjcontrol.cli.app import main

__all__ = ["main"]

"""The command line as it was given, for the record in reports."""

from contextvars import ContextVar

command_line: ContextVar[str] = ContextVar("command_line", default="hjcontrol")

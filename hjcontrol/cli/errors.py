"""What ends a command early: one line for the person, one code for the shell."""

USAGE = 2


class CommandError(Exception):
    """A command cannot go on. The message says what was asked, what was found, what to do."""

    def __init__(self, message: str, code: int = USAGE):
        super().__init__(message)
        self.code = code

"""Files: read only if they are files, and of a size that was meant; written whole or not at all.

    with open_regular(path) as file: ...        write_atomically(path, content)

A FIFO, a device or a folder is refused before a byte of it is read, so nothing waits for a writer that
never comes. What is written appears beside its place under a random name, opened for us alone, is synced,
then renamed: whatever interrupts the writing (a full disk, Ctrl-C), an earlier file of that name is
untouched and no temporary file stays behind. Any number of threads and processes may write one name; the
last to finish is read.
"""

import errno
import os
import secrets
import stat
from pathlib import Path
from typing import BinaryIO

LIMIT = 2**31  # bytes read of one file, or of one array in it
VARIABLE = "HJCONTROL_MAX_BYTES"  # in the environment: another limit


def size_limit() -> int:
    """The most bytes that are read at a time.

    **Raises:** `ValueError` if the environment's variable is no whole number.
    """
    text = os.environ.get(VARIABLE, str(LIMIT))
    if not text.isdecimal():
        raise ValueError(f"{VARIABLE} must be a number of bytes; found {text!r}.")
    return int(text)


def open_regular(path: str | Path) -> BinaryIO:
    """Open a file for reading.

    **Raises:** `OSError` for what is no regular file, or larger than `size_limit()`.
    """
    # Without O_NONBLOCK the open itself would wait for a FIFO's writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | getattr(os, "O_CLOEXEC", 0))
    try:
        found = os.fstat(descriptor)
        if stat.S_ISDIR(found.st_mode):
            raise OSError(errno.EISDIR, "this is a directory; a file is needed", str(path))
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "this is no regular file; it is not read", str(path))
        check_size(found.st_size, path)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def check_size(size: int, what: object) -> None:
    """Refuse more bytes than `size_limit()`.

    **Raises:** `OSError`.
    """
    limit = size_limit()
    if size > limit:
        raise OSError(
            errno.EFBIG,
            f"{size} bytes, over the limit of {limit}; {VARIABLE} sets another",
            str(what),
        )


def read_regular(path: str | Path) -> bytes:
    """The content of a file.

    **Raises:** as `open_regular`.
    """
    with open_regular(path) as file:
        return file.read()


def write_atomically(path: str | Path, content: str | bytes) -> Path:
    """Write `content` (text as UTF-8; what is no text of any encoding as `?`) to `path`.

    **Raises:** `OSError`, after removing the temporary file.
    """
    path = Path(path)
    data = content.encode("utf-8", "replace") if isinstance(content, str) else content
    # Exclusively and through no link: a name that somebody put there beforehand is never written to.
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
    temporary = path.parent / f".hjcontrol-{secrets.token_hex(16)}.tmp"
    descriptor = os.open(temporary, flags, 0o666)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return path

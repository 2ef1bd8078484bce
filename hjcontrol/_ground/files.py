"""Files appear whole or not at all: written beside their place, synced, then renamed.

Whatever interrupts the writing (a full disk, Ctrl-C), an earlier file of that name is untouched and
no temporary file stays behind.
"""

import os
from pathlib import Path


def write_atomically(path: str | Path, content: str | bytes) -> Path:
    """Write `content` (text as UTF-8) to `path`.

    **Raises:** `OSError`, after removing the temporary file.
    """
    path = Path(path)
    data = content.encode("utf-8") if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return path

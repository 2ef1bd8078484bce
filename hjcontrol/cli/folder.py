"""The folder of a command: checked before the work, filled after it, never with half a file."""

import contextlib
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hjcontrol._ground.files import write_atomically
from hjcontrol.cli.errors import CommandError


@contextlib.contextmanager
def output_folder(path: Path) -> Iterator[Path]:
    """Make the folder, prove that it can be written, and take it away again if it stays empty.

    **Raises:** `CommandError` before anything is computed.
    """
    made = [p for p in (path, *path.parents) if not p.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
        write_atomically(path / ".writable", b"").unlink()
    except OSError as error:
        _remove_empty(made)
        raise CommandError(
            f"--out {path}: cannot write there ({error.strerror}). Choose another folder."
        ) from None
    try:
        yield path
    finally:
        _remove_empty(made)


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:  # it holds something, so it stays
            return


def save(path: Path, write: Callable[[Path], Any]) -> Path:
    """Call `write(path)`.

    **Raises:** `CommandError` if the file cannot be written.
    """
    try:
        write(path)
    except OSError as error:
        raise CommandError(
            f"{path} cannot be written ({error.strerror}); no part of it was kept. Make room, or "
            "choose another --out."
        ) from None
    return path


def save_page(path: Path, write: Callable[[Path], Any], screen: Any) -> Path:
    """Call `write(path)` for a page that shows what is written already: if it cannot be made, a line says
    why, and nothing else is lost.

    **Raises:** `CommandError` if the file cannot be written.
    """
    try:
        return save(path, write)
    except CommandError:
        raise
    except Exception as error:
        screen.line(
            f"{path} could not be made ({type(error).__name__}: {error}); the results are written."
        )
        return path


def save_json(path: Path, content: Any) -> Path:
    """Write strict JSON: a number that is not finite becomes null."""
    text = json.dumps(plain(content), indent=2, allow_nan=False, ensure_ascii=False)
    return save(path, lambda p: write_atomically(p, text + "\n"))


def plain(value: Any) -> Any:
    """The same value in JSON's own types."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if hasattr(value, "tolist"):  # a NumPy or JAX array or scalar
        return plain(value.tolist())
    number = float(value)
    return number if math.isfinite(number) else None

"""Settings of `crosscheck`: from the command line, from a TOML file, or by default, in this order.

Every value is checked here, whichever way it came, before anything heavy is imported.
"""

import dataclasses
import difflib
import math
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hjcontrol._ground.files import read_regular
from hjcontrol.cli.errors import CommandError
from hjcontrol.solvers.names import NAMES

SOLVERS = NAMES
SMALLEST = 1e-100
ALL = "all"  # every solver that is applicable; those that are not are named, with the reason


@dataclasses.dataclass(frozen=True)
class Settings:
    """What `crosscheck` is to do."""

    data: str = "digits"
    target: str | None = None
    width: int = 16
    depth: int = 8
    step: float = 0.25
    ridge: float = 1e-3
    seed: int = 0
    train_size: float | int = 0.8
    solver: tuple[str, ...] = ("gradient", "newton", "direct")
    direct_samples: int = 24
    out: Path = Path("crosscheck")


def settings(given: Mapping[str, Any], config: str | None = None) -> Settings:
    """Settings from the options `given` (`None` where absent) over those of the file `config`.

    **Raises:** `CommandError` naming the option, what it takes and what came.
    """
    values: dict[str, Any] = {}
    if config is not None:
        for key, value in _read(config).items():
            values[key] = _CHECKS[key](f"{config}: {option(key)}", value)
    for key, value in given.items():
        if value is not None and value != []:
            values[key] = _CHECKS[key](f"--{option(key)}", value)
    return Settings(**values)


def option(key: str) -> str:
    """How a setting is spelt on the command line, without its dashes."""
    return key.replace("_", "-")


def _read(config: str) -> dict[str, Any]:
    table = read_toml("--config ", config)
    values = {}
    for name, value in table.items():
        key = name.replace("-", "_")
        if key not in _CHECKS:
            known = [option(k) for k in _CHECKS]
            raise CommandError(
                f"--config {config}: unknown key {name!r}; the keys are {', '.join(known)}."
                f"{misspelt(option(key), known)}"
            )
        if key in values:
            raise CommandError(f"--config {config}: {option(key)!r} is given twice.")
        values[key] = value
    return values


def read_toml(option: str, path: str) -> dict[str, Any]:
    """The table that a TOML file is; `option` is what error messages put before its name.

    **Raises:** `CommandError` for a file that cannot be read or is no TOML.
    """
    try:
        return tomllib.loads(read_regular(path).decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CommandError(f"{option}{path}: not valid TOML: {error}.") from None
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        reason = getattr(error, "strerror", None) or error
        raise CommandError(f"{option}{path}: cannot be read ({reason}).") from None
    except RecursionError:
        raise CommandError(f"{option}{path}: not valid TOML: it is nested too deeply.") from None


def _number(value: Any) -> float | int | None:
    """A number, or the number that a string spells; an integer stays one."""
    if isinstance(value, bool):
        return None
    if isinstance(value, (int, float)):
        return value
    for kind in (int, float):
        try:
            return kind(value)
        except (TypeError, ValueError):
            continue
    return None


def magnitude(name: str, text: str, *, above: bool) -> float:
    """A number > 0 (`above`) or >= 0, whose square stays within the floats' range.

    **Raises:** `CommandError`.
    """
    number = _number(text)
    value = math.nan if number is None else float(number)
    if not (math.isfinite(value) and (value > 0 if above else value >= 0)):
        sign = ">" if above else ">="
        raise CommandError(f"{name}: a finite number {sign} 0 is needed; found {text}.")
    if value and not SMALLEST <= value <= 1 / SMALLEST:
        raise CommandError(
            f"{name}: {text} is out of range; {SMALLEST:g} to {1 / SMALLEST:g} can be computed with."
        )
    return value


def misspelt(name: Any, known: Any) -> str:
    """` Did you mean ...?`, or nothing."""
    close = difflib.get_close_matches(str(name), list(known), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def whole(least: int, most: int = 2**31 - 1) -> Callable[[str, Any], int]:
    """A check of a whole number."""

    def check(name: str, value: Any) -> int:
        number = _number(value)
        if not isinstance(number, int) or not least <= number <= most:
            above = isinstance(number, int) and number > most
            bound = f"<= {most}" if above else f">= {least}"
            raise CommandError(f"{name}: a whole number {bound} is needed; found {value}.")
        return number

    return check


def real(accept: Callable[[float], bool], words: str) -> Callable[[str, Any], float]:
    """A check of a finite number that `accept` accepts."""

    def check(name: str, value: Any) -> float:
        number = _number(value)
        if number is None or not math.isfinite(number) or not accept(number):
            raise CommandError(f"{name}: {words} is needed; found {value}.")
        return float(number)

    return check


def train_size(name: str, value: Any) -> float | int:
    """A fraction, or a number of samples."""
    text = str(value).strip()
    number = _number(f"{text[:-1].strip()}e-2" if text.endswith("%") else value)
    if isinstance(number, int) and number >= 1:
        return number
    if isinstance(number, float) and 0 < number < 1:
        return number
    raise CommandError(
        f"{name}: a fraction between 0 and 1, a percentage or a number of samples is needed; "
        f"found {value}."
    )


def _solvers(name: str, value: Any) -> tuple[str, ...]:
    names = [value] if isinstance(value, str) else list(value) if _is_list(value) else [value]
    for solver in names:
        if solver not in (*SOLVERS, ALL):
            raise CommandError(
                f"{name}: unknown solver {solver!r}; the solvers are {', '.join((*SOLVERS, ALL))}."
                f"{misspelt(solver, (*SOLVERS, ALL))}"
            )
    if not names:
        raise CommandError(f"{name}: at least one solver is needed; found none.")
    return (ALL,) if ALL in names else tuple(dict.fromkeys(names))


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple))


def string(name: str, value: Any) -> str:
    """A text that is not empty."""
    if not isinstance(value, str) or not value:
        raise CommandError(f"{name}: a name is needed; found {value!r}.")
    return value


def path(name: str, value: Any) -> Path:
    """The name of a file or folder."""
    text = string(name, value)
    if "\0" in text:
        raise CommandError(f"{name}: not a path; found {text!r}.")
    return Path(text)


_CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "data": string,
    "target": string,
    "width": whole(1),
    "depth": whole(1, 10**5),
    "step": real(lambda x: x > 0, "a number > 0"),
    "ridge": real(lambda x: x >= 0, "a number >= 0"),
    "seed": whole(0),
    "train_size": train_size,
    "solver": _solvers,
    "direct_samples": whole(2),
    "out": path,
}

"""What a command may be told, by options and TOML keys alike: fields with a default and a check.

    @dataclass(frozen=True)
    class Asked:
        width: int = option(16, whole(1), "width of the state", "N")

The command line is read over the keys of a TOML file, and the file over the defaults. A check takes the
name under which a value came, and the value; it returns what the command works with, or raises
`CommandError`. All of them run before anything heavy is imported.
"""

import dataclasses
import difflib
import math
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from hjcontrol._ground.files import read_regular
from hjcontrol.cli.errors import CommandError

SMALLEST = 1e-100
DATA = (
    "digits, wine, breast_cancer, iris, FILE.csv or FILE.npz"  # help of options that commands share
)
TARGET = "target column of FILE.csv, default the last"
ENCODE = "columns of text and empty cells of FILE.csv: one-hot, and medians"
TRAIN_SIZE = "training part: a fraction or a number of samples"
Check = Callable[[str, Any], Any]
T = TypeVar("T")


class Option(NamedTuple):
    """How a field is asked for. `kind`: "one", "many", "flag", or "argument", "arguments" without a name.

    `shown` is the default in words; `line` and `file` say where the field may be given.
    """

    check: Check
    help: str
    metavar: str | None = None
    shown: str | bool | None = None
    kind: str = "one"
    line: bool = True
    file: bool = True


def option(default: Any, check: Check, help: str, metavar: str | None = None, **how: Any) -> Any:
    """A field of a schema. The default `dataclasses.MISSING` makes it required; `dict` is an empty
    table."""
    told = {"option": Option(check, help, metavar, **how)}
    if default is dict:
        return dataclasses.field(default_factory=dict, metadata=told)
    return dataclasses.field(default=default, metadata=told)


def flag(help: str) -> Any:
    """A switch that is off until it is named."""
    return option(False, as_given, help, kind="flag", file=False)


def folder(name: str, **how: Any) -> Any:
    """The folder that a command writes to."""
    return option(Path(name), path, "folder to write to", "DIR", shown=f"./{name}", **how)


def options_of(schema: type) -> dict[str, Option]:
    """The options of a schema by the names of its fields."""
    return {f.name: f.metadata["option"] for f in dataclasses.fields(schema)}


def spelt(name: str) -> str:
    """How a field is spelt on the command line and in a file, without its dashes."""
    return name.replace("_", "-")


def read(schema: type[T], given: Mapping[str, Any], file: tuple[str, str] | None = None) -> T:
    """The schema's object from what was `given` on the command line (`None` where absent) and in a file.

    - `file`: how the file was asked for ("--config ", or nothing), and its path.

    **Raises:** `CommandError` naming the option or key, what it takes and what came.
    """
    options = options_of(schema)
    values = {} if file is None else _keys(options, *file)
    for name, value in given.items():
        if value is not None and value != [] and value is not False:
            said = options[name]
            unnamed = said.kind in ("argument", "arguments")
            values[name] = said.check(said.metavar if unnamed else f"--{spelt(name)}", value)
    return schema(**values)


def _keys(options: Mapping[str, Option], asked: str, file: str) -> dict[str, Any]:
    known = [spelt(name) for name, said in options.items() if said.file]
    values = {}
    for key, value in read_toml(asked, file).items():
        name = key.replace("-", "_")
        if spelt(key.replace("_", "-")) not in known:
            raise CommandError(
                f"{asked}{file}: unknown key {key!r}; the keys are {', '.join(known)}."
                f"{misspelt(spelt(key), known)}"
            )
        if name in values:
            raise CommandError(f"{asked}{file}: {spelt(name)!r} is given twice.")
        values[name] = options[name].check(f"{file}: {spelt(name)}", value)
    return values


def read_toml(asked: str, file: str) -> dict[str, Any]:
    """The table that a TOML file is; `asked` is what error messages put before its name.

    **Raises:** `CommandError` for a file that cannot be read or is no TOML.
    """
    try:
        return tomllib.loads(read_regular(file).decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CommandError(f"{asked}{file}: not valid TOML: {error}.") from None
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        reason = getattr(error, "strerror", None) or error
        raise CommandError(f"{asked}{file}: cannot be read ({reason}).") from None
    except RecursionError:
        raise CommandError(f"{asked}{file}: not valid TOML: it is nested too deeply.") from None


def misspelt(name: Any, known: Iterable[str]) -> str:
    """` Did you mean ...?`, or an empty string if no known name is near."""
    close = difflib.get_close_matches(str(name), list(known), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


# ---------------------------------------------------------------------------------------- checks


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


def whole(least: int, most: int = 2**31 - 1) -> Check:
    """A check of a whole number."""

    def check(name: str, value: Any) -> int:
        number = _number(value)
        if not isinstance(number, int) or not least <= number <= most:
            above = isinstance(number, int) and number > most
            bound = f"<= {most}" if above else f">= {least}"
            raise CommandError(f"{name}: a whole number {bound} is needed; found {value}.")
        return number

    return check


def real(accept: Callable[[float], bool], words: str) -> Check:
    """A check of a finite number that `accept` accepts."""

    def check(name: str, value: Any) -> float:
        number = _number(value)
        if number is None or not math.isfinite(number) or not accept(number):
            raise CommandError(f"{name}: {words} is needed; found {value}.")
        return float(number)

    return check


positive = real(lambda x: x > 0, "a number > 0")
not_negative = real(lambda x: x >= 0, "a number >= 0")


def magnitude(*, above: bool) -> Check:
    """A check of a number > 0 (`above`) or >= 0, whose square stays within the floats' range."""

    def check(name: str, value: Any) -> float:
        number = _number(value)
        found = math.nan if number is None else float(number)
        if not (math.isfinite(found) and (found > 0 if above else found >= 0)):
            sign = ">" if above else ">="
            raise CommandError(f"{name}: a finite number {sign} 0 is needed; found {value}.")
        if found and not SMALLEST <= found <= 1 / SMALLEST:
            raise CommandError(
                f"{name}: {value} is out of range; {SMALLEST:g} to {1 / SMALLEST:g} can be computed "
                "with."
            )
        return found

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


def one_of(names: Iterable[str], what: str) -> Check:
    """A check of one name out of `names`; `what` they are, in the singular."""
    names = tuple(names)

    def check(name: str, value: Any) -> str:
        if value not in names:
            raise CommandError(
                f"{name}: unknown {what} {value!r}; the {what}s are {', '.join(names)}."
                f"{misspelt(value, names)}"
            )
        return value

    return check


def some_of(names: Iterable[str], what: str) -> Check:
    """A check of one or several names out of `names`; a name that is given twice counts once."""
    one = one_of(names, what)

    def check(name: str, value: Any) -> tuple[str, ...]:
        given = list(value) if isinstance(value, (list, tuple)) else [value]
        if not given:
            raise CommandError(f"{name}: at least one {what} is needed; found none.")
        return tuple(dict.fromkeys(one(name, v) for v in given))

    return check


def as_given(name: str, value: Any) -> Any:
    """The value as it came."""
    del name
    return value


def string(name: str, value: Any) -> str:
    """A text that is not empty."""
    if not isinstance(value, str) or not value:
        raise CommandError(f"{name}: a name is needed; found {value!r}.")
    return value


def strings(name: str, value: Any) -> tuple[str, ...]:
    """Texts as they come: what they name is asked later."""
    given = value if isinstance(value, (list, tuple)) else [value]
    return tuple(dict.fromkeys(string(name, v) for v in given))


def path(name: str, value: Any) -> Path:
    """The name of a file or folder."""
    text = string(name, value)
    if "\0" in text:
        raise CommandError(f"{name}: not a path; found {text!r}.")
    return Path(text)


def table(checks: Mapping[str, Check], open_to: str | None = None) -> Check:
    """A check of a table. Further keys are refused, unless `open_to` is "" or a key of the table: then
    they are read where the library's names are known."""

    def check(name: str, value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise CommandError(
                f"{name}: a table [{name.split(': ')[-1]}] is needed; found {value!r}."
            )
        given = {key.replace("-", "_"): (key, v) for key, v in value.items()}
        left_open = open_to == "" or (open_to is not None and open_to in given)
        known = [spelt(k) for k in checks]
        found = {}
        for key, (as_given, v) in given.items():
            if key in checks:
                found[key] = checks[key](f"{name}.{as_given}", v)
            elif left_open:
                found[key] = v
            else:
                raise CommandError(
                    f"{name}: unknown key {as_given!r}; the keys are {', '.join(known)}."
                    f"{misspelt(as_given, known)}"
                )
        return found

    return check

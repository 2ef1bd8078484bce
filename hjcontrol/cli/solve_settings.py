"""What PROBLEM.toml of `hjcontrol solve` may say. Read and checked before anything heavy is imported.

    data = "digits"                 # or wine, breast_cancer, iris, FILE.csv, FILE.npz
    solver = "newton"
    [network]                       # width, depth, step, activation; or `architecture` with its options
    [costs]                         # ridge, terminal; further running costs by name
    [control-set]                   # kind = "box", and its numbers
    [options.newton]                # of a solver, under its name

Names of costs, control sets, architectures and options are the library's own; they are resolved where the
problem is stated (`stated_problem.py`).
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hjcontrol.cli.errors import CommandError
from hjcontrol.cli.settings import misspelt, path, read_toml, real, string, train_size, whole
from hjcontrol.solvers.names import NAMES

ACTIVATIONS = ("tanh", "sigmoid", "softplus", "relu", "gelu", "silu", "sin")
TERMINALS = ("softmax-cross-entropy", "least-squares")


@dataclasses.dataclass(frozen=True)
class Asked:
    """What `solve` is to do. Tables whose keys the library knows stay tables."""

    source: str
    data: str = "digits"
    target: str | None = None
    samples: int | None = None
    train_size: float | int = 0.8
    seed: int = 0
    solver: str = "newton"
    max_steps: int | None = None
    network: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    costs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    control_set: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    checkpoint: Path | None = None
    every: float = 30.0
    resume: bool = False
    out: Path = Path("solve")


def read(problem: str, given: Mapping[str, Any]) -> Asked:
    """The file `problem`, with the options `given` (`None` where absent) above it.

    **Raises:** `CommandError` naming the key, what it takes and what came.
    """
    table = read_toml("", problem)
    values = {}
    for name, value in table.items():
        key = name.replace("-", "_")
        if key not in _FILE:
            known = [k.replace("_", "-") for k in _FILE]
            raise CommandError(
                f"{problem}: unknown key {name!r}; the keys are {', '.join(known)}."
                f"{misspelt(name, known)}"
            )
        if key in values:
            raise CommandError(f"{problem}: {name!r} is given twice.")
        values[key] = _FILE[key](f"{problem}: {name}", value)
    for key, value in given.items():
        if value is not None:
            check = _FILE.get(key) or _LINE[key]
            values[key] = check(f"--{key.replace('_', '-')}", value)
    asked = Asked(problem, **values)
    if asked.resume and asked.checkpoint is None:
        raise CommandError("--resume needs --checkpoint DIR, the folder to resume from.")
    for name in asked.options:
        if name not in NAMES:
            raise CommandError(
                f"{problem}: options.{name}: unknown solver; the solvers are {', '.join(NAMES)}."
                f"{misspelt(name, NAMES)}"
            )
    return asked


def one_of(names: tuple[str, ...], what: str) -> Any:
    """A check of one name out of `names`."""

    def check(name: str, value: Any) -> str:
        if value not in names:
            raise CommandError(
                f"{name}: unknown {what} {value!r}; there are {', '.join(names)}."
                f"{misspelt(value, names)}"
            )
        return value

    return check


def _table(checks: Mapping[str, Any], open_to: str | None = None) -> Any:
    """A check of a table; keys beyond `checks` are refused, or left to whoever holds `open_to`."""

    def check(name: str, value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise CommandError(
                f"{name}: a table [{name.split(': ')[-1]}] is needed; found {value!r}."
            )
        given = {key.replace("-", "_"): (key, v) for key, v in value.items()}
        left_open = open_to == "" or (open_to is not None and open_to in given)
        known = [k.replace("_", "-") for k in checks]
        found = {}
        for key, (spelt, v) in given.items():
            if key in checks:
                found[key] = checks[key](f"{name}.{spelt}", v)
            elif left_open:
                found[key] = v
            else:
                raise CommandError(
                    f"{name}: unknown key {spelt!r}; the keys are {', '.join(known)}."
                    f"{misspelt(spelt, known)}"
                )
        return found

    return check


def _flag(name: str, value: Any) -> bool:
    del name
    return bool(value)


def _options(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(v, dict) for v in value.values()):
        raise CommandError(
            f"{name}: one table a solver is needed, as [options.newton]; found {value!r}."
        )
    return value


_NETWORK = {
    "architecture": string,
    "width": whole(1),
    "depth": whole(1, 10**5),
    "step": real(lambda h: h > 0, "a number > 0"),
    "activation": one_of(ACTIVATIONS, "activation"),
}
_COSTS = {
    "terminal": one_of(TERMINALS, "terminal cost"),
    "ridge": real(lambda r: r >= 0, "a number >= 0"),
}
_FILE: dict[str, Any] = {
    "data": string,
    "target": string,
    "samples": whole(2),
    "train_size": train_size,
    "seed": whole(0),
    "solver": one_of((*NAMES, "auto"), "solver"),
    "max_steps": whole(0),
    "network": _table(_NETWORK, open_to="architecture"),
    "costs": _table(_COSTS, open_to=""),
    "control_set": _table({"kind": string}, open_to=""),
    "options": _options,
}
_LINE = {
    "checkpoint": path,
    "every": real(lambda t: t >= 0, "a number of seconds >= 0"),
    "resume": _flag,
    "out": path,
}

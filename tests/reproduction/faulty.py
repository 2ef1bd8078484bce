r"""Does a claim notice when a tool that it calls is wrong?

    tools(claim)                        the public names that its functions call
    constant | opposite | hundredth     every number that the tool gives is 1/2, -v, or 1.01 v
    turned                              the claim's audit with that tool, unsound as it must be

A claim's file is executed anew with the faulty tool in its place, so that nothing compiled is reused; the
library itself keeps the true one. Classes that only carry data are no tools.
"""

import contextlib
import importlib
import inspect
import sys
import warnings
from collections.abc import Callable, Iterator
from types import CodeType, ModuleType
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np

from hjcontrol.reproduction.auditing import Entry
from hjcontrol.reproduction.claim import Claim, Evidence

CLAIMS = "hjcontrol.reproduction.claims"
CARRIERS = {
    "AffineWeights", "Anisotropic", "Bifurcation", "BoxIndicator", "ClassHead", "ControlProblem",
    "Curvature", "InitialData", "LogitHead", "Quadratic", "RecurrentWeights", "StateSpaceWeights",
}  # fmt: skip
FAULTS: dict[str, Callable[[Any], Any]] = {
    "constant": lambda v: 0 * v + 0.5,
    "opposite": lambda v: -v,
    "hundredth": lambda v: 1.01 * v,
}


def tools(claim: Claim) -> tuple[str, ...]:
    """The public functions and layers that the claim calls, as `module:name`: those that functions of its
    file name, and the functions of other claims' files that they call."""
    return tuple(sorted(_named(_home(claim))))


class Trial(NamedTuple):
    """A claim's audit with a faulty tool, and how many of the numbers that it saw were spoilt."""

    entry: Entry
    spoilt: int

    @property
    def turned(self) -> bool:
        """Whether the audit is unsound."""
        return not self.entry.sound


def audit_with_fault(claim: Claim, tool: str, fault: str) -> Trial:
    """The claim's fast audit with one of its `tools` faulty, in a way of `FAULTS`.

    The control runs only where the check alone does not tell. What the claim raises, this raises. A class
    whose weights alone the claim reads, and no method, spoils nothing.

    **Raises:** `ValueError` for a tool that the claim does not call, or an unknown fault.
    """
    if tool not in tools(claim) or fault not in FAULTS:
        raise ValueError(
            f"audit_with_fault: a tool of {', '.join(tools(claim))} and a fault of "
            f"{', '.join(FAULTS)} are needed; found {tool!r}, {fault!r}."
        )
    home = _home(claim).__name__
    quiet = warnings.catch_warnings(action="ignore")
    spoil = _Counted(FAULTS[fault])
    with _replaced(tool, spoil), jax.enable_x64(True), quiet:
        fresh = importlib.import_module(home).CLAIM
        found = fresh.check(True)
        first = Entry(fresh, found, Evidence(()), 0.0)
        if first.faults_of_check:
            return Trial(first, spoil.times)
        return Trial(Entry(fresh, found, fresh.control(True), 0.0), spoil.times)


class _Counted:
    """A fault, and how often it was applied."""

    def __init__(self, fault: Callable[[Any], Any]):
        self.fault, self.times = fault, 0

    def __call__(self, value: Any) -> Any:
        self.times += 1
        return self.fault(value)


def _home(claim: Claim) -> ModuleType:
    return next(
        m
        for k, m in list(sys.modules.items())
        if k.startswith(CLAIMS + ".") and vars(m).get("CLAIM") is claim
    )


def _named(home: ModuleType) -> set[str]:
    """Tools that the claim's functions name, and that the functions of other claims that they name do."""
    found: set[str] = set()
    own = [v for v in vars(home).values() if _written_in(home, v)]
    claim = vars(home)["CLAIM"]
    waiting = [(f, home) for f in (*own, claim.check, claim.control)]
    seen = set()
    while waiting:
        function, file = waiting.pop()
        if id(function) in seen:
            continue
        seen.add(id(function))
        for name in _names(inspect.unwrap(function).__code__):
            value = vars(file).get(name)
            place = None if value is None else _public(name, value, file)
            if place is not None:
                found.add(place)
            home_of = getattr(inspect.unwrap(value), "__module__", None) or ""
            if home_of.startswith(CLAIMS + ".") and _written_in(sys.modules[home_of], value):
                waiting.append((value, sys.modules[home_of]))
    return found


def _written_in(file: ModuleType, value: Any) -> bool:
    value = inspect.unwrap(value) if callable(value) else value
    return inspect.isfunction(value) and value.__module__ == file.__name__


def _names(code: CodeType) -> set[str]:
    """Every name that a function and the functions inside it look up."""
    inner = (c for c in code.co_consts if isinstance(c, CodeType))
    return set(code.co_names).union(*map(_names, inner))


def _public(name: str, value: Any, file: ModuleType) -> str | None:
    """Where the library shows this name: its shortest module that has it; `None` for no tool."""
    home = getattr(value, "__module__", "") or ""
    own = home.startswith("hjcontrol.") and not home.startswith(
        ("hjcontrol._ground", "hjcontrol.data")
    )
    paper = home.startswith("hjcontrol.reproduction") and ".questions" not in home
    if not own or paper or name in CARRIERS or not callable(value) or name.startswith("_"):
        return None
    parts = home.split(".")
    places = [".".join(parts[:n]) for n in range(2, len(parts) + 1)]
    shown = (p for p in places if getattr(importlib.import_module(p), name, None) is value)
    return next((f"{p}:{name}" for p in shown), None)


@contextlib.contextmanager
def _replaced(tool: str, fault: Callable[[Any], Any]) -> Iterator[None]:
    """Claims that are imported meanwhile see the faulty tool; then everything is as before."""
    place, name = tool.split(":")
    true = getattr(importlib.import_module(place), name)
    holders = [m for k, m in list(sys.modules.items()) if k.startswith("hjcontrol.")]
    holders = [m for m in holders if not m.__name__.startswith(CLAIMS)]
    exports = [m for m in holders if vars(m).get(name) is true and hasattr(m, "__path__")]
    exports += [m for m in holders if m.__name__ in (place, true.__module__) and m not in exports]
    kept = {k: sys.modules.pop(k) for k in list(sys.modules) if k.startswith(CLAIMS + ".")}
    wrong = _faulty(true, fault)
    for module in exports:
        setattr(module, name, wrong)
    try:
        yield
    finally:
        for module in exports:
            setattr(module, name, true)
        for k in [k for k in sys.modules if k.startswith(CLAIMS + ".")]:
            del sys.modules[k]
        sys.modules.update(kept)
        package = sys.modules[CLAIMS]
        for k, module in kept.items():
            setattr(package, k.rpartition(".")[2], module)


def _faulty(tool: Any, fault: Callable[[Any], Any]) -> Any:
    if inspect.isclass(tool):
        return _badly(tool, fault)
    return lambda *args, **named: _spoilt(tool(*args, **named), fault)


def _badly(kind: type, fault: Callable[[Any], Any]) -> type:
    """The class with every public method's numbers spoilt."""
    said, within = {}, [0]  # a method that calls another spoils its numbers once
    for base in reversed(kind.__mro__):
        for name, method in vars(base).items():
            public = not name.startswith("_") or name == "__call__"
            if public and inspect.isfunction(method) and base.__module__.startswith("hjcontrol."):
                said[name] = _spoiling(getattr(kind, name), fault, within)
    for name in ("init", "check", "as_record", "at"):
        said.pop(name, None)
    return type(kind)(kind.__name__, (kind,), said | {"__module__": kind.__module__})


def _spoiling(method: Callable, fault: Callable[[Any], Any], within: list[int]) -> Callable:
    def spoilt(self: Any, *args: Any, **named: Any) -> Any:
        within[0] += 1
        try:
            result = method(self, *args, **named)
        finally:
            within[0] -= 1
        return result if within[0] else _spoilt(result, fault)

    return spoilt


def _spoilt(result: Any, fault: Callable[[Any], Any]) -> Any:
    """Every number of a result, and what it goes on to answer."""
    real = lambda v: isinstance(v, (np.ndarray, np.generic, jax.Array)) and v.dtype.kind == "f"
    number = lambda v: fault(v) if isinstance(v, float) or real(v) else v
    if hasattr(result, "solve") and hasattr(result, "constraints"):  # a program of cvxpy
        return _Program(result, fault)
    if isinstance(result, eqx.Module):
        spoilt = jax.tree.map(number, result)
        object.__setattr__(spoilt, "__class__", _badly(type(result), fault))
        return spoilt
    if type(result).__module__.startswith("hjcontrol.") and not jax.tree_util.all_leaves([result]):
        return jax.tree.map(number, result)
    if type(result).__module__.startswith("hjcontrol."):  # arrays in a plain object
        for name, value in vars(result).items():
            if isinstance(value, np.ndarray) and value.dtype.kind == "f":
                setattr(result, name, fault(value))
        return result
    return jax.tree.map(number, result)


class _Program:
    """A cvxpy program whose value is spoilt."""

    def __init__(self, program: Any, fault: Callable[[Any], Any]):
        self._program, self._fault = program, fault

    @property
    def value(self) -> float:
        """The optimal value, spoilt."""
        return self._fault(self._program.value)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._program, name)

"""What a person calls an equation: file and line, function, named scope, and the rule's own name.

The file is the innermost one of the user's; what JAX, a library of layers or this package wrote stands
behind it. Under `jit` a traceback begins at the call, so the line of the enclosing equation is carried
down.
"""

import dataclasses
import functools
import importlib.util
import itertools
import os
import re
import sysconfig
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jax.extend.core import JaxprEqn

LIBRARIES = (
    "jax",
    "jaxlib",
    "equinox",
    "flax",
    "haiku",
    "optax",
    "diffrax",
    "lineax",
    "optimistix",
    "jaxopt",
    "jaxtyping",
    "beartype",
)


_TRANSFORM = re.compile(r"\b(?:vmap|jvp|transpose|rematted_computation)\(([^()]*)\)")
BELOW = ("jax", "jaxlib", "equinox", "jaxtyping", "beartype")  # what stands below any caller


@dataclasses.dataclass(frozen=True)
class Source:
    """`file:line in function [scope]`. `library`: no line of the user's was found."""

    file: str = ""
    line: int = 0
    function: str = ""
    scope: str = ""
    library: bool = True
    inside_jax: bool = False  # a function of JAX's made it: of `stop_gradient`, asked for it
    within: str = ""  # the library whose call it is, if it is not the user's

    def __str__(self) -> str:
        where = f"{os.path.basename(self.file)}:{self.line}" if self.file else "?"
        named = f" in {self.function}" if self.function and self.function != "<module>" else ""
        return where + named + (f" [{self.scope}]" if self.scope else "")


def located(eqn: JaxprEqn, outer: Source) -> Source:
    """Where an equation was written; where no file of the user holds it, the enclosing one's line."""
    scope = "/".join(s for s in (outer.scope, _scope(str(eqn.source_info.name_stack))) if s)
    frames = list(getattr(eqn.source_info.traceback, "frames", ()))
    # Beyond the witness's own frames stands the caller of the verification.
    ends = (i for i, f in enumerate(frames) if _asks(f.file_name))
    frames = [f for f in frames[: next(ends, None)] if not inside(f.file_name, _own())]
    about: dict[str, Any] = {"scope": scope, "inside_jax": _within_jax(frames)}
    caller = next((f for f in frames if not inside(f.file_name, homes(BELOW))), None)
    libraries = (n for n in LIBRARIES if caller and inside(caller.file_name, homes((n,))))
    about["within"] = next(libraries, "") if caller is not None else outer.within
    own = next((f for f in frames if users(f.file_name)), None)
    if own is not None:
        return Source(own.file_name, own.line_num, _short(own), library=False, **about)
    if outer.file and not outer.library:
        return dataclasses.replace(outer, **about)
    if (found := _definition(eqn)) is not None:  # a rule that is called by no line of the user's
        return Source(*found, library=False, **about)
    if caller is None:
        return dataclasses.replace(outer, **about)
    return Source(caller.file_name, caller.line_num, _short(caller), **about)


def _within_jax(frames: Sequence[Any]) -> bool:
    """Whether a function of JAX's called `stop_gradient`, itself, under a map or over a tree."""
    below = lambda f: inside(f.file_name, homes(BELOW[:2]))
    names = [f.function_name for f in itertools.takewhile(below, frames)]
    if "stop_gradient" not in names:
        return bool(names)
    own = len(names) - names[::-1].index("stop_gradient")
    return any(not name.startswith("tree_map") for name in names[own:])


def raised_at(error: BaseException) -> str:
    """` at file:line in function`, the innermost line of the user's that an error came through; "" where
    it came through none."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if users(f.filename)]
    if not frames:
        return ""
    last = frames[-1]
    inside = "" if last.name.startswith("<") else f" in {last.name}"
    return f" at {os.path.basename(last.filename)}:{last.lineno}{inside}"


def _scope(stack: str) -> str:
    """The user's named scopes: `vmap(blocks)/jvp()` is `blocks`."""
    while (bare := _TRANSFORM.sub(r"\1", stack)) != stack:
        stack = bare
    return "/".join(s for s in stack.split("/") if s)


def rule_name(eqn: JaxprEqn) -> str:
    """The rule's own name: its function's, or the primitive's."""
    return _defined(eqn)[0] or eqn.primitive.name


def rule_source(eqn: JaxprEqn) -> str:
    """`file:line` where the rule's function was written; "" if that is not known."""
    return _defined(eqn)[1]


def _defined(eqn: JaxprEqn) -> tuple[str, str]:
    program = eqn.params.get("call_jaxpr", eqn.params.get("callee"))
    about = getattr(getattr(program, "jaxpr", program), "debug_info", None)
    words = getattr(about, "func_src_info", None) or ""
    name, _, where = words.partition(" at ")
    return name, where


def jax_solves(eqn: JaxprEqn) -> bool:
    """Whether JAX's own linear algebra stated a linear solve: its adjoint is not the user's."""
    for frame in getattr(eqn.source_info.traceback, "frames", ()):
        if not inside(frame.file_name, homes(BELOW[:2])):
            return False
        if os.path.basename(frame.file_name) == "linalg.py":
            return True
    return False


def _definition(eqn: JaxprEqn) -> tuple[str, int, str] | None:
    name, where = _defined(eqn)
    file, _, line = where.rpartition(":")
    if not line.isdigit() or not users(file):
        return None
    return file, int(line), name


def _short(frame: Any) -> str:
    return frame.function_name.replace("<locals>.", "").replace("<lambda>", "lambda")


def users(file: str) -> bool:
    """Whether a file is the user's: neither this package's nor an installed one's."""
    return not inside(file, _own()) and not inside(file, _installed())


@functools.cache
def _own() -> tuple[str, ...]:
    return (str(Path(__file__).resolve().parents[1]),)


def _asks(file: str) -> bool:
    """Whether a frame is the witness's; the one that counts calls of rules stands among the user's."""
    return inside(file, _witness()) and os.path.basename(file) != "dissolved.py"


@functools.cache
def _witness() -> tuple[str, ...]:
    return (str(Path(__file__).resolve().parent),)


@functools.cache
def _installed() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    folders = {os.path.realpath(paths[k]) for k in ("stdlib", "platstdlib", "purelib", "platlib")}
    return (*folders, *homes(LIBRARIES))


@functools.cache
def homes(names: tuple[str, ...]) -> tuple[str, ...]:
    """Folders of the packages that are installed."""
    found = []
    for name in names:
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError):
            continue
        if spec is not None and spec.origin:
            found.append(os.path.realpath(os.path.dirname(spec.origin)))
    return tuple(found)


@functools.cache
def inside(file: str, folders: tuple[str, ...]) -> bool:
    """Whether a file lies in one of the folders."""
    real = os.path.realpath(file)
    return file.startswith("<frozen") or any(real.startswith(f + os.sep) for f in folders)

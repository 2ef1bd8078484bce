"""Who wrote a derivative rule: the files of its own functions say so, not the line that calls it.

A rule is handed to JAX in wrappers (partial applications, closures, JAX's records of a function). Those
are opened until functions are found that were written outside of JAX and of the libraries beneath it.
"""

import functools
import os
import types
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import equinox as eqx
from jax.extend.core import JaxprEqn
from jax.interpreters import ad

from hjcontrol.verification.naming import BELOW, LIBRARIES, homes, inside, users

_DEPTH = 8  # wrappers around a function
_RULE = (
    "bwd",
    "fwd_jaxpr_thunk",
    "jvp_jaxpr_fun",
    "transpose",
    "jaxprs",
)  # where equations hold it


class Written(NamedTuple):
    """Where a function was written, and its name."""

    file: str
    line: int
    name: str


def author(*functions: Any) -> Written | None:
    """The outermost function that is not JAX's, nor of a library beneath."""
    found = (where for function in functions for where in _opened(function))
    return next((w for w in found if not inside(w.file, homes(BELOW))), None)


def rule_author(eqn: JaxprEqn) -> Written | None:
    """The author of an equation's rule."""
    return author(*(eqn.params.get(name) for name in _RULE))


def users_rule(eqn: JaxprEqn) -> bool:
    """Whether the equation's rule was written in a file of the user's."""
    if foreign(eqn.primitive):
        return any(users(w.file) for rule in _registered(eqn.primitive) for w in _opened(rule))
    given = (eqn.params.get(name) for name in _RULE)
    outermost = next((w for rule in given for w in _opened(rule)), None)
    if outermost is not None and inside(outermost.file, _solvers()):
        return False  # though it holds the user's functions
    found = rule_author(eqn)
    return found is not None and users(found.file)


@functools.cache
def _solvers() -> tuple[str, ...]:
    """Where JAX keeps solvers with rules of their own."""
    return tuple(os.path.join(home, "experimental") for home in homes(BELOW[:1]))


def foreign(primitive: Any) -> bool:
    """Whether a primitive is neither JAX's nor a known library's, or its derivative is not."""
    return _foreign(*_registered(primitive))


def _registered(primitive: Any) -> tuple[Callable | None, ...]:
    rules = (table.get(primitive) for table in (ad.primitive_jvps, ad.primitive_transposes))
    return (*rules, primitive.impl, primitive.abstract_eval)


@functools.lru_cache(maxsize=4096)
def _foreign(*functions: Callable | None) -> bool:
    known = homes(LIBRARIES)
    return any(not inside(w.file, known) for function in functions for w in _opened(function))


def _opened(thing: Any) -> Iterator[Written]:
    """The functions in a wrapper, the outermost first."""
    seen: set[int] = set()
    level = [thing]
    for _ in range(_DEPTH):
        level = [a for a in level if id(a) not in seen and not seen.add(id(a))]
        yield from filter(None, map(_written, level))
        level = [inner for a in level for inner in _within(a)]


def _written(thing: Any) -> Written | None:
    if isinstance(thing, types.FunctionType):
        code = thing.__code__
        return Written(code.co_filename, code.co_firstlineno, thing.__name__)
    about = getattr(getattr(thing, "jaxpr", thing), "debug_info", None)
    name, _, where = (getattr(about, "func_src_info", None) or "").partition(" at ")
    file, _, line = where.rpartition(":")
    return Written(file, int(line), name.split(".")[-1]) if line.isdigit() else None


def _within(thing: Any) -> Iterator[Any]:
    """What a wrapper holds that may be a function."""
    if isinstance(thing, types.FunctionType):
        for cell in thing.__closure__ or ():
            try:
                yield cell.cell_contents
            except ValueError:  # not filled yet
                continue
    elif isinstance(thing, types.MethodType):
        yield thing.__func__
    elif isinstance(thing, functools.partial):
        yield thing.func
        yield from thing.args
        yield from thing.keywords.values()
    elif isinstance(thing, eqx.filter_custom_vjp):
        yield from (getattr(thing, name, None) for name in ("fn_bwd", "fn_fwd"))
    elif isinstance(thing, (tuple, list)):
        yield from thing
    elif hasattr(thing, "transforms") and hasattr(thing, "f"):  # JAX's record of a function
        yield thing.f
        yield from (part for _, given in thing.transforms for part in given)
    elif hasattr(thing, "__wrapped__"):
        yield thing.__wrapped__

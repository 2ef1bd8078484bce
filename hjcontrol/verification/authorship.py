"""Who wrote a derivative rule: the files of its own functions say so, not the line that calls it.

A rule is handed to JAX in wrappers (partial applications, closures, JAX's records of a function). Those
are opened until functions are found that were written outside of JAX and of the libraries beneath it.
"""

import functools
import types
from collections.abc import Callable, Iterator
from typing import Any

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


def users_rule(eqn: JaxprEqn) -> bool:
    """Whether the equation's rule was written in a file of the user's."""
    if foreign(eqn.primitive):
        return any(users(file) for rule in _registered(eqn.primitive) for file in _files(rule))
    files = (file for name in _RULE for file in _files(eqn.params.get(name)))
    writer = next((file for file in files if not inside(file, homes(BELOW))), "")
    return bool(writer) and users(writer)


def foreign(primitive: Any) -> bool:
    """Whether a primitive is neither JAX's nor a known library's, or its derivative is not."""
    return _foreign(*_registered(primitive))


def _registered(primitive: Any) -> tuple[Callable | None, ...]:
    rules = (table.get(primitive) for table in (ad.primitive_jvps, ad.primitive_transposes))
    return (*rules, primitive.impl, primitive.abstract_eval)


@functools.lru_cache(maxsize=4096)
def _foreign(*functions: Callable | None) -> bool:
    known = homes(LIBRARIES)
    return any(not inside(file, known) for function in functions for file in _files(function))


def _files(thing: Any) -> Iterator[str]:
    """Files of the functions in a wrapper, the outermost first."""
    seen: set[int] = set()
    level = [thing]
    for _ in range(_DEPTH):
        level = [a for a in level if id(a) not in seen and not seen.add(id(a))]
        yield from filter(None, map(_file, level))
        level = [inner for a in level for inner in _within(a)]


def _file(thing: Any) -> str:
    if isinstance(thing, types.FunctionType):
        return thing.__code__.co_filename
    about = getattr(getattr(thing, "jaxpr", thing), "debug_info", None)
    words = getattr(about, "func_src_info", None) or ""
    return words.partition(" at ")[2].rpartition(":")[0]


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
    elif isinstance(thing, (tuple, list)):
        yield from thing
    elif hasattr(thing, "transforms") and hasattr(thing, "f"):  # JAX's record of a function
        yield thing.f
        yield from (part for _, given in thing.transforms for part in given)
    elif hasattr(thing, "__wrapped__"):
        yield thing.__wrapped__

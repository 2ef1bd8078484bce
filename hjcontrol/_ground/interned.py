"""One function for all that are alike, so that what is compiled for the first serves the others.

    lambda z, y: c * loss(z, y)      made anew in a loop or a factory: the first one made with that c

Functions are alike if they have the same code and globals, equal numbers and strings in their defaults
and closures, and otherwise the very same objects there, unchanged. A function that reads a number of its
module, writes to a variable outside, or carries attributes stands for itself.
"""

import dis
import functools
import sys
import types
import weakref
from collections.abc import Callable, Hashable, Iterator
from typing import Any

import jax

from hjcontrol._ground.visible import PLAIN, Same, names_in, packaged, visible

_FIRST: weakref.WeakValueDictionary[Hashable, types.FunctionType] = weakref.WeakValueDictionary()
_DEPTH = 8  # functions within functions, at most
_GLOBAL = {"STORE_GLOBAL", "DELETE_GLOBAL"}
_BINDS = {"STORE_DEREF", "DELETE_DEREF", *_GLOBAL}


class _OwnError(Exception):
    """The function stands for itself."""


def interned(function: Callable[..., Any]) -> Callable[..., Any]:
    """The first function made that is alike, or `function` itself. What is no plain function comes back
    as it is."""
    if not isinstance(function, types.FunctionType) or packaged(function.__module__):
        return function
    try:
        key = _key(function, _DEPTH)
        first = _FIRST.setdefault(key, function)
        if first is function or _key(first, _DEPTH) == key:
            return first
    except Exception:  # closures hold the user's objects: they may raise anything
        return function
    _FIRST[key] = function  # variables of the first were bound anew since
    return function


def all_interned(tree: Any) -> Any:
    """The tree with its functions interned."""
    return jax.tree.map(lambda a: interned(a) if callable(a) else a, tree)


def _key(function: types.FunctionType, depth: int) -> Hashable:
    if depth == 0 or vars(function) or _writes(function.__code__):
        raise _OwnError
    known = function.__globals__
    names = names_in(function.__code__)
    read = [known.get(name, sys.modules.get(name)) for name in names]  # or imported inside
    if any(type(v) in PLAIN and v is not None for v in read):
        raise _OwnError
    cells = [cell.cell_contents for cell in function.__closure__ or ()]
    held = (function.__defaults__, function.__kwdefaults__, *cells, *read)
    return Same(function.__code__), Same(known), tuple(_value(v, depth) for v in held)


def _value(value: Any, depth: int) -> Hashable:
    if type(value) in PLAIN:
        return type(value), repr(value)
    if isinstance(value, jax.Array) or _installed(value):
        return Same(value)
    if isinstance(value, types.ModuleType):  # of the user's: what it holds may be bound anew
        raise _OwnError
    if isinstance(value, types.FunctionType):
        return _key(value, depth - 1)
    if isinstance(value, tuple):
        return tuple(_value(v, depth) for v in value)
    if isinstance(value, dict) and all(type(k) in PLAIN for k in value):
        return tuple((k, _value(v, depth)) for k, v in value.items())
    seen = visible(value)
    if seen is None:
        raise _OwnError
    return Same(value), seen


def _installed(value: Any) -> bool:
    """Whether a module, a class or a function is an installed package's or Python's."""
    if isinstance(value, types.ModuleType):
        return packaged(value.__name__)
    jitted = type(value).__name__ == "PjitFunction"
    return (jitted or isinstance(value, (type, types.FunctionType))) and packaged(value.__module__)


@functools.lru_cache(maxsize=4096)
def _writes(code: types.CodeType) -> bool:
    """Whether a code, or one inside of it, binds a variable of its surroundings."""
    free = {*code.co_freevars}
    return any(i.opname in _GLOBAL or i.argval in free for i in _bindings(code))


def _bindings(code: types.CodeType) -> Iterator[dis.Instruction]:
    yield from (i for i in dis.get_instructions(code) if i.opname in _BINDS)
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            yield from _bindings(inner)

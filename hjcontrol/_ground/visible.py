"""What a function can see, as a key: equal as long as nothing that it reads was rebound or changed.

    code, defaults, closure cells, the globals that its code names, attributes of objects, containers

Numbers and strings count by value, NumPy's arrays by their contents, JAX's arrays by identity. Modules
and classes of installed packages count by identity, and globals that their functions read do not count.
"""

import contextlib
import functools
import itertools
import sys
import sysconfig
import types
from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

OBJECTS = 20_000  # looked at, at most
LARGE = 2**26  # bytes of an array that are all read; of a larger one some of the elements
_NUMBERS = (str, bytes, int, float, complex)
PLAIN = frozenset({*_NUMBERS, bool, type(None), type(...)})
_CONTAINERS = (list, tuple, set, frozenset)


class Same:
    """An object known by identity, and kept, so that no other takes its place in memory."""

    def __init__(self, value: Any):
        self.value = value

    def __hash__(self) -> int:
        return id(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and self.value is other.value


class _Named(NamedTuple):
    """A module, and the names by which a function's code may reach into it."""

    module: types.ModuleType
    names: tuple[str, ...]


def visible(value: Any) -> Hashable | None:
    """A key of everything that can be reached from `value`; `None` where that is too much, or where an
    object does not let itself be looked at."""
    try:
        return _walked(value)
    except Exception:  # objects are the user's: they may raise anything
        return None


def _walked(value: Any) -> Hashable | None:
    key: list[Any] = []
    seen: dict[Any, int] = {}
    kept: list[Any] = []  # no address may be used twice
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if type(value) in PLAIN:
            key.append((type(value), repr(value)))
            continue
        at = (id(value.module), value.names) if isinstance(value, _Named) else id(value)
        if at in seen:
            key.append(seen[at])
            continue
        if len(seen) == OBJECTS:
            return None
        seen[at] = len(seen)
        kept.append(value)
        own, parts = _opened(value)
        key.append((own, len(parts)))
        waiting.extend(reversed(parts))
    return tuple(key)


def _opened(value: Any) -> tuple[Hashable, list[Any]]:
    """What is known of an object at once, and its parts."""
    if isinstance(value, jax.Array):
        return Same(value), []
    if isinstance(value, (np.ndarray, np.generic)):
        return _array(value)
    if isinstance(value, _Named):
        found = {n: vars(value.module)[n] for n in value.names if n in vars(value.module)}
        return (Same(value.module), *found), _reached(found.values(), value.names)
    if isinstance(value, types.FunctionType):
        return _function(value)
    if isinstance(value, type):
        return _class(value)
    if isinstance(value, (types.ModuleType, types.CodeType)):
        return Same(value), []
    if isinstance(value, np.dtype):
        return str(value), []
    parts = list(_fields(value))
    if isinstance(value, (dict, types.MappingProxyType)):
        parts += itertools.chain.from_iterable(list(value.items()))
    elif isinstance(value, _CONTAINERS):
        parts += value
    elif isinstance(value, types.BuiltinMethodType) and not isinstance(
        value.__self__, types.ModuleType
    ):
        return value.__name__, [value.__self__]
    elif not parts and not hasattr(value, "__dict__"):
        return Same(value), []
    number = next((kind.__repr__(value) for kind in _NUMBERS if isinstance(value, kind)), None)
    return number, [type(value), *parts]


def _array(value: Any) -> tuple[Hashable, list[Any]]:
    if value.dtype.hasobject:
        return value.shape, list(np.ravel(value))
    if value.nbytes <= LARGE:
        return (value.dtype, value.shape, hash(value.tobytes())), []
    some = value.flat[:: value.size // 2**16]
    return (Same(value), value.shape, hash(some.tobytes())), []


def _function(value: types.FunctionType) -> tuple[Hashable, list[Any]]:
    cells = [c.cell_contents for c in value.__closure__ or () if _filled(c)]
    parts = [value.__defaults__, value.__kwdefaults__, vars(value), *cells]
    if _installed(value.__code__.co_filename):
        return Same(value.__code__), parts
    names = names_in(value.__code__)
    found = {n: value.__globals__[n] for n in names if n in value.__globals__}
    imported = {n: sys.modules[n] for n in names if n in sys.modules and n not in found}
    reached = _reached((found | imported).values(), names)
    return (Same(value.__code__), *found, *imported), parts + reached


def _filled(cell: types.CellType) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:
        return False
    return True


@functools.lru_cache(maxsize=4096)
def names_in(code: types.CodeType) -> tuple[str, ...]:
    """Every name in a code and in the codes inside of it."""
    inner = (names_in(c) for c in code.co_consts if isinstance(c, types.CodeType))
    return tuple(sorted({*code.co_names, *itertools.chain.from_iterable(inner)}))


def _reached(values: Any, names: tuple[str, ...]) -> list[Any]:
    """The values, the user's own modules among them with the names that are looked up in them."""
    own = lambda v: isinstance(v, types.ModuleType) and not packaged(v.__name__)
    return [_Named(v, names) if own(v) else v for v in values]


def _class(value: type) -> tuple[Hashable, list[Any]]:
    if packaged(value.__module__):
        return Same(value), []
    special = lambda name: name.startswith("__") and name.endswith("__")
    own = {n: v for n, v in vars(value).items() if not special(n) or callable(v)}
    return (Same(value), *own), [*value.__bases__, *own.values()]


def _fields(value: Any) -> Iterator[Any]:
    """Attributes that an object stores, with their names."""
    yield from itertools.chain.from_iterable(list(getattr(value, "__dict__", {}).items()))
    for name, slot in _slots(type(value)):
        with contextlib.suppress(AttributeError):  # not set
            yield from (name, slot.__get__(value))


@functools.lru_cache(maxsize=4096)
def _slots(kind: type) -> tuple[tuple[str, Any], ...]:
    members = itertools.chain.from_iterable(vars(base).items() for base in kind.__mro__)
    return tuple((n, v) for n, v in members if isinstance(v, types.MemberDescriptorType))


def packaged(name: str | None) -> bool:
    """Whether a module of that name is part of Python or of an installed package."""
    if name is None or name == "__main__":
        return False
    file = getattr(sys.modules.get(name), "__file__", None)
    top = name.partition(".")[0]
    return top in sys.stdlib_module_names or (file is not None and _installed(file))


@functools.lru_cache(maxsize=4096)
def _installed(file: str) -> bool:
    """Whether a file is part of Python, of an installed package or of this library."""
    packages = ("site-packages", "dist-packages")
    if file.startswith("<frozen") or any(name in Path(file).parts for name in packages):
        return True
    return file.startswith(_homes())


@functools.cache
def _homes() -> tuple[str, ...]:
    homes = (sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"))
    return tuple(f"{home}/" for home in (*homes, Path(__file__).parents[1]))

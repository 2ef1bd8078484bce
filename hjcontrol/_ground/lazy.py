"""Names that are looked up when they are first named, so that importing a package costs almost nothing.

    __getattr__, __dir__ = lazily(__name__, {"solve": ".driver"}, ["convex"])

An old name stays for one release: it warns, and gives what the new name gives. `.ci/stubs.py` writes
`__init__.pyi` from the tables `_HOMES` and `_ROOMS` of a package, so that a type checker sees the names.
"""

import importlib
import types
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

_NONE: Mapping[str, str] = types.MappingProxyType({})


def lazily(
    package: str,
    homes: Mapping[str, str] = _NONE,
    rooms: Iterable[str] = (),
    renamed: Mapping[str, str] = _NONE,
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The pair `__getattr__`, `__dir__` of the module `package`.

    - `homes`: public name to the module that defines it; `".driver"` is a module of the package.
    - `rooms`: public modules, by their path in the package: `"solvers.convex"` is named `convex`.
    - `renamed`: old name to the new one, `"module"`, `"module:name"` or `":name"` of the package.
      `dir` leaves old names out.
    """
    modules = {named(room): f"{package}.{room}" for room in rooms}
    listed = sorted([*homes, *modules])

    def lookup(name: str) -> Any:
        if name in homes:
            return getattr(importlib.import_module(homes[name], package), name)
        if name in modules:
            return importlib.import_module(modules[name])
        if name in renamed:
            home, _, new = renamed[name].partition(":")
            module = importlib.import_module(home or package, package)
            shown = f"{module.__name__}.{new}" if new else module.__name__
            warnings.warn(
                f"{package}.{name} is now {shown}; the old name goes with the next release.",
                DeprecationWarning,
                stacklevel=2,
            )
            return getattr(module, new) if new else module
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return lookup, lambda: listed


def named(room: str) -> str:
    """The name under which a room is public: the last part of its path."""
    return room.rpartition(".")[2]

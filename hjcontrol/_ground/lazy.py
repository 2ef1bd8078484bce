"""Names that are looked up when they are first named, so that importing a package costs almost nothing.

    __getattr__, __dir__ = lazily(__name__, {"solve": "hjcontrol.solvers.driver"})

An old name stays for one release: it warns, and gives what the new name gives.
"""

import importlib
import types
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any


def lazily(
    package: str,
    homes: Mapping[str, str],
    rooms: Iterable[str] = (),
    renamed: Mapping[str, str] = types.MappingProxyType({}),
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The pair `__getattr__`, `__dir__` of the module `package`.

    - `homes`: public name to the module that defines it.
    - `rooms`: submodules that are public themselves.
    - `renamed`: old name to the new one, `"module"` or `"module:name"`. `dir` leaves old names out.
    """
    listed = sorted([*homes, *rooms])

    def lookup(name: str) -> Any:
        if name in homes:
            return getattr(importlib.import_module(homes[name]), name)
        if name in rooms:
            return importlib.import_module(f"{package}.{name}")
        if name in renamed:
            home, _, new = renamed[name].partition(":")
            shown = f"{home}.{new}" if new else home
            warnings.warn(
                f"{package}.{name} is now {shown}; the old name goes with the next release.",
                DeprecationWarning,
                stacklevel=2,
            )
            module = importlib.import_module(home)
            return getattr(module, new) if new else module
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return lookup, lambda: listed

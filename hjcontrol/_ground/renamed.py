"""Old names of arguments and fields, which stay for one release and warn.

    @renamed(tolerance="tol")
    def certify(problem, candidate, *, tol=None)          certify(..., tolerance=1e-8) warns, and works

On a class: its construction takes the old name, and an instance answers to it.
"""

import functools
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


def renamed(**names: str) -> Callable[[F], F]:
    """Accept old names.

    **Arguments:** `names`: the new name by the old one. Above `admits`, which knows the new one only.

    **Raises:** `TypeError` from the call, where an argument is given under both names.
    """

    def decorate(target: Any) -> Any:
        if not isinstance(target, type):
            return _accepting(target, target.__name__, names)
        target.__init__ = _accepting(target.__init__, target.__name__, names)
        for old, new in names.items():
            setattr(target, old, _field(target.__name__, old, new))
        return target

    return decorate


def _accepting(function: Any, who: str, names: dict[str, str]) -> Any:
    @functools.wraps(function)
    def accepting(*args: Any, **kwargs: Any) -> Any:
        for old in names.keys() & kwargs.keys():
            new = names[old]
            if new in kwargs:
                raise TypeError(f"{who}: `{new}` is given twice, also as `{old}`, its old name.")
            _warn(who, old, new)
            kwargs[new] = kwargs.pop(old)
        return function(*args, **kwargs)

    return accepting


def _field(who: str, old: str, new: str) -> property:
    def get(instance: Any) -> Any:
        _warn(who, old, new)
        return getattr(instance, new)

    return property(get, doc=f"The old name of `{new}`.")


def _warn(who: str, old: str, new: str) -> None:
    words = f"{who}: `{old}` is now `{new}`; the old name goes with the next release."
    warnings.warn(words, DeprecationWarning, stacklevel=3)

"""Reprs that show values.

    Newton(tol=1e-10, curvature='exact', ...)      a scalar by its value
    Newton(tol=traced float32[], ...)              inside `jit`, where it has none
    Newton(tol=float32[3], ...)                    an array by dtype and shape

One line under `WIDTH` characters, or else a block of at most `HEIGHT` lines, one field a line.
Nothing but scalars is read from a device, and nothing raises: a repr stands in other errors' messages.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from hjcontrol._ground.concrete import traced
from hjcontrol._ground.results import RESULTS, name_of

WIDTH, HEIGHT = 100, 14
ITEMS = 4  # of a tuple, list or mapping
TEXT = 60  # characters of anything else


class Shown(eqx.Module):
    """An `eqx.Module` whose repr shows the values of its scalars."""

    def __repr__(self) -> str:
        return block(self)


def block(value: Any) -> str:
    """A module on one line, or, if that is too long, one field a line."""
    fields = _fields(value)
    line = f"{type(value).__name__}({', '.join(f'{k}={line_of(v)}' for k, v in fields)})"
    if len(line) < WIDTH:
        return line
    rows = [_cut(f"  {k}={line_of(v)},", WIDTH - 1) for k, v in fields]
    if len(rows) > HEIGHT - 2:
        rows = [*rows[: HEIGHT - 3], f"  ... and {len(rows) - HEIGHT + 3} more"]
    return "\n".join([f"{type(value).__name__}(", *rows, ")"])


def line_of(value: Any, depth: int = 3) -> str:
    """A value on one line. Below `depth` modules and containers only their names are left."""
    try:
        return _line(value, depth)
    except Exception:  # somebody else's repr, or an array that its device has given up
        return f"<{type(value).__name__}>"


def _line(value: Any, depth: int) -> str:
    if isinstance(value, RESULTS):
        return name_of(value)
    if isinstance(value, (jax.Array, np.ndarray, np.generic, jax.ShapeDtypeStruct)):
        return _array(value)
    if isinstance(value, type):
        return value.__name__
    if isinstance(value, eqx.Module) or dataclasses.is_dataclass(value):
        if not depth:
            return f"{type(value).__name__}(...)"
        inside = ", ".join(f"{k}={line_of(v, depth - 1)}" for k, v in _fields(value))
        return f"{type(value).__name__}({inside})"
    if isinstance(value, (tuple, list, Mapping)):
        return _container(value, depth)
    if callable(value) and not isinstance(value, functools.partial):
        name = getattr(value, "__qualname__", None) or getattr(value, "__name__", None)
        return name.replace("<locals>.", "") if name else f"<{type(value).__name__}>"
    return _cut(" ".join(repr(value).split()), TEXT)


def _array(value: Any) -> str:
    shape = f"{value.dtype}[{','.join(map(str, value.shape))}]"
    if isinstance(value, jax.ShapeDtypeStruct) or value.dtype.kind == "O":
        return shape
    if traced(value):
        return f"traced {shape}"
    if value.shape or jnp.issubdtype(value.dtype, jax.dtypes.extended):
        return shape
    text = str(np.asarray(value)[()])
    return repr(float(text)) if value.dtype.kind == "f" else text


def _container(value: Any, depth: int) -> str:
    names = getattr(value, "_fields", None)
    pairs = zip(names, value, strict=True) if names else getattr(value, "items", lambda: None)()
    if pairs is None:
        parts = [line_of(v, depth - 1) for v in list(value)[:ITEMS]] if depth else []
        opening, closing = ("[", "]") if isinstance(value, list) else ("(", ")")
        lone = "," if isinstance(value, tuple) and len(value) == 1 else ""
    else:
        key: Callable[[Any, str], str] = lambda k, v: f"{k}={v}" if names else f"{k!r}: {v}"
        pairs = list(pairs)[:ITEMS]
        parts = [key(k, line_of(v, depth - 1)) for k, v in pairs] if depth else []
        opening, closing = (f"{type(value).__name__}(", ")") if names else ("{", "}")
        lone = ""
    if len(parts) < len(value):
        parts.append("..." if not parts else f"... {len(value) - len(parts)} more")
    return opening + ", ".join(parts) + lone + closing


def _fields(value: Any) -> list[tuple[str, Any]]:
    """Fields that are set, and are not `None`."""
    names = [field.name for field in dataclasses.fields(value) if field.repr]
    found = [(name, getattr(value, name, None)) for name in names]
    return [(name, v) for name, v in found if v is not None]


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."

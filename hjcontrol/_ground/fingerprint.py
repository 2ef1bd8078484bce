"""What an object is, as flat text: so that two can be compared, and what differs be named.

    describe(value)  ->  {path: text}

Arrays enter by dtype, shape and a digest of their bytes, functions by name, code and closure, records by
their fields. No address enters, so two processes give the same text. Classes and objects that are none of
these enter by name only: two of one class are taken for equal.
"""

import dataclasses
import functools
import hashlib
import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

CODE = (
    ".code"  # how a path to the digest of a function's code ends: comparable within one Python only
)


def describe(value: Any) -> dict[str, str]:
    """Every part of `value` by its path from it."""
    found: dict[str, str] = {}
    _into(found, "", value, frozenset())
    return found


def digest(array: Any) -> str:
    """Dtype, shape and 16 hexadecimal digits over the bytes of an array or a random key."""
    if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        return f"key {jax.random.key_impl(array)} {digest(jax.random.key_data(array))}"
    array = np.asarray(array)
    if array.dtype == object:
        return f"object{list(array.shape)}"
    code = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]
    return f"{array.dtype}{list(array.shape)} {code}"


def _into(found: dict[str, str], path: str, value: Any, above: frozenset[int]) -> None:
    if id(value) in above:  # a closure may hold itself
        return
    deeper = above | {id(value)}
    if value is None or isinstance(value, (bool, int, float, complex, str, bytes, np.dtype)):
        found[path] = repr(value)
    elif isinstance(value, (jax.Array, np.ndarray, np.generic)):
        found[path] = digest(value)
    elif isinstance(value, type):
        found[path] = f"{value.__module__}.{value.__qualname__}"
    else:
        found[path] = _name(value)
        for name, part in _parts(value):
            _into(found, f"{path}{name}", part, deeper)
        if isinstance(value, types.FunctionType):
            found[f"{path}{CODE}"] = _code(value.__code__)


def _name(value: Any) -> str:
    named = value if isinstance(value, types.FunctionType) else type(value)
    return f"{named.__module__}.{named.__qualname__}"


def _parts(value: Any) -> list[tuple[str, Any]]:
    """What an object is made of, each part with how its path goes on."""
    if isinstance(value, dict):
        return [(f"[{k!r}]", v) for k, v in value.items()]
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return [(f".{k}", getattr(value, k)) for k in value._fields]
    if isinstance(value, (list, tuple)):
        return [(f"[{i}]", v) for i, v in enumerate(value)]
    if dataclasses.is_dataclass(value):
        names = [f.name for f in dataclasses.fields(value)]
        return [(f".{k}", getattr(value, k)) for k in names if hasattr(value, k)]
    if isinstance(value, functools.partial):
        return [(".func", value.func), (".args", value.args), (".keywords", value.keywords)]
    if isinstance(value, types.MethodType):
        return [(".self", value.__self__), (".function", value.__func__)]
    if isinstance(value, types.FunctionType):
        return [(".defaults", value.__defaults__), *_closure(value)]
    if hasattr(value, "__wrapped__"):  # a jitted or otherwise transformed function
        return [(".wrapped", value.__wrapped__)]
    return []


def _closure(function: types.FunctionType) -> list[tuple[str, Any]]:
    parts = []
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            parts.append((f".{name}", cell.cell_contents))
        except ValueError:  # not filled yet
            continue
    return parts


def _code(code: types.CodeType) -> str:
    """Digest of bytecode, names and constants; nested code by its own digest."""

    def constant(value: Any) -> str:
        if isinstance(value, types.CodeType):
            return _code(value)
        if isinstance(value, frozenset):  # their order changes from process to process
            return repr(sorted(map(repr, value)))
        return repr(value)

    text = repr((code.co_code, code.co_names, [constant(c) for c in code.co_consts]))
    return hashlib.sha256(text.encode()).hexdigest()[:16]

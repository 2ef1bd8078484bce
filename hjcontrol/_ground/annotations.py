r"""Annotations as rules: what fits one, in words when something does not.

    rule(Float[Array, "n d"])(value, axes) -> value     or raises UnfitError("an array of floats [n, d]")

`axes` remembers the sizes of named axes over the arguments of one call, so `n` is `n` everywhere.
Annotations without a type (`Any`, type variables, forward references) let everything pass.
"""

import collections.abc
import inspect
import types
import typing
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing
from jaxtyping import AbstractArray, PyTree

Rule = Callable[[Any, dict[str, Any]], Any]
_NUMBERS = (bool, int, float, complex, np.number, np.bool_)
_ARRAYS = (jax.Array, np.ndarray, np.generic, jax.ShapeDtypeStruct)


class UnfitError(Exception):
    """A value that does not fit; the text says what would."""


def shown(value: Any) -> str:
    """A value in an error message: arrays by dtype and shape, classes as such, all else shortened."""
    if isinstance(value, type):
        return f"the class {value.__name__} itself (an instance is {value.__name__}(...))"
    if isinstance(value, (jax.Array, np.ndarray, jax.ShapeDtypeStruct)):
        return f"{value.dtype}{list(value.shape)}"
    if inspect.isroutine(value):
        return f"the function {getattr(value, '__name__', '?')}"
    try:
        text = repr(value)
    except Exception:  # a broken repr is no reason for another error
        text = f"a {type(value).__name__}"
    text = text if len(text) <= 60 else text[:57] + "..."
    return (
        text
        if value is None or isinstance(value, (str, *_NUMBERS))
        else f"{type(value).__name__} {text}"
    )


def rule(annotation: Any) -> Rule:
    """The rule that an annotation states."""
    if annotation == numpy.typing.ArrayLike:
        return _array("...", ("float", "int"))
    if is_array(annotation):
        return _array(annotation.dim_str, tuple(annotation.dtypes))
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in _UNIONS:
        return _union(args)
    if origin is typing.Literal:
        return _literal(args)
    if isinstance(annotation, typing.TypeAliasType if hasattr(typing, "TypeAliasType") else ()):
        return rule(annotation.__value__)
    if annotation in _SCALARS:
        return _SCALARS[annotation]
    if origin is collections.abc.Callable or annotation is collections.abc.Callable:
        return _callable
    if annotation is PyTree or (isinstance(annotation, type) and issubclass(annotation, PyTree)):
        return _tree
    if origin in _HOLDERS or annotation in _HOLDERS:
        return _holder(origin or annotation, args)
    if (
        isinstance(annotation, type)
        and annotation is not object
        and annotation is not inspect.Parameter.empty
    ):
        return _instance(annotation)
    if isinstance(origin, type) and origin is not type:
        return _instance(origin)
    return lambda value, axes: value


def is_array(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, AbstractArray)


def tells(annotation: Any) -> bool:
    """Whether a field's annotation says what its argument must be: numbers, or several things. A field
    that is one object may be made of something else."""
    parts = (
        typing.get_args(annotation) if typing.get_origin(annotation) in _UNIONS else (annotation,)
    )
    return any(is_array(a) or a in _SCALARS or typing.get_origin(a) in _HOLDERS for a in parts)


def _union(args: tuple[Any, ...]) -> Rule:
    arrays = [a for a in args if is_array(a)]
    if arrays or jax.Array in args:  # then NumPy's arrays and Python's numbers fit too
        dims = arrays[0].dim_str if arrays else "..."
        kinds = tuple(arrays[0].dtypes) if arrays else ("float", "int", "uint", "bool")
        rest = [
            a
            for a in args
            if not is_array(a) and a not in (jax.Array, np.ndarray, type(None), np.bool_, *_NUMBERS)
        ]
        rules = [*[rule(a) for a in rest], _array(dims, kinds)]
    else:
        rules = [rule(a) for a in args if a is not type(None)]

    def fits(value: Any, axes: dict[str, Any]) -> Any:
        if value is None and type(None) in args:
            return value
        said = []
        for each in rules:
            try:
                return each(value, axes)
            except UnfitError as error:
                said.append(str(error))
        raise UnfitError(" or ".join(dict.fromkeys(said)))

    return fits


def _literal(options: tuple[Any, ...]) -> Rule:
    def fits(value: Any, axes: dict[str, Any]) -> Any:
        del axes
        if not any(type(value) is type(o) and value == o for o in options):
            raise UnfitError("one of " + ", ".join(map(repr, options)))
        return value

    return fits


def _instance(kind: type) -> Rule:
    def fits(value: Any, axes: dict[str, Any]) -> Any:
        del axes
        try:
            good = isinstance(value, kind)
        except TypeError:  # a protocol that cannot be asked
            return value
        if not good:
            also = getattr(kind, "made_by", "")  # how a class says where its instances come from
            raise UnfitError(
                f"{'an' if kind.__name__[0] in 'AEIOU' else 'a'} {kind.__name__}{also}"
            )
        return value

    return fits


def _holder(kind: Any, args: tuple[Any, ...]) -> Rule:
    items = [a for a in args if a is not Ellipsis]
    each = (
        rule(items[0])
        if items and kind is not collections.abc.Mapping and kind is not dict
        else None
    )
    alike = kind is not tuple or args[1:] == (Ellipsis,)
    wanted = f"a {getattr(kind, '__name__', kind).lower()}"

    def fits(value: Any, axes: dict[str, Any]) -> Any:
        array = isinstance(value, (np.ndarray, jax.Array)) and value.ndim > 0
        if array and kind is collections.abc.Sequence and value.dtype.kind in "iuf":
            return value
        if isinstance(value, (str, bytes)) or not isinstance(value, kind):
            raise UnfitError(wanted)
        if isinstance(value, (list, tuple)) and each is not None:
            if not alike and len(value) != len(items):
                raise UnfitError(f"a tuple of {len(items)}")
            for i, item in enumerate(value):
                try:
                    (each if alike else rule(items[i]))(item, axes)
                except UnfitError as error:
                    raise UnfitError(f"{wanted}, each {error}, not {shown(item)}") from None
        return value

    return fits


def _callable(value: Any, axes: dict[str, Any]) -> Any:
    del axes
    module = isinstance(value, type) and issubclass(value, eqx.Module)
    if not callable(value) or module:
        raise UnfitError("a function")
    return value


def _tree(value: Any, axes: dict[str, Any]) -> Any:
    """A tree whose leaves are numbers: text and objects are none."""
    del axes
    if isinstance(value, type):
        raise UnfitError("a tree of arrays")
    for leaf in jax.tree.leaves(value):
        if isinstance(leaf, type):
            continue
        kind = getattr(
            getattr(leaf, "dtype", None), "kind", "f" if isinstance(leaf, _NUMBERS) else "O"
        )
        bad = isinstance(leaf, complex) or (kind in "cUSOMm" and not is_key(leaf))
        # Columns of records
        bad |= getattr(getattr(leaf, "dtype", None), "names", None) is not None
        if bad and not callable(leaf):
            raise UnfitError(f"a tree of arrays of real numbers, without {shown(leaf)}")
    return value


def is_key(value: Any) -> bool:
    known = isinstance(value, _ARRAYS)  # another library's dtype is none that can be asked
    return known and jnp.issubdtype(value.dtype, jax.dtypes.prng_key)


def _array(dims: str, dtypes: tuple[str, ...]) -> Rule:
    names = dims.split()
    key = any("key" in d for d in dtypes)
    floats = any(d.startswith("float") for d in dtypes)
    whole = any("int" in d for d in dtypes)
    logical = any("bool" in d for d in dtypes)
    one, many = ("a real number", "floats") if floats else ("a whole number", "integers")
    if logical and not (floats or whole):
        one, many = "True or False", "booleans"
    size = "" if names == ["..."] else f" of shape [{', '.join(names)}]"
    swept = "" if logical or key else " (`jax.vmap` sweeps an array)"
    wanted = f"an array of {many}{size}" if names else one + swept
    wanted = "a key, as from `jax.random.key(seed)`" if key else wanted

    def fits(value: Any, axes: dict[str, Any]) -> Any:
        if key:
            old = isinstance(value, _ARRAYS) and value.dtype == np.uint32
            if not is_key(value) and not old:
                raise UnfitError(wanted)
            if not names and value.shape != () and (is_key(value) or value.ndim != 1):
                raise UnfitError(f"{wanted}, one alone")
            return value
        given = value
        if isinstance(value, (list, tuple)):
            try:
                given = value = jnp.asarray(value)
            except (TypeError, ValueError, OverflowError):
                raise UnfitError(wanted) from None
        if not isinstance(given, (*_ARRAYS, *_NUMBERS)):
            raise UnfitError(wanted)
        given = given if hasattr(given, "dtype") else np.asarray(given)
        dtype = given.dtype
        number = jnp.issubdtype(dtype, jnp.floating)
        integer = jnp.issubdtype(dtype, jnp.integer)
        right = (
            (floats and (number or integer))
            or (whole and integer)
            or (logical and np.dtype(bool) == dtype)
        )
        if not (right or dtype == jax.dtypes.float0):
            raise UnfitError(wanted)
        if not _shaped(names, given.shape, axes):
            sizes = ", ".join(f"{n} = {axes[n]}" for n in dict.fromkeys(names) if n in axes)
            raise UnfitError(wanted + (f" where {sizes}" if sizes else ""))
        if floats and not whole and integer and names and hasattr(value, "astype"):
            return value.astype(float)
        return value

    return fits


def _shaped(names: list[str], shape: tuple[int, ...], axes: dict[str, Any]) -> bool:
    """Whether a shape fits; what it says of named axes is remembered if it does."""
    many = [i for i, n in enumerate(names) if n == "..." or n.startswith("*")]
    found: dict[str, Any] = {}
    if many:
        head, tail = names[: many[0]], names[many[0] + 1 :]
        if len(shape) < len(head) + len(tail):
            return False
        end = len(shape) - len(tail)
        if names[many[0]] != "...":
            found[names[many[0]]] = tuple(shape[len(head) : end])
        pairs = [*zip(head, shape, strict=False), *zip(tail, shape[end:], strict=True)]
    elif len(names) != len(shape):
        return False
    else:
        pairs = list(zip(names, shape, strict=True))
    for name, size in pairs:
        if (
            name == "_"
            or name.startswith(("#", "?"))
            or not (name.isidentifier() or name.isdigit())
        ):
            continue
        if name.isdigit():
            if int(name) != size:
                return False
        elif found.setdefault(name, size) != size:
            return False
    if any(axes.get(name, size) != size for name, size in found.items()):
        return False
    axes.update(found)
    return True


def _whole(value: Any, axes: dict[str, Any]) -> Any:
    del axes
    array = isinstance(value, (jax.Array, np.ndarray))
    integer = array and value.ndim == 0 and jnp.issubdtype(value.dtype, jnp.integer)
    if isinstance(value, (bool, np.bool_)) or not (isinstance(value, (int, np.integer)) or integer):
        raise UnfitError("a whole number")
    return value


def _real(value: Any, axes: dict[str, Any]) -> Any:
    del axes
    real = (int, float, np.integer, np.floating)
    array = isinstance(value, (jax.Array, np.ndarray)) and value.ndim == 0
    if isinstance(value, (bool, np.bool_)) or not (
        isinstance(value, real) or (array and value.dtype.kind in "iuf")
    ):
        raise UnfitError("a real number")
    return value


def _truth(value: Any, axes: dict[str, Any]) -> Any:
    del axes
    if not isinstance(value, (bool, np.bool_)):
        raise UnfitError("True or False")
    return value


_UNIONS = (typing.Union, types.UnionType)
_SCALARS: dict[Any, Rule] = {int: _whole, float: _real, bool: _truth}
_HOLDERS = (
    collections.abc.Sequence,
    collections.abc.Mapping,
    collections.abc.Iterable,
    list,
    tuple,
    dict,
)

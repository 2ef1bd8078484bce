r"""What a public function may be called with: its annotations, checked at the door, and ranges.

    @admits(t="> 0", eps=">= 0", order=">= 1")
    def hopf_cole(data: InitialData, x: Float[Array, " d"], t: Scalar, eps: Scalar, *, order: int = 2)

The annotation says type, rank and which axes are equal; the range says which numbers are meant, NaN and
infinity never (`"> 0 or inf"` admits infinity). On a class, what is said of a field holds for the
argument of that name. Integers become floats where arrays of floats are asked for. What `jit` traces is
checked for its type and shape, which are known; its values are not.

A wrong argument raises `ValueError`, naming function, argument, what is needed and what was found.
"""

import difflib
import functools
import inspect
import re
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Int

from hjcontrol._ground.annotations import UnfitError, is_key, rule, shown, tells
from hjcontrol._ground.concrete import known, traced
from hjcontrol._ground.meshes import aside, explicit

F = TypeVar("F", bound=Callable[..., Any])
_BOUND = re.compile(r"(>=|>|<=|<) ([-+.\de]+)")
HIDDEN = (  # what JAX raises where code asks for a value that is being traced
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
)
_VAGUE = (Any, inspect.Parameter.empty, ArrayLike)  # a field of that name says more
_HOLDS = {">=": np.greater_equal, ">": np.greater, "<=": np.less_equal, "<": np.less}


def admits(**ranges: str) -> Callable[[F], F]:
    """Check the arguments of a function, or of a class's construction, before it runs.

    **Arguments:** `ranges`: bounds by argument, as `"> 0"`, `">= 0, < 1"`, `"> 0 or inf"` or `"finite"`.
    """

    def decorate(target: Any) -> Any:
        if not isinstance(target, type):
            who = target.__name__
            return _guarded(who, target, _check(who, target, {}, ranges))
        fields = {n: a for c in target.__mro__[::-1] for n, a in inspect.get_annotations(c).items()}
        who, made = target.__name__, target.__init__
        target.__init__ = _guarded(who, made, _check(who, made, fields, ranges, target))
        return target

    return decorate


def in_range(who: str, name: str, value: Any, wanted: str) -> None:
    """Refuse a number (or an array with an entry) outside the range that `wanted` states.

    **Raises:** `ValueError`; never for what is being traced.
    """
    number = known(value)
    if number is not None and number.dtype.kind == "V":  # bfloat16 and its kin
        number = number.astype(float)
    if number is None or number.dtype.kind not in "biuf":  # a tracer, or has no order
        return
    endless = wanted.endswith("or inf")
    fine = ~np.isnan(number) if endless else np.isfinite(number)
    for sign, bound in _BOUND.findall(wanted):
        with np.errstate(invalid="ignore"):
            fine = fine & _HOLDS[sign](number, float(bound))
    if not np.all(fine):
        offender = number if number.ndim == 0 else number[~fine][0]
        finite = wanted[0] in "<>" and not endless and not np.isfinite(offender)
        words = f"{wanted} and finite" if finite else wanted
        raise ValueError(f"{who}: `{name}` must be {words}; found {offender}.")


def fits(who: str, name: str, value: Any, annotation: Any, wanted: str | None = None) -> Any:
    """`value` if it is what `annotation` says and in the range `wanted`: for an argument whose type no
    annotation can state.

    **Raises:** `ValueError`.
    """
    try:
        value = rule(annotation)(value, {})
    except UnfitError as error:
        raise ValueError(f"{who}: `{name}` must be {error}; found {shown(value)}.") from None
    if wanted is not None:
        in_range(who, name, value, wanted)
    return value


def places(who: str, index: Any, size: int) -> Any:
    """`index` as what picks samples: a slice, or whole numbers from `-size` to `size - 1`.

    **Raises:** `ValueError`; JAX clips what lies outside, in silence.
    """
    chosen = np.zeros(size, bool)
    if isinstance(index, slice) or (_is_mask(index) and index.shape == (size,)):
        chosen[np.asarray(index) if _is_mask(index) else index] = True
        if not chosen.any():
            raise ValueError(f"{who}: `index` must pick a sample at least; found {shown(index)}.")
        return index
    try:
        whole = rule(Int[ArrayLike, "..."])(index, {})
    except UnfitError:
        whole = None
    if whole is None or np.ndim(whole) != 1 or not np.size(whole):
        raise ValueError(
            f"{who}: `index` must be a slice or a list of whole numbers, one at least; found "
            f"{shown(index)}."
        )
    in_range(who, "index", whole, f">= {-size}, < {size}")
    return whole


def answers(who: str, name: str, function: Callable[..., Any], *arguments: str) -> None:
    """Refuse a function that cannot be called with these arguments, before it is called.

    **Raises:** `ValueError`.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # a function that does not say
        return
    try:
        signature.bind(*arguments)
    except TypeError as error:
        called = f"{name}({', '.join(arguments)})"
        raise ValueError(
            f"{who}: `{name}` is called as {called}; found {shown(function)}{signature}: {error}."
        ) from None


def _is_mask(index: Any) -> bool:
    return getattr(index, "dtype", None) == np.dtype(bool) and not traced(index)


def concrete(who: str, **values: Any) -> None:
    """Refuse what `jit`, `vmap` or `grad` trace, where values are needed.

    **Raises:** `ValueError` naming what is traced.
    """
    hidden = [f"`{name}`" for name, value in values.items() if _traced(value)]
    if hidden:
        raise ValueError(
            f"{who}: the values of {', '.join(hidden)} are needed, and jit, vmap or grad hide them. "
            "Call it outside of these."
        )


def _guarded(
    who: str, function: Callable[..., Any], check: Callable[[inspect.BoundArguments], None]
) -> Any:
    signature = inspect.signature(function)

    def entered(*args: Any, **kwargs: Any) -> Any:
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{who}: {error}. {_called(signature, kwargs)}") from None
        check(bound)
        try:
            return function(*bound.args, **bound.kwargs)
        except HIDDEN:
            concrete(who, **bound.arguments)
            raise

    @functools.wraps(function)
    def at_the_door(*args: Any, **kwargs: Any) -> Any:
        return aside(who, entered, args, kwargs) if explicit() else entered(*args, **kwargs)

    return at_the_door


def _called(signature: inspect.Signature, given: Any) -> str:
    """What the arguments are, and which of them an unknown name may mean."""
    names = [name for name in signature.parameters if name != "self"]
    near = [difflib.get_close_matches(name, names, 1) for name in given if name not in names]
    meant = [f"`{found[0]}`" for found in near if found]
    also = f" Is {' and '.join(meant)} meant?" if meant else ""
    return f"Its arguments are {', '.join(names) or 'none'}.{also}"


def _traced(value: Any) -> bool:
    leaves = jax.tree.leaves(value)
    return any(traced(a) and not is_key(a) for a in leaves)


def _check(
    who: str,
    function: Callable[..., Any],
    fields: dict[str, Any],
    ranges: dict[str, str],
    made: Any = None,
) -> Callable[[inspect.BoundArguments], None]:
    parameters = inspect.signature(function).parameters
    unknown = set(ranges) - set(parameters)
    if unknown:
        raise TypeError(f"admits: {who} has no arguments {sorted(unknown)}.")
    declared = getattr(made, "__dataclass_fields__", {})
    rules = {}
    for name, parameter in parameters.items():
        annotation = parameter.annotation
        converts = name in declared and "converter" in declared[name].metadata
        if tells(fields.get(name)) and (converts or annotation in _VAGUE):
            annotation = fields[name]
        if name != "self":
            rules[name] = rule(annotation)

    def fit(name: str, item: Any, axes: dict[str, Any]) -> Any:
        try:
            fitting = rules[name](item, axes)
        except UnfitError as error:
            raise ValueError(f"{who}: `{name}` must be {error}; found {shown(item)}.") from None
        if name in ranges:
            in_range(who, name, item, ranges[name])
        return fitting

    def check(bound: inspect.BoundArguments) -> None:
        axes: dict[str, Any] = {}
        for name, value in bound.arguments.items():
            parameter = parameters[name]
            if name not in rules or (value is None and parameter.default is None):
                continue
            if parameter.kind is parameter.VAR_POSITIONAL:
                value = tuple(fit(name, item, axes) for item in value or ())
            elif parameter.kind is parameter.VAR_KEYWORD:
                value = {key: fit(name, item, axes) for key, item in (value or {}).items()}
            else:
                value = fit(name, value, axes)
            bound.arguments[name] = value

    return check

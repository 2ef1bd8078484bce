"""Makes jaxtyping's import hook cheap: a function's check is made when the function is first called, and
only where there is an annotation to check. A function inside a function has no check: the hook would make
a new one at every call of the outer function. Where no annotation speaks of arrays there are no axes to
compare, and the type checker is asked alone: jaxtyping binds the signature at every call, and the suite
makes millions of calls of functions of one line."""

import functools
import inspect
import typing
from collections.abc import Callable

import jaxtyping

WHOLE = jaxtyping.jaxtyped


def speaks_of_axes(hint) -> bool:
    """Whether a check may need jaxtyping's memory of axes. What is not understood here may."""
    if hint in (None, typing.Any, ...) or typing.get_origin(hint) is typing.Literal:
        return False
    if isinstance(hint, list):  # the arguments of a `Callable`
        return any(map(speaks_of_axes, hint))
    origin = typing.get_origin(hint)
    if origin is None:
        return not isinstance(hint, type) or type(hint).__module__.startswith("jaxtyping")
    known = isinstance(origin, type) or origin is typing.Union
    return not known or any(map(speaks_of_axes, typing.get_args(hint)))


def _like(signature: inspect.Signature, hints: dict, defaults: tuple = (None, None)) -> Callable:
    """A function of this signature that does nothing."""
    bare = [
        p.replace(annotation=p.empty, default=p.empty if p.default is p.empty else None)
        for p in signature.parameters.values()
    ]
    made = {}
    exec(f"def nothing{inspect.Signature(bare)}: pass", made)
    made["nothing"].__annotations__ = hints
    made["nothing"].__defaults__, made["nothing"].__kwdefaults__ = defaults
    return made["nothing"]


def without_axes(fn: Callable, typechecker) -> Callable:
    """`fn`, its arguments and its value checked by the type checker alone. Both checks are over when `fn`
    runs or has run: their frames never lie under the user's. A refusal is worded by jaxtyping."""
    hints = {name: hint for name, hint in fn.__annotations__.items() if hint is not typing.Any}
    entering, leaving = None, None
    if "return" in hints:
        leaving = typechecker(
            _like(inspect.signature(lambda value: None), {"value": hints.pop("return")})
        )
    if hints:
        entering = typechecker(
            _like(inspect.signature(fn), hints, (fn.__defaults__, fn.__kwdefaults__))
        )

    def called(*args, **kwargs):
        __tracebackhide__ = True
        if jaxtyping.config.jaxtyping_disable:
            return fn(*args, **kwargs)
        if entering is not None:
            try:
                entering(*args, **kwargs)
            except Exception:  # never to return: these arguments are wrong
                return WHOLE(fn, typechecker=typechecker)(*args, **kwargs)
        out = fn(*args, **kwargs)
        if leaving is not None:
            try:
                leaving(out)
            except Exception:
                given = functools.wraps(fn)(lambda *args, **kwargs: out)
                return WHOLE(given, typechecker=typechecker)(*args, **kwargs)
        return out

    return _ours(called)


def _ours(fn: Callable) -> Callable:
    """A wrapper whose frame is jaxtyping's, not the user's."""
    fn.__code__ = fn.__code__.replace(co_filename=jaxtyping.__file__)
    return fn


def jaxtyped(fn=None, *, typechecker=None):
    """`jaxtyping.jaxtyped`, which the import hook looks up by this name."""
    if fn is None:
        return functools.partial(jaxtyped, typechecker=typechecker)
    if inspect.isclass(fn) and hasattr(
        fn.__init__, "__wrapped__"
    ):  # checked, or refusing, on its own
        return fn
    if not inspect.isfunction(fn):
        return WHOLE(fn, typechecker=typechecker)
    if not fn.__annotations__ or "<locals>" in fn.__qualname__:
        return fn
    made = []

    @functools.wraps(fn)
    def checked(*args, **kwargs):
        __tracebackhide__ = True
        if not made:
            axes = any(map(speaks_of_axes, fn.__annotations__.values()))
            made.append((WHOLE if axes else without_axes)(fn, typechecker=typechecker))
        return made[0](*args, **kwargs)

    return _ours(checked)


def install() -> None:
    """Puts it in jaxtyping's place. Modules that are imported from then on are checked so."""
    jaxtyping.jaxtyped = jaxtyped

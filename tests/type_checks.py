"""Makes jaxtyping's import hook cheap: a function's check is made when the function is first called, and
only where there is an annotation to check. A function inside a function has no check: the hook would make
a new one at every call of the outer function."""

import functools
import inspect

import jaxtyping

WHOLE = jaxtyping.jaxtyped


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
            made.append(WHOLE(fn, typechecker=typechecker))
        return made[0](*args, **kwargs)

    # its frame is jaxtyping's, not the user's
    checked.__code__ = checked.__code__.replace(co_filename=jaxtyping.__file__)
    return checked


def install() -> None:
    """Puts it in jaxtyping's place. Modules that are imported from then on are checked so."""
    jaxtyping.jaxtyped = jaxtyped

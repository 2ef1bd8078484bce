"""Rules that a derivative inside the function has used up while it was traced.

`jax.grad` within `fn` applies a rule at once and leaves its result in the program: nothing is left to
test. Calls of `custom_vjp` and `custom_jvp` are watched while tracing: one whose arguments are being
differentiated already is dissolved, and so is one of which only traces under a derivative are left.
What was jitted and traced before is not called again, so a program with a derivative inside is traced
once more where JAX remembers no trace.
"""

import contextlib
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr

from hjcontrol._ground.jaxprs import equations
from hjcontrol.verification.authorship import Written, author, rule_author
from hjcontrol.verification.inlining import RULES

_DIFFERENTIATED = ("JVPTracer", "LinearizeTracer")
_turns = itertools.count()


class Count:
    """The rules called while tracing, with their names, and those of them called under a derivative."""

    def __init__(self) -> None:
        self.calls: dict[Written, str] = {}
        self.under: set[Written] = set()
        # Rules that one function makes stand at one place: of each, where, itself, what it was given.
        self.made: dict[Written, dict[int, tuple[Written, Any, Any]]] = {}

    def add(self, rule: Any, args: Any) -> None:
        """One call of a rule. JAX's own, and those of the libraries beneath, are not counted."""
        functions = (getattr(rule, name, None) for name in ("bwd", "fwd", "jvp"))
        written = author(*functions)
        if written is None:
            return
        own = author(getattr(rule, "fun", None)) or written
        where = f"the rule at {os.path.basename(own.file)}:{own.line}"
        given = jax.tree.map(_shape, args)
        self.made[written] = self.made.get(written, {}) | {id(rule): (own, rule, given)}
        self.calls[written] = where if own.name in ("<lambda>", "_") else own.name
        if any(map(_differentiated, jax.tree.leaves(args))):
            self.under.add(written)

    def missing(self, closed: ClosedJaxpr) -> list[str]:
        """Names of the rules that a derivative inside has used up."""
        return sorted({self.calls[w] for w in self.gone(closed)})

    def gone(self, closed: ClosedJaxpr) -> set[Written]:
        """The rules that a derivative inside has used up."""
        left, names = set(), set()  # names of those that are not recognised by where they stand
        for eqn in equations(closed.jaxpr):
            if eqn.primitive.name in RULES and not _derived(eqn):
                written, own = rule_author(eqn), author(eqn.params["call_jaxpr"])
                left.add(written)
                if written not in self.calls and own is not None:
                    names.add(own.name)
        gone = set()
        if derivative_inside(closed):
            gone = {w for w, name in self.calls.items() if w not in left and name not in names}
        return self.under | gone


def watched(function: Callable, args: Sequence[Any]) -> tuple[ClosedJaxpr, Any, Count]:
    """`function` traced, the shapes of what it returns, and the rules that it calls."""
    count = Count()
    with counting(count):
        closed, shape = jax.make_jaxpr(function, return_shape=True)(*args)
    if derivative_inside(closed):
        # Any failure is the user's function's, which was traced already.
        with contextlib.suppress(Exception), counting(count), _nothing_remembered():
            jax.make_jaxpr(function)(*args)
    return closed, shape, count


def derivative_inside(closed: ClosedJaxpr) -> bool:
    """Whether the function takes a derivative itself."""
    return any(map(_derived, equations(closed.jaxpr)))


def _derived(eqn: Any) -> bool:
    return "jvp(" in str(eqn.source_info.name_stack)


@contextlib.contextmanager
def _nothing_remembered() -> Iterator[None]:
    """Within it JAX finds none of its traces: they are kept by context, and this one is new."""
    from jax.experimental.xla_metadata import set_xla_metadata

    with set_xla_metadata(hjcontrol=next(_turns)):
        yield


def _shape(value: Any) -> Any:
    """Of an array; anything else as it is."""
    return jax.ShapeDtypeStruct(value.shape, value.dtype) if isinstance(value, jax.Array) else value


def _differentiated(value: Any) -> bool:
    """Whether a value is being differentiated, under whatever maps."""
    for _ in range(16):
        if type(value).__name__ in _DIFFERENTIATED:
            return True
        if not isinstance(value, jax.Array) or not hasattr(value, "val"):
            return False
        value = value.val
    return False


@contextlib.contextmanager
def counting(count: Count) -> Iterator[None]:
    """Watch calls of custom rules. Where JAX's classes cannot be watched, nothing is counted."""
    watched = []
    for kind in (jax.custom_vjp, jax.custom_jvp):
        original = vars(kind).get("__call__")
        if original is None:
            continue

        def call(self: Any, *args: Any, original: Any = original, **kwargs: Any) -> Any:
            count.add(self, (args, kwargs))
            return original(self, *args, **kwargs)

        try:
            kind.__call__ = call
        except (AttributeError, TypeError):
            continue
        watched.append((kind, original))
    try:
        yield
    finally:
        for kind, original in watched:
            kind.__call__ = original

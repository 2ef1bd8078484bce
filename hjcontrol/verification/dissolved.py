"""Rules that a derivative inside the function has used up while it was traced.

`jax.grad` within `fn` applies a rule at once and leaves its result in the program: nothing is left to
test. Calls of `custom_vjp` and `custom_jvp` are watched while tracing: one whose arguments are being
differentiated already is dissolved, and so is one of which only traces under a derivative are left.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr

from hjcontrol._ground.jaxprs import equations
from hjcontrol.verification.inlining import RULES

_DIFFERENTIATED = ("JVPTracer", "LinearizeTracer")


class Count:
    """Names of the rules called while tracing, and of those called under a derivative."""

    def __init__(self) -> None:
        self.calls: set[str] = set()
        self.under: set[str] = set()

    def add(self, rule: Any, args: Any) -> None:
        """One call of a rule."""
        name = getattr(rule, "__name__", "") or getattr(getattr(rule, "fun", None), "__name__", "")
        self.calls.add(name)
        if any(map(_differentiated, jax.tree.leaves(args))):
            self.under.add(name)

    def missing(self, closed: ClosedJaxpr) -> list[str]:
        """Rules that a derivative inside has used up, JAX's own apart."""
        left = set()
        for eqn in equations(closed.jaxpr):
            if eqn.primitive.name in RULES and "jvp(" not in str(eqn.source_info.name_stack):
                about = eqn.params["call_jaxpr"].jaxpr.debug_info
                left.add((about.func_src_info or "").partition(" at ")[0].split(".")[-1])
        inner = any("jvp(" in str(e.source_info.name_stack) for e in equations(closed.jaxpr))
        gone = (self.calls - left) if inner else set()
        return sorted(self.under | gone)


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
            if not (getattr(self, "__module__", "") or "").startswith(("jax.", "equinox.")):
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

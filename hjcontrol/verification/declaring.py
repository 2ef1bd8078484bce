"""What a user declares to be deliberate: rules that differ from the derivative on purpose.

hj.deliberate(reason)(rule)              a named scope around the call
verify(..., deliberate=["file.py:52", "rule", rule])
"""

import dataclasses
import inspect
import os
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import jax
from jax.extend.core import Jaxpr

from hjcontrol._ground.annotations import shown
from hjcontrol._ground.jaxprs import bodies
from hjcontrol.verification.certificate import Row
from hjcontrol.verification.inlining import WRITTEN
from hjcontrol.verification.naming import Source, located, rule_name, rule_source
from hjcontrol.verification.program import Program
from hjcontrol.verification.verdicts import DELIBERATE, EXACT, UNDEFINED, UNTESTED

F = TypeVar("F", bound=Callable[..., Any])
_DECLARED = re.compile(r"hj\.deliberate\[([^\]]*)\]")


def deliberate(reason: str) -> Callable[[F], F]:
    """Declare that a rule differs from the derivative on purpose: a straight-through estimator, a
    clipped gradient, a reversed one.

    ```python
    @hj.deliberate("straight-through")
    @jax.custom_vjp
    def quantise(x): ...
    ```

    **Arguments:** `reason`: shown in the certificate.

    **Returns:** a decorator. Places called through it have the verdict `deliberate`.

    **Raises:** `ValueError` without a reason in words.
    """
    if not isinstance(reason, str) or not reason.strip():
        raise ValueError(f"deliberate: `reason` must say why, in words; found {reason!r}.")
    words = re.sub(r"[\[\]/()]", " ", reason).strip()

    def declared(rule: F) -> F:
        if not callable(rule):
            raise ValueError(
                f"deliberate: a function is needed; found {type(rule).__name__}. Write it above the rule."
            )

        def call(*args: Any, **kwargs: Any) -> Any:
            with jax.named_scope(f"hj.deliberate[{words}]"):
                return rule(*args, **kwargs)

        for name in ("__name__", "__doc__", "__module__", "__qualname__"):
            if hasattr(rule, name):
                setattr(call, name, getattr(rule, name))
        call.__wrapped__ = rule  # type: ignore[attr-defined]
        return call

    return declared


@dataclasses.dataclass(frozen=True)
class Rule:
    """A rule as a declaration may name it: its name, the line of its call, the line that defines it."""

    name: str
    called: str
    defined: str

    @property
    def theirs(self) -> bool:
        """Whether the user wrote it: the witness marks a chain's stages by rules of its own."""
        return not self.name.split(".")[-1].startswith("hj_")


def all_declared(rows: Sequence[Row], program: Program, given: Sequence[Any]) -> list[Row]:
    """The rows, `deliberate` where the user declared the rule.

    **Raises:** `ValueError` for a declaration that fits no rule of the program.
    """
    standing = [_of_row(row, program) for row in rows]
    if given:
        standing += _standing(program.closed.jaxpr, Source())
    for item in given:
        if not any(_named(item, rule) for rule in standing):
            names = sorted(
                {f"{r.name} at {os.path.basename(r.called)}" for r in standing if r.theirs}
            )
            raise ValueError(
                f"verify: `deliberate` names {shown(item)}, and no rule in the program is called so; "
                f"there {'are' if names else 'is'} {', '.join(names[:12]) or 'none'}."
            )
    return [_declared(row, program, given) for row in rows]


def _standing(jaxpr: Jaxpr, outer: Source) -> Iterator[Rule]:
    """Every rule that somebody wrote, those inside others included."""
    for eqn in jaxpr.eqns:
        source = located(eqn, outer)
        if eqn.primitive.name in (*WRITTEN, "stop_gradient"):
            yield Rule(rule_name(eqn), f"{source.file}:{source.line}", rule_source(eqn))
        for body in bodies(eqn):
            yield from _standing(body, source)


def _of_row(row: Row, program: Program) -> Rule:
    place = program.places.get(row.place)
    return Rule(
        row.rule, f"{row.file}:{row.line}", rule_source(place.eqn) if place is not None else ""
    )


def _declared(row: Row, program: Program, given: Sequence[Any]) -> Row:
    source = row.source
    found = _DECLARED.search(source.scope)
    names = (_named(item, _of_row(row, program)) for item in given)
    words = found.group(1).strip() if found else next((n for n in names if n is not None), None)
    scope = "/".join(s for s in _DECLARED.sub("", source.scope).split("/") if s.strip())
    row = dataclasses.replace(row, source=dataclasses.replace(source, scope=scope))
    if words is None or row.verdict in (EXACT, UNTESTED, UNDEFINED):
        return row
    return dataclasses.replace(row, verdict=DELIBERATE, reason=f"declared: {words}")


def _named(item: Any, rule: Rule) -> str | None:
    """What a declaration is called, if it names the rule."""
    if isinstance(item, str):
        lines = (rule.called, rule.defined)
        fits = any(w == item or w.endswith("/" + item) for w in lines) or item == rule.name
        return item if fits else None
    if not callable(item):
        return None
    function = inspect.unwrap(getattr(item, "fun", item))
    code = getattr(function, "__code__", None)
    if code is None:
        return None
    if rule.defined == f"{code.co_filename}:{code.co_firstlineno}":
        return getattr(item, "__name__", rule.name)
    own = getattr(function, "__name__", "") == rule.name.split(".")[-1]
    return (
        function.__name__ if own and rule.defined.rpartition(":")[0] == code.co_filename else None
    )

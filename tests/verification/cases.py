"""What a case says: a program, the verdict it must get, and what must be named.

rule(f, bwd)      a function with a rule of its own, `bwd(arguments, p)`
tanh(factor)      tanh whose rule is `factor` times the derivative
"""

import dataclasses
import linecache
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hjcontrol as hj

_draw = np.random.default_rng(7).normal
x, W = _draw(size=(16, 8)), _draw(size=(8, 8)) / 3


@dataclasses.dataclass(frozen=True)
class Case:
    """`worst`: attributes of the row that speaks; `words`: a pattern in the table; `line`: text of the
    line that is named; `exact`: rules that must come out exact; `gap`: a bound from above on its gap."""

    name: str
    fn: Callable
    args: tuple
    verdict: str
    options: dict = dataclasses.field(default_factory=dict)
    worst: dict = dataclasses.field(default_factory=dict)
    words: str = ""
    line: str = ""
    exact: tuple = ()
    gap: float = np.inf
    holds: bool | None = None
    xfail: str = ""


def pair(name, make, args, wrong=1.01, verdict="exact", **said):
    """A case with the rule right, and its twin with the rule off."""
    said = {"worst": {}, **said}
    return [
        Case(f"{name} right", make(1.0), args, verdict, said.get("options", {})),
        Case(f"{name} wrong", make(wrong), args, "refuted", **said),
    ]


def table(cases: list[Case]) -> Any:
    """The parametrisation of a test over cases."""
    marks = lambda c: [pytest.mark.xfail(strict=True, reason=c.xfail)] if c.xfail else []
    return pytest.mark.parametrize(
        "case", [pytest.param(c, id=c.name.replace(" ", "-"), marks=marks(c)) for c in cases]
    )


def check(case: Case) -> hj.verification.Certificate:
    """Verify once and compare with what the case says."""
    found = hj.verify(case.fn, *case.args, **case.options)
    told = str(found)
    assert found.verdict == case.verdict, told
    for name, value in case.worst.items():
        assert getattr(found.worst, name) == value, f"{name}\n{told}"
    assert re.search(case.words, told), f"{case.words!r}\n{told}"
    if case.line:
        text = linecache.getline(found.worst.file, found.worst.line)
        assert case.line in text, f"{text!r}\n{told}"
    for name in case.exact:
        verdicts = {row.verdict for row in found.rows if row.rule == name}
        assert verdicts == {"exact"}, f"{name}: {verdicts}\n{told}"
    if np.isfinite(case.gap):
        assert max(row.gap for row in found.rows) < case.gap, told
    holds = case.verdict in ("exact", "deliberate", "no custom rule")
    assert bool(found) is (holds if case.holds is None else case.holds), told
    return found


def rule(f: Callable, bwd: Callable, fwd: Callable | None = None, name: str = "") -> Any:
    """`f` with the rule `bwd(arguments, p)`, a tuple of one cotangent an argument."""

    def value(*args):
        return f(*args)

    value.__name__ = value.__qualname__ = name or getattr(f, "__name__", "rule").strip("<>")
    made = jax.custom_vjp(value)
    made.defvjp(fwd or (lambda *args: (f(*args), args)), bwd)
    return made


def tanh(factor: float = 1.0, name: str = "") -> Any:
    """tanh, its rule off by a factor."""
    return rule(
        jnp.tanh,
        lambda r, p: (factor * p * (1 - jnp.tanh(r[0]) ** 2),),
        name=name or ("good" if factor == 1 else "bad"),
    )


good, bad = tanh(), tanh(1.01)


def sine(factor):
    """sin, whose rule is cos times `factor`."""

    @jax.custom_vjp
    def sine(x):
        return jnp.sin(x)

    sine.defvjp(lambda x: (jnp.sin(x), x), lambda x, p: (factor * p * jnp.cos(x),))
    return sine

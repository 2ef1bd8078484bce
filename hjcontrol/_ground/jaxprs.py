"""Replay of a jaxpr: one equation at a time, each handed to a rule of the caller's.

    replay(jaxpr, args, rule):   for every equation   outputs = rule(equation, inputs)

The witness replays a program with its custom derivative rules inlined; the transcription replays it
on CasADi symbols. Both read the same program, and neither knows of the other.
"""

from collections.abc import Callable, Sequence
from typing import Any

from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal

Rule = Callable[[JaxprEqn, list[Any]], Sequence[Any]]

_CALLS = ("call_jaxpr", "fun_jaxpr", "jaxpr", "call")
CALL_PRIMITIVES = frozenset(
    {
        "jit",
        "pjit",
        "closed_call",
        "core_call",
        "remat2",
        "remat",
        "checkpoint",
        "custom_jvp_call",
        "custom_vjp_call",
        "custom_vjp_call_jaxpr",
        "custom_lin",
        "custom_vmap_call",
    }
)


def replay(closed: ClosedJaxpr, args: Sequence[Any], rule: Rule) -> list[Any]:
    """Evaluate `closed` on `args`, flat, calling `rule(equation, inputs)` for each equation."""
    jaxpr = closed.jaxpr
    env: dict[Any, Any] = {}

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else env[atom]

    env.update(zip(jaxpr.constvars, closed.consts, strict=True))
    env.update(zip(jaxpr.invars, args, strict=True))
    for eqn in jaxpr.eqns:
        env.update(zip(eqn.outvars, rule(eqn, [read(v) for v in eqn.invars]), strict=True))
    return [read(v) for v in jaxpr.outvars]


def bind(eqn: JaxprEqn, inputs: Sequence[Any]) -> Sequence[Any]:
    """Apply an equation's own primitive."""
    found = eqn.primitive.get_bind_params(eqn.params)
    # JAX before 0.10 hands back a pair (functions, params); since then, the params alone.
    functions, params = found if isinstance(found, tuple) else ((), found)
    out = eqn.primitive.bind(*functions, *inputs, **params)
    return out if eqn.primitive.multiple_results else [out]


def called_jaxpr(eqn: JaxprEqn) -> ClosedJaxpr | None:
    """The primal program behind a call-like equation, its custom rules set aside; else `None`."""
    if eqn.primitive.name not in CALL_PRIMITIVES:
        return None
    for name in _CALLS:
        inner = eqn.params.get(name)
        if isinstance(inner, ClosedJaxpr):
            return inner
        if isinstance(inner, Jaxpr):
            return ClosedJaxpr(inner, ())
    return None


def scan_counts(eqn: JaxprEqn) -> tuple[int, int]:
    """How many constants and how many carried values a `scan` has.

    Read off the shapes: what is scanned has an axis more outside the body than inside. (The parameters
    that say so have other names in JAX 0.10 than in 0.12.)
    """
    body = eqn.params["jaxpr"].jaxpr

    def same(outside: Sequence[Any], inside: Sequence[Any]) -> int:
        pairs = zip(outside, inside, strict=True)
        return sum(len(a.aval.shape) == len(b.aval.shape) for a, b in pairs)

    carry = same(eqn.outvars, body.outvars)
    return same(eqn.invars, body.invars) - carry, carry

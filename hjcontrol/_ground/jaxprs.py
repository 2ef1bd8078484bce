"""Replay of a jaxpr: one equation at a time, each handed to a rule of the caller's.

    replay(jaxpr, args, rule):   for every equation   outputs = rule(equation, inputs)

The witness replays a program with its custom derivative rules inlined; the transcription replays it
on CasADi symbols. Both read the same program, and neither knows of the other.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
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


def one_by_one(function: Callable[..., Any], *args: Any) -> Any:
    """`function(*args)`, arrays in and out, for one program that rounds as its operations do one by one:
    none is merged with the next."""
    closed, shape = jax.make_jaxpr(function, return_shape=True)(*args)

    def rule(eqn: JaxprEqn, inputs: list[Any]) -> list[Any]:
        plain = lambda a: not jnp.issubdtype(a.dtype, jax.dtypes.extended)
        return [jax.lax.optimization_barrier(a) if plain(a) else a for a in bind(eqn, inputs)]

    return jax.tree.unflatten(
        jax.tree.structure(shape), replay(closed, jax.tree.leaves(args), rule)
    )


def bind(eqn: JaxprEqn, inputs: Sequence[Any]) -> Sequence[Any]:
    """Apply an equation's own primitive."""
    # A rule may index a constant by a tracer: hand it JAX's array, where the jaxpr holds NumPy's.
    if eqn.primitive.name.startswith("custom_"):
        inputs = [jnp.asarray(a) if isinstance(a, np.ndarray) else a for a in inputs]
    found = eqn.primitive.get_bind_params(eqn.params)
    # JAX before 0.10 hands back a pair (functions, params); since then, the params alone.
    functions, params = found if isinstance(found, tuple) else ((), found)
    if eqn.primitive.name == "nondifferentiable_backward":
        # Equinox's guard wants no costate at all; a replayed one is an array, and it wants zeros then.
        params = {**params, "symbolic": False}
    out = eqn.primitive.bind(*functions, *inputs, **params)
    return list(out) if eqn.primitive.multiple_results else [out]


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


def bodies(eqn: JaxprEqn) -> Iterator[Jaxpr]:
    """The programs among an equation's parameters, without the constants that they close over."""
    for value in eqn.params.values():
        for item in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(item, ClosedJaxpr):
                yield item.jaxpr
            elif isinstance(item, Jaxpr):
                yield item


def equations(jaxpr: Jaxpr) -> Iterator[JaxprEqn]:
    """Every equation of a program, those of inner programs included."""
    for eqn in jaxpr.eqns:
        yield eqn
        for body in bodies(eqn):
            yield from equations(body)


def descend(eqn: JaxprEqn, inputs: Sequence[Any], rule: Rule) -> Sequence[Any] | None:
    """The equation rebuilt, with `rule` asked for every equation of its bodies; `None` for an equation
    without a body that can be rebuilt.

    Loops are rebuilt through the public `jax.lax` functions rather than by editing their parameters:
    the parameters change between JAX versions, the functions do not.
    """
    inner = called_jaxpr(eqn)
    if inner is not None:
        return replay(inner, inputs, rule)
    rebuild = _REBUILD.get(eqn.primitive.name)
    return None if rebuild is None else rebuild(eqn, inputs, rule)


def _scan(eqn: JaxprEqn, inputs: Sequence[Any], rule: Rule) -> Sequence[Any]:
    p = eqn.params
    split, carried = scan_counts(eqn)
    consts, carry, xs = inputs[:split], inputs[split : split + carried], inputs[split + carried :]

    def body(carry: Any, x: Any) -> tuple[Any, Any]:
        out = replay(p["jaxpr"], [*consts, *carry, *x], rule)
        return like(out[:carried], carry), out[carried:]

    carry, ys = jax.lax.scan(
        body, list(carry), xs, length=p["length"], reverse=p["reverse"], unroll=p["unroll"]
    )
    return [*carry, *ys]


def like(values: Sequence[Any], wanted: Sequence[Any]) -> list[Any]:
    """`values` in the dtypes of `wanted`: what is carried keeps its dtype."""
    return [
        v if v.dtype == w.dtype else v.astype(w.dtype)
        for v, w in zip(map(jnp.asarray, values), map(jnp.asarray, wanted), strict=True)
    ]


def while_parts(
    eqn: JaxprEqn, inputs: Sequence[Any], rule: Rule, ended: bool = True
) -> tuple[Any, Any, list[Any]]:
    """Condition and body of a `while` as functions of what is carried, and where it starts. `ended`: of a
    batch, those that have ended keep what they carry; otherwise they go on with the others."""
    p = eqn.params
    c, b = p["cond_nconsts"], p["body_nconsts"]
    going, kept = while_condition(eqn, inputs, rule)
    body = lambda carry: like(replay(p["body_jaxpr"], [*inputs[c : c + b], *carry], rule), carry)
    once = (lambda carry: kept(body(carry), carry)) if ended else body
    return going, once, list(inputs[c + b :])


def while_condition(eqn: JaxprEqn, inputs: Sequence[Any], rule: Rule) -> tuple[Any, Any]:
    """Whether a `while` goes on, and what is carried then: `going(carry)`, `kept(new, carry)`. Of a batch
    (`vmap`) each has an answer of its own; the loop goes on while one is true."""
    p = eqn.params
    asked = lambda carry: replay(p["cond_jaxpr"], [*inputs[: p["cond_nconsts"]], *carry], rule)[0]
    if not p["cond_jaxpr"].out_avals[0].shape:
        return asked, lambda new, carry: new

    def kept(new: Sequence[Any], carry: Sequence[Any]) -> list[Any]:
        on = asked(carry)
        rows = lambda a: on.reshape(on.shape + (1,) * (a.ndim - on.ndim))
        return [jnp.where(rows(a), a, b) for a, b in zip(new, carry, strict=True)]

    return lambda carry: jnp.any(asked(carry)), kept


def _cond(eqn: JaxprEqn, inputs: Sequence[Any], rule: Rule) -> Sequence[Any]:
    index, *operands = inputs
    branches = [lambda *a, b=b: replay(b, a, rule) for b in eqn.params["branches"]]
    return jax.lax.switch(index, branches, *operands)


def _shard_map(eqn: JaxprEqn, inputs: Sequence[Any], rule: Rule) -> Sequence[Any]:
    p = eqn.params
    body = p["jaxpr"]
    closed = body if isinstance(body, ClosedJaxpr) else ClosedJaxpr(body, ())
    mapped = jax.shard_map(
        lambda *a: tuple(replay(closed, a, rule)),
        mesh=p["mesh"],
        in_specs=tuple(p["in_specs"]),
        out_specs=tuple(p["out_specs"]),
        check_vma=p.get("check_vma", True),
    )
    return list(mapped(*inputs))


def _linear_solve(eqn: JaxprEqn, inputs: Sequence[Any], rule: Rule) -> Sequence[Any]:
    """What the equation's values are: its own `solve`, on its own constants."""
    lengths, programs = eqn.params["const_lengths"], eqn.params["jaxprs"]
    before = lengths.matvec + lengths.vecmat
    own = inputs[before : before + lengths.solve]
    right = inputs[sum(lengths) :]
    return replay(programs.solve, [*own, *right], rule)


_REBUILD = {
    "scan": _scan,
    "while": lambda eqn, inputs, rule: jax.lax.while_loop(*while_parts(eqn, inputs, rule)),
    "cond": _cond,
    "shard_map": _shard_map,
    "linear_call": lambda eqn, inputs, rule: replay(eqn.params["callee"], inputs, rule),
    "custom_linear_solve": _linear_solve,
}

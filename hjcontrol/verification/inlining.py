"""The primal program, its custom derivative rules set aside.

    inlined(f)(x) = f(x)          d/ds inlined(f)(x + s v)   never asks a rule that a user wrote

A rule that is wrong agrees with itself: forward or reverse, JAX would consult it again. So the witness
traces `f` to a jaxpr and replays it, descending into calls, checkpoints, scans, whiles and conds, until
only primitives are left whose derivatives JAX itself supplies.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn

from hjcontrol._ground.jaxprs import bind, called_jaxpr, replay, scan_counts

_RULES = ("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr")


def inlined(function: Callable) -> Callable:
    """`function` with the same values and none of its `custom_vjp` / `custom_jvp` rules.

    **Arguments:** `function`: traceable, of pytrees of arrays to a pytree of arrays.
    A primitive with a custom rule in a body that cannot be rewritten keeps its values and loses its
    tangent: differentiating raises `NotImplementedError`, and the caller takes differences.
    """

    def primal(*args: Any) -> Any:
        closed, shape = jax.make_jaxpr(function, return_shape=True)(*args)
        flat = replay(closed, jax.tree.leaves(args), _inline)
        return jax.tree.unflatten(jax.tree.structure(shape), flat)

    return primal


def _inline(eqn: JaxprEqn, inputs: list[Any]) -> Sequence[Any]:
    inner = called_jaxpr(eqn)
    if inner is not None:
        return replay(inner, inputs, _inline)
    if any(_holds_rule(j) for j in _bodies(eqn)):
        rebuild = _REBUILD.get(eqn.primitive.name)
        if rebuild is None:
            return _opaque(eqn, inputs)
        return rebuild(eqn, inputs)
    return bind(eqn, inputs)


def _opaque(eqn: JaxprEqn, inputs: list[Any]) -> Sequence[Any]:
    name = eqn.primitive.name

    @jax.custom_jvp
    def values(*args: Any) -> Sequence[Any]:
        return bind(eqn, args)

    @values.defjvp
    def tangent(primals: Any, tangents: Any) -> Any:
        raise NotImplementedError(f"inlined: a custom derivative rule sits inside `{name}`.")

    return values(*inputs)


# Loops are rebuilt through the public `jax.lax` functions rather than by editing their parameters:
# the parameters change between JAX versions, the functions do not.
def _scan(eqn: JaxprEqn, inputs: list[Any]) -> Sequence[Any]:
    p = eqn.params
    split, carried = scan_counts(eqn)
    consts, carry, xs = inputs[:split], inputs[split : split + carried], inputs[split + carried :]

    def body(carry: Any, x: Any) -> tuple[Any, Any]:
        out = replay(p["jaxpr"], [*consts, *carry, *x], _inline)
        return out[:carried], out[carried:]

    carry, ys = jax.lax.scan(
        body, carry, xs, length=p["length"], reverse=p["reverse"], unroll=p["unroll"]
    )
    return [*carry, *ys]


def _while(eqn: JaxprEqn, inputs: list[Any]) -> Sequence[Any]:
    p = eqn.params
    c, b = p["cond_nconsts"], p["body_nconsts"]
    for_cond, for_body, carry = inputs[:c], inputs[c : c + b], inputs[c + b :]
    return jax.lax.while_loop(
        lambda carry: replay(p["cond_jaxpr"], [*for_cond, *carry], _inline)[0],
        lambda carry: replay(p["body_jaxpr"], [*for_body, *carry], _inline),
        carry,
    )


def _cond(eqn: JaxprEqn, inputs: list[Any]) -> Sequence[Any]:
    index, *operands = inputs
    branches = [lambda *a, b=b: replay(b, a, _inline) for b in eqn.params["branches"]]
    return jax.lax.switch(index, branches, *operands)


_REBUILD = {"scan": _scan, "while": _while, "cond": _cond}


def _bodies(eqn: JaxprEqn) -> Iterator[Jaxpr]:
    """The jaxprs among an equation's parameters."""
    for value in eqn.params.values():
        for item in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(item, ClosedJaxpr):
                yield item.jaxpr
            elif isinstance(item, Jaxpr):
                yield item


def _holds_rule(jaxpr: Jaxpr) -> bool:
    return any(
        eqn.primitive.name in _RULES or any(_holds_rule(j) for j in _bodies(eqn))
        for eqn in jaxpr.eqns
    )

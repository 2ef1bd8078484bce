"""The primal program, its custom derivative rules set aside.

    inlined(f)(x) = f(x)          d/ds inlined(f)(x + s v)   never asks a rule that a user wrote

A rule that is wrong agrees with itself: forward or reverse, JAX would consult it again. So the witness
traces `f` to a jaxpr and replays it, descending into calls, checkpoints, loops and maps, until only
primitives are left whose derivatives JAX itself supplies.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, JaxprEqn

from hjcontrol._ground.jaxprs import bind, bodies, called_jaxpr, descend, equations, replay
from hjcontrol.verification.authorship import foreign
from hjcontrol.verification.naming import jax_solves

RULES = frozenset({"custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"})
WRITTEN = RULES | {"linear_call", "custom_linear_solve"}


def inlined(function: Callable) -> Callable:
    """`function` with the same values and none of its `custom_vjp` / `custom_jvp` rules.

    **Arguments:** `function`: traceable, of pytrees of arrays to a pytree of arrays.
    A primitive with a custom rule in a body that cannot be rewritten keeps its values and loses its
    tangent: differentiating raises `NotImplementedError`, and the caller takes differences.
    """

    def primal(*args: Any) -> Any:
        closed, shape = jax.make_jaxpr(function, return_shape=True)(*args)
        flat = primal_of(closed, jax.tree.leaves(args))
        return jax.tree.unflatten(jax.tree.structure(shape), flat)

    return primal


def primal_of(closed: ClosedJaxpr, args: Sequence[Any]) -> list[Any]:
    """A traced program's values, its rules set aside."""
    return replay(closed, args, inline)


def inline(eqn: JaxprEqn, inputs: list[Any]) -> Sequence[Any]:
    """One equation, its rules set aside."""
    if eqn.primitive.name == "custom_linear_solve" and jax_solves(eqn):
        return bind(eqn, inputs)  # its own solve works on factors that have no derivative
    return opened_up(eqn, inputs)


def opened_up(eqn: JaxprEqn, inputs: list[Any]) -> Sequence[Any]:
    """One equation with its own rule set aside, and those inside."""
    if not (written(eqn) or holds_rule(eqn)) and called_jaxpr(eqn) is None:
        return bind(eqn, inputs)
    found = descend(eqn, inputs, inline)
    return _opaque(eqn, inputs) if found is None else found


def written(eqn: JaxprEqn) -> bool:
    """Whether somebody wrote the equation's derivative: a rule, or a primitive that is not JAX's."""
    return eqn.primitive.name in WRITTEN or foreign(eqn.primitive)


def holds_rule(eqn: JaxprEqn) -> bool:
    """Whether a rule that somebody wrote sits in the equation's bodies."""
    return any(written(e) for body in bodies(eqn) for e in equations(body))


def _opaque(eqn: JaxprEqn, inputs: list[Any]) -> Sequence[Any]:
    name = eqn.primitive.name

    @jax.custom_jvp
    def values(*args: Any) -> Sequence[Any]:
        return bind(eqn, args)

    @values.defjvp
    def tangent(primals: Any, tangents: Any) -> Any:
        raise NotImplementedError(f"inlined: a custom derivative rule sits inside `{name}`.")

    return values(*inputs)


def opened(eqn: JaxprEqn) -> ClosedJaxpr:
    """An equation's primal as a program, the rules inside it kept."""
    from hjcontrol._ground.jaxprs import bind

    inner = called_jaxpr(eqn)
    if inner is not None:
        return inner
    avals = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in eqn.invars]
    own = lambda e, i: bind(e, i)
    return jax.make_jaxpr(lambda *ins: descend(eqn, ins, own))(*avals)


def replay_plain(closed: ClosedJaxpr, args: Sequence[Any]) -> list[Any]:
    """The program as it is."""
    return replay(closed, args, bind)

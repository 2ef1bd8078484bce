r"""The measurement where the program runs: a slot's cotangent.

    W(slot, *ins) = the place's own values          W'(p) = (what is measured,  G p)

Each place is wrapped in a rule of the witness's own with the same values. Its backward pass receives the
costate `p`, returns the user's `G p` for the inputs, and as the "cotangent" of the slot a small array of
measurements. One ordinary `jax.grad` in `(arguments, slots)` gives gradient and table; JAX does scan
(slots are scanned along: one row an iteration), cond, remat, jit and nested loops.

A second kind of slot *records*: its cotangent is the place's own inputs and costate, at chosen
iterations, for a trial of the place alone.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, JaxprEqn, Literal

from hjcontrol._ground.jaxprs import bind, called_jaxpr, like, scan_counts
from hjcontrol.verification.arithmetic import is_float
from hjcontrol.verification.calling import called, pulled
from hjcontrol.verification.places import Place, Plan, Step
from hjcontrol.verification.references import kept_still
from hjcontrol.verification.rule import (
    RAW,
    Maps,
    Settings,
    groups_of,
    measured,
    slot_dtype,
)

Visit = Callable[[Place, Any, list[Any]], Sequence[Any]]
Slots = dict[int, Any]


def run(
    closed: ClosedJaxpr, plan: Plan, args: Sequence[Any], slots: Slots, visit: Visit
) -> list[Any]:
    """The program's values, `visit(place, slot, inputs)` giving those of every place."""
    jaxpr = closed.jaxpr
    env: dict[Any, Any] = dict(zip(jaxpr.constvars, closed.consts, strict=True))
    env.update(zip(jaxpr.invars, args, strict=True))
    read = lambda atom: atom.val if isinstance(atom, Literal) else env[atom]
    for eqn, step in zip(jaxpr.eqns, plan.steps, strict=True):
        outs = _step(eqn, step, [read(v) for v in eqn.invars], slots, visit)
        env.update(zip(eqn.outvars, outs, strict=True))
    return [read(v) for v in jaxpr.outvars]


def _step(eqn: JaxprEqn, step: Step, ins: list[Any], slots: Slots, visit: Visit) -> Sequence[Any]:
    if step.place is not None:
        return visit(step.place, slots[step.place.index], arrays(eqn, ins))
    if not step.plans:
        return bind(eqn, kept_still(ins) if step.still else ins)
    own = {i: slots[i] for i in step.indices}
    name, plan = eqn.primitive.name, step.plans[0]
    if name == "scan":
        return _scan(eqn, plan, ins, own, visit)
    if name == "cond":
        index, *operands = ins
        branches = [
            lambda s, *a, b=b, inner=inner: run(b, inner, a, s, visit)
            for b, inner in zip(eqn.params["branches"], step.plans, strict=True)
        ]
        return jax.lax.switch(index, branches, own, *operands)
    inner = called_jaxpr(eqn)
    if name in _REMAT:
        body = lambda s, *a: run(inner, plan, a, s, visit)
        p = eqn.params
        again = jax.checkpoint(body, prevent_cse=p.get("prevent_cse", True), policy=p.get("policy"))
        return again(own, *ins)
    return run(inner, plan, ins, own, visit)


def arrays(eqn: JaxprEqn, ins: Sequence[Any]) -> list[Any]:
    """Inputs of an equation as arrays: a literal may be a bare number."""
    return [
        jnp.asarray(a, v.aval.dtype) if isinstance(a, (bool, int, float, complex)) else a
        for a, v in zip(ins, eqn.invars, strict=True)
    ]


_REMAT = frozenset({"remat", "remat2", "checkpoint"})


def _scan(eqn: JaxprEqn, plan: Plan, ins: list[Any], own: Slots, visit: Visit) -> Sequence[Any]:
    p = eqn.params
    split, carried = scan_counts(eqn)
    consts, carry, xs = ins[:split], ins[split : split + carried], ins[split + carried :]

    # Of a recording slot the choice is scanned along; what is recorded is one array for all iterations.
    turns = {i: s[0] if isinstance(s, tuple) else s for i, s in own.items()}
    held = {i: s[1:] for i, s in own.items() if isinstance(s, tuple)}

    def body(carry: Any, x: Any) -> tuple[Any, Any]:
        at, turn = x
        slots = {i: (s, *held[i]) if i in held else s for i, s in turn.items()}
        out = run(p["jaxpr"], plan, [*consts, *carry, *at], slots, visit)
        return like(out[:carried], carry), out[carried:]

    carry, ys = jax.lax.scan(
        body, list(carry), (xs, turns), length=p["length"], reverse=p["reverse"], unroll=p["unroll"]
    )
    return [*carry, *ys]


def empty(maps: Maps, seed: Any) -> Any:
    """A place's slot: an array that carries the seed of its random costates, a row for each judged
    input, one for every iteration."""
    shape = (*maps.place.lengths, max(len(maps.inputs), 1), len(RAW))
    return jnp.broadcast_to(jnp.asarray(seed, slot_dtype()), shape)


def empty_record(maps: Maps, chosen: Any) -> Any:
    """A recording slot for the iterations where `chosen`, of shape `(*lengths, count)`, is one."""
    count, eqn = chosen.shape[-1], maps.place.eqn
    room = lambda a: jnp.zeros((count, *a.shape), a.dtype)
    ins = [jax.eval_shape(number, v.aval) for v in eqn.invars]
    outs = [v.aval for v in eqn.outvars if is_float(v.aval)]
    return chosen, tuple(map(room, ins)), tuple(map(room, outs))


def empty_whole(maps: Maps) -> Any:
    """A slot that records a place which runs once: what its measurement reads."""
    zeros = lambda atoms: tuple(jnp.zeros(v.aval.shape, v.aval.dtype) for v in atoms)
    ins, outs = maps.place.eqn.invars, maps.place.eqn.outvars
    return zeros(ins), zeros(outs), zeros(ins[i] for i in maps.inputs)


def measuring(
    maps: dict[int, Maps], groups: dict[int, Any], settings: Settings, taken: Collection[int] = ()
) -> Visit:
    """Wrap every place so that its slot's cotangent is the measurement. `groups` is filled, while
    tracing, with each place's arguments. Of the places `taken`, the slots record."""

    def visit(place: Place, slot: Any, ins: list[Any]) -> Sequence[Any]:
        own = maps[place.index]
        found = groups_of(ins, own.inputs)
        groups[place.index] = found
        if place.mutable:
            return called(place, ins)
        if place.index in taken:
            return wrapped(own, slot, ins, _whole)

        def told(ins: Any, outs: Any, p: Any, by_rule: Any, pull: Any, slot: Any) -> Any:
            seed = slot[0, 0].astype(jnp.int32)
            rows = measured(own, found, ins, outs, p, by_rule, pull, seed, settings)
            return jnp.pad(rows, ((0, len(slot) - len(rows)), (0, 0)))

        return wrapped(own, slot, ins, told)

    return visit


def recording(index: int, maps: dict[int, Maps]) -> Visit:
    """Wrap one place so that its slot's cotangent is its inputs and costate where the slot is one."""

    def visit(place: Place, slot: Any, ins: list[Any]) -> Sequence[Any]:
        if place.index != index:
            return called(place, ins)

        return wrapped(maps[index], slot, ins, _record)

    return visit


def looking(maps: dict[int, Maps], groups: dict[int, Any]) -> Visit:
    """Run every place as it is, and note its arguments in `groups`."""

    def visit(place: Place, slot: Any, ins: list[Any]) -> Sequence[Any]:
        del slot
        groups[place.index] = groups_of(ins, maps[place.index].inputs)
        return called(place, ins)

    return visit


def _record(ins: Any, outs: Any, p: Any, by_rule: Any, pull: Any, slot: Any) -> Any:
    """A recording slot's cotangent: inputs and costate where the slot is one."""
    del outs, by_rule, pull
    chosen = slot[0]
    pick = lambda a: _picked(chosen, a)
    kept = tuple(pick(number(a)) for a in ins), tuple(pick(a) for a in p if is_float(a))
    return (jnp.zeros_like(chosen), *kept)


def _whole(ins: Any, outs: Any, p: Any, by_rule: Any, pull: Any, slot: Any) -> Any:
    """What `empty_whole` has room for: inputs, costate and `G p`."""
    del outs, pull, slot
    return tuple(ins), tuple(p), tuple(by_rule)


def _picked(chosen: Any, a: Any) -> Any:
    weight = chosen.reshape(-1, *(1,) * a.ndim)
    return jnp.where(weight != 0, a[None], jnp.zeros_like(a)[None])


def number(a: Any) -> Any:
    """An input as something that has a cotangent; keys and integers travel as the floats that hold
    their bytes."""
    if jnp.issubdtype(a.dtype, jnp.inexact):
        return a
    if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
        a = jax.random.key_data(a)
    if a.dtype == jnp.bool_:
        a = a.astype(jnp.uint8)
    raw = a if a.dtype == jnp.uint8 else jax.lax.bitcast_convert_type(a, jnp.uint8)
    return raw.astype(jnp.float32)


def restored(raw: Any, aval: Any) -> Any:
    """The input that `number` turned into floats."""
    if jnp.issubdtype(aval.dtype, jnp.inexact):
        return jnp.asarray(raw)
    if jnp.issubdtype(aval.dtype, jax.dtypes.prng_key):
        data = np.asarray(raw).astype(np.uint8)
        words = np.ascontiguousarray(data).view(np.uint32).reshape(data.shape[:-1])
        kind = jax.random.key_impl(jnp.empty((), aval.dtype))  # type: ignore[arg-type]
        return jax.random.wrap_key_data(jnp.asarray(words), impl=kind)
    data = np.ascontiguousarray(np.asarray(raw).astype(np.uint8))
    if aval.dtype == jnp.bool_:
        return jnp.asarray(data.astype(bool).reshape(aval.shape))
    if aval.dtype == jnp.uint8:
        return jnp.asarray(data.reshape(aval.shape))
    return jnp.asarray(data.view(aval.dtype).reshape(aval.shape))


def wrapped(maps: Maps, slot: Any, ins: list[Any], told: Callable) -> Sequence[Any]:
    """The place's values, with `told(ins, outs, p, G p, G, slot)` as the slot's cotangent."""
    place, judged = maps.place, maps.inputs
    perturbed = tuple(i for i, a in enumerate(place.active) if a)

    @jax.custom_vjp
    def values(slot: Any, *ins: Any) -> Any:
        del slot
        return tuple(called(place, ins))

    def forward(slot: Any, *ins: Any) -> Any:
        outs, pull = pulled(place, ins, perturbed)
        return tuple(outs), _kept((slot, list(ins), list(outs)), pull)

    def backward(residuals: Any, p: Any) -> Any:
        (slot, ins, outs), pull = _unpacked(residuals)
        g = pull(list(p))
        at = {i: k for k, i in enumerate(perturbed)}
        chosen = lambda found: [found[at[i]] for i in judged]
        found = told(ins, outs, p, chosen(g), lambda q: chosen(pull(list(q))), slot)
        zero = lambda a: None if not is_float(a) else jnp.zeros_like(a)
        given = [g[at[i]] if i in at else zero(a) for i, a in enumerate(ins)]
        if place.ends:
            given = [zero(a) for a in ins]
        return (found, *given)

    values.defvjp(forward, backward)
    return list(values(slot, *ins))


class _Kept:
    """Which leaves of what is kept are the same array."""

    def __init__(self, structure: Any, order: tuple[int, ...]):
        self.key = (structure, order)

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, _Kept) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


jax.tree_util.register_pytree_node(_Kept, lambda kept: ((), kept), lambda kept, _: kept)


def _kept(own: Any, pull: Any) -> Any:
    """What the backward pass needs, every array once: a rule's residuals are mostly its inputs."""
    leaves, structure = jax.tree.flatten((own, pull))
    unique: dict[int, int] = {}
    order = tuple(unique.setdefault(id(leaf), len(unique)) for leaf in leaves)
    firsts = {k: leaf for leaf, k in zip(leaves, order, strict=True)}
    return [firsts[k] for k in range(len(unique))], _Kept(structure, order)


def _unpacked(residuals: Any) -> Any:
    leaves, kept = residuals
    structure, order = kept.key
    return jax.tree.unflatten(structure, [leaves[k] for k in order])

"""Equal places judged by one compiled program.

A network without a scan holds the same rule many times over, and compiling each measurement apart costs
more than the network. Places with the same primal, the same rule, shapes and activity are a family: the
gradient records their inputs and costates, and one `lax.map` measures them all. Only where what is
recorded is small; elsewhere, and inside loops, each place measures for itself.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from hjcontrol.verification.arithmetic import is_float
from hjcontrol.verification.calling import pulled
from hjcontrol.verification.rule import Maps, Settings, measured

MEMBERS = 3  # fewer are no family
BYTES = 2**28  # recorded, all families together


def families(maps: dict[int, Maps], groups: dict[int, Any]) -> list[tuple[int, ...]]:
    """Indices of places that are equal in all but their values."""
    alike: dict[Any, list[int]] = {}
    for i, m in maps.items():
        place = m.place
        floats = all(is_float(v.aval) for v in (*place.eqn.invars, *place.eqn.outvars))
        if not place.certain or m.mode not in ("reverse", "none") or not floats:
            continue
        avals = tuple((v.aval.shape, v.aval.dtype) for v in place.eqn.invars)
        key = (place.kind, avals, place.active, place.live, m.inputs, groups[i], place.library)
        alike.setdefault(key, []).append(i)
    found, left = [], BYTES
    for members in alike.values():
        if len(members) < MEMBERS:
            continue
        same: dict[Any, list[int]] = {}
        for i in members:
            same.setdefault(_program(maps[i]) if maps[i].mode == "reverse" else None, []).append(i)
        for family in same.values():
            place = maps[family[0]].place
            size = sum(
                v.aval.dtype.itemsize * int(np.prod(v.aval.shape))
                for v in (*place.eqn.invars, *place.eqn.outvars)
            )
            if len(family) >= MEMBERS and size * len(family) <= left:
                left -= size * len(family)
                found.append(tuple(family))
    return found


def _program(maps: Maps) -> Any:
    """What a place computes, forward and backward, as something to compare."""
    place = maps.place
    ins = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in place.eqn.invars]

    def both(*ins: Any) -> Any:
        outs, pull = pulled(maps.place, ins, maps.inputs)
        return outs, pull([jnp.ones_like(o) for o in outs])

    closed = jax.make_jaxpr(both)(*ins)
    primal = place.eqn.params.get("call_jaxpr", place.eqn.params.get("callee"))
    consts = (*closed.consts, *getattr(primal, "consts", ()))
    values = tuple(np.asarray(c).tobytes() if np.size(c) < 1024 else id(c) for c in consts)
    return str(closed), str(primal), values


def measured_family(
    maps: Maps, groups: Any, records: list[Any], seed: Any, settings: Settings
) -> Array:
    """The tables of a family's members, one above the other, from what their slots recorded."""
    leaves, structure = jax.tree.flatten(records[0])

    def one(flat: list[Array]) -> Array:
        shaped = [a.reshape(b.shape) for a, b in zip(flat, leaves, strict=True)]
        ins, p, by_rule = jax.tree.unflatten(structure, shaped)
        outs, pull = (
            ((), lambda q: ()) if maps.mode == "none" else pulled(maps.place, ins, maps.inputs)
        )
        own = lambda q: pull(list(q))
        return measured(maps, groups, ins, outs, list(p), list(by_rule), own, seed, settings)

    # Flat, since stacking vectors is copied and not compiled.
    columns = zip(*(jax.tree.leaves(record) for record in records), strict=True)
    return jax.lax.map(one, [jnp.stack([a.reshape(-1) for a in column]) for column in columns])


def split(tables: dict[tuple[int, ...], Any], maps: dict[int, Maps]) -> dict[int, Any]:
    """A table for each place: a family's are cut apart outside the program, where it costs nothing."""
    found: dict[int, Any] = {}
    for family, table in tables.items():
        if len(family) == 1:
            found[family[0]] = table
            continue
        rows = max(len(maps[family[0]].inputs), 1)
        for i, t in zip(family, np.asarray(table), strict=True):
            found[i] = np.pad(t, ((0, rows - len(t)), (0, 0)))
    return {i: found[i] for i in maps}

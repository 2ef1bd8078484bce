"""Equal places judged by one compiled program.

A network without a scan holds the same rule many times over, and compiling each measurement apart costs
more than the network. Places with the same primal, the same rule, shapes and activity are a family: the
gradient records their inputs and costates, and one small program measures each in its turn. Only where
what is recorded is small; elsewhere, and inside loops, each place measures for itself.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from hjcontrol.verification.arithmetic import is_float
from hjcontrol.verification.calling import pulled
from hjcontrol.verification.rule import Maps, Settings, finished, measured

MEMBERS = 3  # fewer are no family
BYTES = 2**28  # recorded, all families together


def families(maps: dict[int, Maps], groups: dict[int, Any]) -> list[tuple[int, ...]]:
    """Indices of places that are equal in all but their values."""
    alike: dict[Any, list[int]] = {}
    for i, m in maps.items():
        place = m.place
        floats = all(is_float(v.aval) for v in (*place.eqn.invars, *place.eqn.outvars))
        if not place.certain or m.mode != "reverse" or not floats:
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


def measured_alone(maps: Maps, groups: Any, record: Any, seed: Any, settings: Settings) -> Array:
    """The table of a family's member, from what its slot recorded."""
    ins, p, by_rule = record
    outs, pull = pulled(maps.place, ins, maps.inputs)
    own = lambda q: pull(list(q))
    return measured(maps, groups, list(ins), outs, list(p), list(by_rule), own, seed, settings)


def told(raw: dict[int, np.ndarray], maps: dict[int, Maps]) -> dict[int, Any]:
    """A table of `FIELDS` for each place, made outside the program, where it costs nothing."""
    found: dict[int, Any] = {}
    for i, m in maps.items():
        table = finished(np.asarray(raw[i], float))
        rows = [(0, 0)] * (table.ndim - 2) + [(0, max(len(m.inputs), 1) - table.shape[-2])]
        found[i] = np.pad(table, (*rows, (0, 0)))
    return found

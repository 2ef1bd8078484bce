"""Which rules inside a refuted `shard_map` are wrong: its body once more, forward only, on its own mesh.

A rule that was traced on a mesh can be called only there, so those inside are not tried alone. The place
is refuted as a whole; named are the user's rules in it that are off for a random costate, at any shard.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr
from jax.sharding import PartitionSpec

from hjcontrol.verification.arithmetic import eps_of
from hjcontrol.verification.certificate import Row
from hjcontrol.verification.gaps import UNITS
from hjcontrol.verification.places import Place
from hjcontrol.verification.program import Program
from hjcontrol.verification.rows import as_row
from hjcontrol.verification.rule import GAP, VALUES, VISITS
from hjcontrol.verification.verdicts import REFUTED, Outcome
from hjcontrol.verification.walk import measuring


def wrong_inside(place: Place, ins: Sequence[Any], seed: int) -> list[Row]:
    """Rows of the wrong rules inside, worst first; none where they cannot be told apart."""
    p = place.eqn.params
    body = p["jaxpr"]
    closed = body if isinstance(body, ClosedJaxpr) else ClosedJaxpr(body, ())
    program = Program(closed, place.active, place.arguments)
    # On the mesh alone it can be tried which derivative the primal of a rule has.
    maps = {
        i: m if m.mode == "none" else m._replace(mode="reverse") for i, m in program.maps.items()
    }

    def walk(*ins: Any) -> Any:
        notes = measuring(maps, program.groups, seed)(closed, program.plan, list(ins))[1]
        return jax.tree.map(lambda a: a[None], notes)

    axes = PartitionSpec(tuple(p["mesh"].axis_names))
    mapped = jax.shard_map(
        walk,
        mesh=p["mesh"],
        in_specs=tuple(p["in_specs"]),
        out_specs=axes,
        check_vma=p.get("check_vma", True),
    )
    try:
        tables = jax.device_get(jax.jit(mapped)(*ins))
    except Exception:  # the rules are the user's; a loop in one has no reverse mode
        return []
    found = []
    for i, table in tables.items():
        inner = program.places[i]
        if not (inner.ends or inner.library or inner.mutable or not program.groups.get(i)):
            shards = np.asarray(table, float)
            found += filter(None, map(functools.partial(_worst, program, inner), shards))
    best: dict[int, Row] = {}
    for row in sorted(found, key=lambda r: -r.gap):
        best.setdefault(row.place, row)
    return list(best.values())


def _worst(program: Program, place: Place, table: np.ndarray) -> Row | None:
    """The row of the argument that is furthest off at one shard, if it is more than roundoff."""
    flat = table.reshape(-1, *table.shape[-2:])
    groups, inputs = program.groups[place.index], program.maps[place.index].inputs
    if not flat.size:
        return None
    limits = UNITS * np.asarray([eps_of(place.eqn.invars[inputs[g[0]]].aval.dtype) for g in groups])
    gaps = np.where(flat[:, :1, VISITS] > 0, flat[:, : len(groups), GAP], 0.0)
    apart = np.where(flat[:, 0, VISITS] > 0, flat[:, 0, VALUES], 0.0)
    if (values := apart.max()) > limits.max():
        told = Outcome(REFUTED, values, "the rule's forward pass returns other values", 0)
        return as_row(program, place, 0, told, flat, int(apart.argmax()), False)
    at, k = np.unravel_index(np.nanargmax(gaps / limits), gaps.shape)
    if not gaps[at, k] > limits[k]:
        return None
    told = Outcome(REFUTED, float(gaps[at, k]), "for a random costate, at some shard", int(k))
    return as_row(program, place, int(k), told, flat, int(at), False)

"""A certificate's row from a place's table and the outcome of its trial."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from hjcontrol.verification.arithmetic import eps_of, is_float
from hjcontrol.verification.certificate import Row
from hjcontrol.verification.labels import Label
from hjcontrol.verification.places import Place
from hjcontrol.verification.program import Program
from hjcontrol.verification.rule import GAP, LIVE, REACH, SECOND, VISITS
from hjcontrol.verification.verdicts import EXACT, ORDER, Outcome


def as_row(
    program: Program,
    place: Place,
    k: int,
    o: Outcome,
    flat: np.ndarray,
    at: int | None,
    backward: bool,
) -> Row:
    """The row of argument `k`. `flat`: the place's table, iterations in front; `at`: the one it is of."""
    groups = program.groups.get(place.index, ((0,),)) or ((0,),)
    maps = program.maps[place.index]
    position = maps.inputs[groups[k][0]] if maps.inputs and k < len(groups) else 0
    reach = float(flat[:, 0, REACH].max(initial=0.0)) if backward else None
    iteration = None
    if place.lengths and at is not None and flat.size:
        iteration = tuple(int(j) for j in np.unravel_index(at, place.lengths))
    elif not backward and flat.size and max(flat[0, 0, VISITS] - 1, flat[0, k, SECOND]) > 0:
        iteration = (int(flat[0, k, SECOND]),)
    leaf = innermost(o.inner) if o.verdict != EXACT else None
    if leaf is not None:  # a rule inside speaks: its own line, and where it sits
        inside = "" if place.marked else f"; inside {place.name} at {place.source}"
        return dataclasses.replace(
            leaf,
            reach=reach,
            iteration=((iteration or ()) + (leaf.iteration or ())) or None,
            reason=leaf.reason + inside,
            inner=tuple(o.inner),
            place=place.index,
            entered=position,
        )
    label = place.arguments[position] if position < len(place.arguments) else Label()
    by_iteration = lambda column: column.reshape(place.lengths) if flat.size else np.zeros(0)
    return Row(
        verdict=o.verdict,
        gap=o.gap,
        reach=reach,
        live=None if place.ends or not flat.size else float(flat[:, k, LIVE].max(initial=0.0)),
        rule=place.name,
        kind=place.kind,
        source=place.source,
        iteration=iteration,
        argument=position,
        parameter=label.name,
        moved=label.moved,
        index=o.index,
        shape=tuple(place.eqn.invars[position].aval.shape),
        arithmetic=_dtype(program, place),
        reason="; ".join(filter(None, (o.reason, _unused(place) if o.verdict == EXACT else ""))),
        gaps=by_iteration(flat[:, k, GAP]) if flat.size else np.zeros(0),
        reaches=by_iteration(flat[:, 0, REACH]) if flat.size else np.zeros(0),
        series=o.series,
        kink=o.kink,
        inner=tuple(o.inner),
        place=place.index,
    )


def _unused(place: Place) -> str:
    """What is not said of a rule of several outputs, where the program uses some."""
    outs = enumerate(zip(place.eqn.outvars, place.live, strict=True))
    dead = [str(k) for k, (v, live) in outs if is_float(v.aval) and not live]
    if not dead or place.library or place.marked or place.kind == "equation":
        return ""
    many = f"outputs {', '.join(dead)} are" if len(dead) > 1 else f"output {dead[0]} is"
    return f"{many} not used here: what the rule does with a costate there is untested"


def innermost(rows: Sequence[Row]) -> Row | None:
    """The innermost row of the worst."""
    if not rows:
        return None
    worst = min(rows, key=lambda r: (ORDER.index(r.verdict), -r.gap))
    return innermost(worst.inner) or worst


def _dtype(program: Program, place: Place) -> str:
    trial: Any = program.trials.get(place.index)
    found = trial.arithmetic if trial is not None else None
    if found is None:
        dtypes = [v.aval.dtype for v in (*place.eqn.invars, *place.eqn.outvars) if is_float(v.aval)]
        found = max(dtypes, key=eps_of, default=None)
    return "" if found is None else np.dtype(found).name

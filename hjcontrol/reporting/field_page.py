"""One Hamilton-Jacobi problem as a record: residuals, facts, pictures."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from hjcontrol._ground.record import Picture, Quantity, Record, Value, figure
from hjcontrol.reporting import fields
from hjcontrol.reporting.html import shown_below
from hjcontrol.reporting.page import provenance

SAID = {
    "exact": "The layer solves its Hamilton-Jacobi equation: what is left of it is roundoff, {}.",
    "refuted": "The layer does not solve its Hamilton-Jacobi equation: {} is left of it.",
}


def field_record(
    view: fields.View,
    *,
    rows: Sequence[Mapping[str, Value]],
    tables: Mapping[str, Mapping[str, Any]],
    residual: float,
    notes: Sequence[str] = (),
    title: str = "A Hamilton-Jacobi problem",
    verdict: str,
    command: str | None = None,
) -> Record:
    """What is known of `u(., t)`, with its pictures.

    `rows`: residuals, one normalisation a row; `residual`: the relative one that the verdict is about.
    `tables`: caption to rows `name: value`.
    """
    spelt = lambda cells: {name.replace("_", " "): value for name, value in cells.items()}
    left = Quantity(residual, 2)
    facts = {"relative residual": left, "t": view.t, "eps": view.eps}
    pictures = field_pictures(view)
    return Record(
        title,
        SAID.get(verdict, "What is left of the equation: {}.").format(left),
        verdict,
        "good" if verdict == "exact" else "bad" if verdict == "refuted" else "partial",
        facts,
        tuple(facts),
        pictures=pictures[:1],
        notes=notes,
        detail=(
            Record("Residual of u_t + |∇u|² = ε Δu", "by normalisation", rows={"": rows}),
            *map(shown_below, pictures[1:]),
            *(Record(caption, "", facts=spelt(cells)) for caption, cells in tables.items()),
        ),
        provenance=provenance(command, view.u.dtype),
    )


def field_pictures(view: fields.View) -> list[Picture]:
    """The solution, its gradient, its power cells, and the characteristics where they lie in the view."""
    where = f"t = {figure(view.t)}, eps = {figure(view.eps)}"
    span = f"from {figure(float(view.u.min()))} to {figure(float(view.u.max()))}"
    slope = figure(float(abs(view.gradient).max()))
    jumps = ". As eps falls, it jumps where cells meet." if view.dimension == 1 else "."
    shown = [
        Picture(f"u at {where}.", f"the solution u, {span}", partial(fields.solution, view)),
        Picture(
            f"Its gradient{jumps}",
            f"the gradient of u, components up to {slope}",
            partial(fields.gradient, view),
        ),
        Picture(
            f"Power cells: each colour is where one atom wins ({view.winners} do here); pale where none "
            "has nine tenths of the Gibbs weight.",
            f"power cells of {view.winners} atoms",
            partial(fields.cells, view),
        ),
    ]
    if view.atoms is None:
        return shown
    return [
        *shown,
        Picture(
            "Characteristics, straight from each atom at time 0 to the points of its cell at time t.",
            "straight lines from the atoms to their cells",
            partial(fields.characteristics, view),
        ),
    ]

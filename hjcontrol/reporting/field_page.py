"""The report of one Hamilton-Jacobi problem: residuals, facts, pictures; one self-contained HTML file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hjcontrol._ground.files import write_atomically
from hjcontrol.reporting import fields
from hjcontrol.reporting.page import _cells, _environment, _picture, _text
from hjcontrol.reporting.tables import figure


def field_report(
    path: str | Path,
    view: fields.View,
    *,
    rows: Sequence[Mapping[str, str]],
    tables: Mapping[str, Mapping[str, Any]],
    notes: Sequence[str] = (),
    title: str = "A Hamilton-Jacobi problem",
    verdict: str,
    command: str | None = None,
) -> Path:
    """Write what is known of `u(., t)` to `path`; the file appears whole or not at all.

    `rows`: residuals, one normalisation a row. `tables`: caption to rows `name: value`.

    **Returns:** `path`. **Raises:** `OSError` if the file cannot be written.
    """
    page = _environment().from_string(_text("field.html.j2"))
    html = page.render(
        style=_text("report.css"),
        title=title,
        verdict=verdict,
        command=command,
        rows=rows,
        notes=notes,
        tables={caption: _cells(cells) for caption, cells in tables.items()},
        pictures=_pictures(view),
    )
    return write_atomically(path, html)


def _pictures(view: fields.View) -> list[dict[str, Any]]:
    where = f"t = {figure(view.t)}, eps = {figure(view.eps)}"
    span = f"from {figure(float(view.u.min()))} to {figure(float(view.u.max()))}"
    slope = figure(float(abs(view.gradient).max()))
    shown = [
        _picture(lambda: fields.solution(view), f"u at {where}.", f"the solution u, {span}"),
        _picture(
            lambda: fields.gradient(view),
            "Its gradient"
            + (". As eps falls, it jumps where cells meet." if view.dimension == 1 else "."),
            f"the gradient of u, components up to {slope}",
        ),
        _picture(
            lambda: fields.cells(view),
            f"Power cells: each colour is where one atom wins ({view.winners} do here); pale where none "
            "has nine tenths of the Gibbs weight.",
            f"power cells of {view.winners} atoms",
        ),
    ]
    if view.atoms is not None:
        shown.append(
            _picture(
                lambda: fields.characteristics(view),
                "Characteristics, straight from each atom at time 0 to the points of its cell at time t.",
                "straight lines from the atoms to their cells",
            )
        )
    return shown

"""The claims as one self-contained HTML file."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hjcontrol._ground.files import write_atomically
from hjcontrol.reporting.page import _environment, _picture, _text
from hjcontrol.reproduction.claims_plots import claim_curves
from hjcontrol.reproduction.claims_rows import SHADE, claim_rows, control_rows, finding_rows


def claims_page(
    path: str | Path,
    entries: Sequence[Mapping[str, Any]],
    pictures: Mapping[str, Any],
    *,
    title: str = "Which claims of the theory hold",
    command: str | None = None,
    notice: str | None = None,
) -> Path:
    """Write the audited claims to `path`; the file appears whole or not at all.

    `entries`: `entry.summary()` of the audit's entries. `pictures`: id to curves.

    **Returns:** `path`. **Raises:** `OSError` if the file cannot be written.
    """
    counts = Counter(e["verdict"] for e in entries)
    html = (
        _environment()
        .from_string(_text("claims.html.j2", "hjcontrol.reproduction"))
        .render(
            style=_text("report.css"),
            title=title,
            command=command,
            notice=notice,
            counts={v: counts[v] for v in SHADE if counts[v]},
            shade=SHADE,
            sound=sum(e["sound"] for e in entries),
            rows=list(zip(entries, claim_rows(entries), strict=True)),
            claims=[
                dict(
                    e,
                    rows=finding_rows(e),
                    broken=control_rows(e),
                    picture=_drawn(e["title"], pictures.get(e["id"])),
                )
                for e in entries
            ],
        )
    )
    return write_atomically(path, html)


def _drawn(title: str, picture: Any) -> dict[str, Any] | None:
    if picture is None:
        return None
    names = "; ".join(picture.lines)
    alt = f"{title}: {picture.y_label} against {picture.x_label}; {names}"
    return _picture(claim_curves(picture), picture.caption, alt)

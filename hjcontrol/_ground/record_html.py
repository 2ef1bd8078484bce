"""A record as HTML without a script: a cell of a notebook, or the parts of a page.

Whatever a user named is escaped. Light and dark follow the reader's own setting.
"""

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from hjcontrol._ground.record import Mark, Picture, Quantity, Record, Value, figure

LIMIT = 30_000  # bytes of a notebook's cell
ROWS = (40, 10, 0)  # of a table, fewer until the cell is small enough
SPARK = (120, 28)

# The same variables colour a page (`hjcontrol/reporting/page.css`).
COLOURS = """
--ink: #1b1f24; --soft: #57606a; --line: #d8dee4; --paper: #ffffff; --raised: #f6f8fa;
--good: #116329; --good-back: #dafbe1; --partial: #7d4e00; --partial-back: #fff8c5;
--bad: #a40e26; --bad-back: #ffebe9; --plain: #424a53; --plain-back: #eaeef2;
"""
DARK = """
--ink: #e6edf3; --soft: #9da7b1; --line: #343b44; --paper: #0f1419; --raised: #1a2129;
--good: #7ee2a0; --good-back: #10391f; --partial: #f0cf6f; --partial-back: #3b2e05;
--bad: #ffa8a1; --bad-back: #4b1415; --plain: #c9d1d9; --plain-back: #2d333b;
"""
CELL = f"""
.hj {{ {COLOURS} color: var(--ink); font: 14px/1.45 system-ui, sans-serif; max-width: 56rem; }}
@media (prefers-color-scheme: dark) {{ .hj {{ {DARK} background: var(--paper); }} }}
.hj p {{ margin: .3rem 0; }}
.hj .verdict {{ border-radius: 1rem; padding: .05rem .6rem; font-size: .85em; }}
.hj .good {{ color: var(--good); background: var(--good-back); }}
.hj .partial {{ color: var(--partial); background: var(--partial-back); }}
.hj .bad {{ color: var(--bad); background: var(--bad-back); }}
.hj .plain {{ color: var(--plain); background: var(--plain-back); }}
.hj .scroll {{ overflow-x: auto; }}
.hj table {{ border-collapse: collapse; background: none; font: inherit; color: inherit; }}
.hj th, .hj td {{ padding: .15rem .6rem; text-align: left; border-bottom: 1px solid var(--line); }}
.hj .number {{ text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }}
.hj th {{ color: var(--soft); font-weight: 500; }} .hj svg {{ vertical-align: middle; }}
"""

Draw = Callable[[Picture], str]


def notebook(record: Record) -> str:
    """One cell: the headline, a sparkline, the facts; tables and what is below are folded."""
    cell = ""
    for rows in ROWS:
        body = facts(record.facts) + folded_tables(record, rows) + "".join(
            folded(part, rows) for part in record.detail
        )  # fmt: skip
        cell = (
            f'<div class="hj"><style>{CELL}</style><p><strong>{escape(record.title)}</strong> '
            f"{badge(record)} {spark(record.trace)}</p><p>{escape(record.headline)}</p>{body}</div>"
        )
        if len(cell.encode()) <= LIMIT:
            return cell
    return f'<div class="hj"><style>{CELL}</style><p>{escape(record.headline)[:2000]}</p></div>'


def folded(record: Record, rows: int, draw: Draw | None = None, level: int = 0) -> str:
    """A record that opens at a click; one that is bad stands open."""
    inside = content(record, rows, draw, level + 1)
    opened = " open" if record.tone == "bad" else ""
    name = f' id="{escape(record.provenance["id"])}"' if "id" in record.provenance else ""
    head = f"<strong>{escape(record.title)}</strong> {badge(record)}"
    if record.headline and record.headline != record.verdict:
        head += f' <span class="soft">{escape(record.headline)}</span>'
    return f"<details{opened}{name}><summary>{head}</summary>{inside}</details>"


def content(record: Record, rows: int, draw: Draw | None = None, level: int = 0) -> str:
    """Facts, pictures, tables, notes, and the records below."""
    shown = "".join(draw(picture) for picture in record.pictures) if draw else ""
    tables = "".join(table(r, caption, rows) for caption, r in record.rows.items())
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in record.notes)
    below = "".join(folded(part, rows, draw, level) for part in record.detail)
    return facts(record.facts) + shown + tables + notes + below


def folded_tables(record: Record, rows: int) -> str:
    """Each table under its caption, folded; then the notes."""
    found = "".join(
        f"<details><summary>{escape(caption or 'table')}</summary>{table(r, '', rows)}</details>"
        for caption, r in record.rows.items()
    )
    return found + "".join(f"<p>{escape(note)}</p>" for note in record.notes)


def badge(record: Record) -> str:
    """The verdict in its colour, which its word says too."""
    if record.verdict is None:
        return ""
    return f'<span class="verdict {record.tone}">{escape(record.verdict)}</span>'


def facts(named: Mapping[str, Value]) -> str:
    """Names and values, a line each."""
    if not named:
        return ""
    cells = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{cell(value)}</td></tr>'
        for name, value in named.items()
    )
    return f'<div class="scroll"><table class="facts"><tbody>{cells}</tbody></table></div>'


def table(rows: Sequence[Mapping[str, Value]], caption: str, limit: int) -> str:
    """A table that scrolls by itself where it is wider than the page."""
    if not rows or not limit:
        return ""
    names = list(rows[0])
    right = {n: all(_is_number(row[n]) for row in rows) for n in names}
    mark = lambda n: ' class="number"' if right[n] else ""
    head = "".join(f'<th scope="col"{mark(n)}>{escape(n)}</th>' for n in names)
    body = "".join(
        "<tr>" + "".join(f"<td{mark(n)}>{cell(row[n])}</td>" for n in names) + "</tr>"
        for row in rows[:limit]
    )
    more = f'<p class="soft">and {len(rows) - limit} more</p>' if len(rows) > limit else ""
    said = f"<caption>{escape(caption)}</caption>" if caption else ""
    return (
        f'<div class="scroll"><table>{said}<thead><tr>{head}</tr></thead><tbody>{body}</tbody>'
        f"</table></div>{more}"
    )


def cell(value: Value) -> str:
    """A value, escaped; a mark in its colour."""
    if isinstance(value, Mark):
        if value.tone == "plain":
            return escape(value.word)
        return f'<span class="verdict {value.tone}">{escape(value.word)}</span>'
    shown = figure(value, 2) if isinstance(value, float) else figure(value)
    return escape(shown.replace("-", "−") if _is_number(value) else shown)


def spark(values: Sequence[float]) -> str:
    """A run's numbers as a small line; logarithmic where all are positive."""
    found = np.asarray(values, float)
    found = found[np.isfinite(found)]
    if found.size < 2 or np.ptp(found) == 0:
        return ""
    found = np.log(found) if (found > 0).all() else found
    found = found[np.linspace(0, found.size - 1, min(found.size, 60)).astype(int)]
    width, height = SPARK
    x = np.linspace(2, width - 2, found.size)
    y = 3 + (height - 6) * (found.max() - found) / max(np.ptp(found), 1e-300)
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
    return (
        f'<svg width="{width}" height="{height}" role="img" aria-label="the run"><polyline fill="none" '
        f'stroke="currentColor" stroke-width="1.5" points="{points}"/></svg>'
    )


def _is_number(value: Any) -> bool:
    if isinstance(value, Quantity):
        return not isinstance(value.value, str)
    return value is None or (
        isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    )

"""Places of a certificate as rows of a table, and the lines of the user's file that they point at.

    gap      of the rule and the derivative, the worst costate of those tried       darker is better
    reach    largest costate of this cost that arrives                              0: a random one only
    live     share of elements with a derivative other than zero

Of a chain only those places are shown that are not exact, or that have a kink: its stages have a picture.
"""

import linecache
import os
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

import numpy as np

from hjcontrol.verification.certificate import Row, folded
from hjcontrol.verification.verdicts import EXACT, NO_RULE, UNTESTED, tone

ROWS, EXCERPTS = 200, 12  # shown of one certificate
AROUND = 3  # lines before and after the one that is marked
CELLS = 48  # of a strip, one or more iterations each
LONG = 200  # characters shown of a line


def shade(gap: float) -> str:
    """The colour of a gap: two powers of ten a step, from 1e-17 to 1e-3."""
    if np.isnan(gap):
        return "blank"
    power = np.log10(np.clip(gap, 1e-17, 1e-2))
    return f"shade{int(np.clip((power + 17) // 2, 0, 7))}"


def place_table(certificate: Any) -> dict[str, Any] | None:
    """Verdict, notes, rows and excerpts of one certificate; `None` if its routes say it all."""
    shown = list(certificate.rows)
    if certificate.pairs:
        shown = [r for r in shown if r.verdict not in (EXACT, NO_RULE) or r.kink]
        if not shown:
            return None
    groups = folded(shown)
    wrong = [g[0] for g in groups if g[0].verdict not in (EXACT, NO_RULE)]
    return {
        "verdict": certificate.verdict,
        "tone": tone(certificate.verdict),
        "notes": () if certificate.pairs else certificate.notes,
        "rows": [_cells(group) for group in groups[:ROWS]],
        "strips": any(g[0].gaps.size > 1 for g in groups[:ROWS]),
        "more": max(0, len(groups) - ROWS),
        "excerpts": excerpts(wrong),
    }


def _cells(group: Sequence[Row]) -> dict[str, Any]:
    row = group[0]  # the worst of those at one line
    count = len({r.place for r in group})
    # Where nothing was compared, zero is no agreement.
    silent = row.verdict == UNTESTED or (row.kind == "stop_gradient" and not row.gap)
    return {
        "verdict": row.verdict,
        "tone": tone(row.verdict),
        "gap": "–" if silent else _number(row.gap),
        "shade": "blank" if silent else shade(row.gap),
        "strip": _strip(row.gaps),
        "reach": "–" if row.reach is None else _number(row.reach),
        "unreached": row.reach == 0,
        "live": "–" if row.live is None else f"{row.live:.2f}",
        "dead": row.live == 0,
        "rule": row.rule,
        "where": row.where if row.file else "?",
        "at": _at(row) + (f" ({count} places)" if count > 1 else ""),
        "arithmetic": row.arithmetic,
        "reason": row.reason,
        "kink": row.kink,
    }


def _at(row: Row) -> str:
    """Stage of a chain and its tensor, iteration, argument, element."""
    stage = "" if row.stage is None else " ".join((f"stage {row.stage}", row.tensor)).rstrip()
    return ", ".join(part for part in (stage, row.location) if part)


def _number(value: float) -> str:
    return "0" if value == 0 else f"{value:.1e}".replace("-", "−")


def _strip(gaps: np.ndarray) -> dict[str, Any] | None:
    """The gap of every iteration of the scans around a place; of neighbours the larger."""
    values = np.asarray(gaps, float)
    if values.size < 2:
        return None
    at = np.unravel_index(int(np.argmax(np.nan_to_num(values, nan=-1.0))), values.shape)
    where = ", ".join(str(int(i)) for i in at)
    parts = np.array_split(values.ravel(), min(CELLS, values.size))
    return {
        "shades": [shade(np.nan if np.isnan(p).all() else np.nanmax(p)) for p in parts],
        "words": f"{values.size} iterations, the largest gap {_number(float(values[at]))} at {where}",
    }


def excerpts(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """The lines of each place, a few around it, one excerpt a line; without a file none."""
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for row in rows:
        if not row.file or len(found) >= EXCERPTS or (row.file, row.line) in found:
            continue
        found[row.file, row.line] = {
            "file": _short(row.file),
            "line": row.line,
            "rule": row.rule,
            "verdict": row.verdict,
            "tone": tone(row.verdict),
            "lines": _lines(row.file, row.line),
        }
    return list(found.values())


def _lines(file: str, line: int) -> list[dict[str, Any]]:
    """Numbers and texts; none if the file cannot be read any more."""
    linecache.checkcache(file)
    text = linecache.getlines(file)
    if not 1 <= line <= len(text):
        return []
    first = max(1, line - AROUND)
    return [
        {"number": k, "text": printable(text[k - 1]), "marked": k == line}
        for k in range(first, min(len(text), line + AROUND) + 1)
    ]


def printable(line: str) -> str:
    """A line of source as it is read: what cannot be printed, or turns the text around, is a mark."""
    text = "".join(
        c if c.isprintable() else " " if c.isspace() else "�" for c in line.expandtabs(4)
    )
    text = text.rstrip()
    return text if len(text) <= LONG else text[: LONG - 1] + "…"


def _short(file: str) -> str:
    """The path from the working folder if the file is in it."""
    here = os.path.join(os.getcwd(), "")
    return file.removeprefix(here)


MEANING = (
    "Gap: how far rule and derivative are apart, relative, for the costate that arrives and a random "
    "one; darker is better. Reach: the largest costate of this cost that arrives; at 0 the random one "
    "was alone. Live: share of elements with a derivative other than zero."
)
UNREACHED = "no costate from this cost: random costates only"
KINK = "a kink: the sum of such choices need not be a subgradient"


def places_html(table: dict[str, Any]) -> str:
    """What `place_table` gives, as markup: the heat map of gaps, then the lines that are wrong."""
    heads = ["verdict", "gap", *(["by iteration"] if table["strips"] else []), "reach", "live", "place",
             "arithmetic", "what was found"]  # fmt: skip
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    body = "".join(_row_html(row, table["strips"]) for row in table["rows"])
    notes = "".join(f'<p class="soft">{escape(note)}</p>' for note in table["notes"])
    grid = (
        f'<div class="scroll"><table class="places"><thead><tr>{head}</tr></thead><tbody>{body}</tbody>'
        f'</table></div><p class="soft">{MEANING}</p>'
    )
    more = f'<p class="soft">and {table["more"]} more, in the certificate\'s rows.</p>'
    lines = "".join(_excerpt_html(part) for part in table["excerpts"])
    return notes + (grid if table["rows"] else "") + (more if table["more"] else "") + lines


def _badge(part: dict[str, Any]) -> str:
    return f'<span class="verdict {part["tone"]}">{escape(part["verdict"])}</span>'


def _row_html(row: dict[str, Any], strips: bool) -> str:
    strip = ""
    if strips:
        shown = row["strip"]
        turns = "" if shown is None else "".join(f'<i class="{s}"></i>' for s in shown["shades"])
        words = "" if shown is None else escape(shown["words"])
        bar = f'<span class="strip" role="img" aria-label="{words}" title="{words}">{turns}</span>'
        strip = f"<td>{bar if shown else ''}</td>"
    said = [row["reason"], UNREACHED if row["unreached"] else "", KINK if row["kink"] else ""]
    at = f'<div class="soft">{escape(row["at"])}</div>' if row["at"] else ""
    none = lambda odd: ' class="none"' if odd else ""
    return (
        f'<tr><th scope="row">{_badge(row)}</th><td class="heat {row["shade"]}">{row["gap"]}</td>{strip}'
        f"<td{none(row['unreached'])}>{row['reach']}</td><td{none(row['dead'])}>{row['live']}</td>"
        f'<td class="place"><code>{escape(row["rule"])}</code> {escape(row["where"])}{at}</td>'
        f'<td class="soft">{escape(row["arithmetic"])}</td>'
        f'<td class="reason soft">{escape("; ".join(s for s in said if s))}</td></tr>\n'
    )


def _excerpt_html(part: dict[str, Any]) -> str:
    lines = ""
    for line in part["lines"]:
        mark = " ▸" if line["marked"] else "  "
        text = f'<span class="number">{line["number"]}{mark}</span> {escape(line["text"])}'
        lines += (f"<mark>{text}</mark>" if line["marked"] else text) + "\n"
    gone = '<p class="missing">The file cannot be read any more, or has no such line.</p>'
    caption = (
        f"{_badge(part)} <code>{escape(part['rule'])}</code> {escape(part['file'])}:{part['line']}"
    )
    shown = f"<pre>{lines}</pre>" if lines else gone
    return f'<figure class="source"><figcaption>{caption}</figcaption>{shown}</figure>'

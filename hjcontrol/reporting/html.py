"""Any record as one HTML file that needs nothing beside itself. It leads with the answer.

    a sentence, three numbers, a picture        then everything else, folded; then where it comes from

No script. Dark where the reader's system is dark. Pictures are inside the page, in the text's own colour.
"""

import re
from collections.abc import Iterator
from html import escape
from importlib import resources
from itertools import count
from pathlib import Path

from hjcontrol._ground import record_html
from hjcontrol._ground.files import write_atomically
from hjcontrol._ground.record import Picture, Record, figure
from hjcontrol.reporting.plots import Svg, svg

ROWS = 400  # shown of a table
LEAST = 0.65  # of a picture's width: its letters can still be read
HEAD = """<!doctype html>
<html lang="en-GB">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>
:root {{ {light} }}
@media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}
{style}
</style>
</head>
<body>
"""


def write_page(path: str | Path, record: Record, notice: str | None = None) -> Path:
    """Write the record to `path`; the file appears whole or not at all.

    `notice`: what is to be read in place of the headline, an interruption.

    **Returns:** `path`. **Raises:** `OSError` if the file cannot be written.
    """
    return write_atomically(path, page(record, notice))


def page(record: Record, notice: str | None = None) -> str:
    """The page as text."""
    numbers = count(1)
    draw = lambda picture: drawn(picture, numbers)
    style = resources.files("hjcontrol.reporting").joinpath("page.css").read_text(encoding="utf-8")
    sentence = record.headline if notice is None else notice
    marked = "answer notice" if notice is not None or record.tone == "bad" else "answer"
    return "\n".join(
        [
            HEAD.format(
                title=escape(record.title),
                light=record_html.COLOURS,
                dark=record_html.DARK,
                style=style,
            )
            + f'<header>\n<div class="title"><h1>{escape(record.title)}</h1>'
            f"{record_html.badge(record)}</div>",
            f'<p class="{marked}">{escape(sentence)}</p>' if sentence else "",
            _numbers(record),
            *(draw(picture) for picture in record.pictures[:1]),
            "</header>\n<main>",
            _rest(record, draw),
            "</main>",
            _provenance(record),
            "</body>\n</html>\n",
        ]
    )


def shown_below(picture: Picture) -> Record:
    """A picture that opens at a click, under the first clause of its caption."""
    return Record(re.split(r"[.:](?: |$)", picture.caption)[0], "", pictures=(picture,))


def _numbers(record: Record) -> str:
    """The facts that lead, large."""
    found = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(figure(record.facts[name]))}</dd></div>"
        for name in record.lead
        if record.facts.get(name) is not None
    )
    return f'<dl class="numbers">{found}</dl>' if found else ""


def _rest(record: Record, draw: record_html.Draw) -> str:
    """Further pictures, facts and tables of the record, then the records below, each folded."""
    own = [shown_below(picture) for picture in record.pictures[1:]]
    own += [Record(caption or "Table", "", rows={"": r}) for caption, r in record.rows.items()]
    plain = {k: v for k, v in record.facts.items() if k not in record.lead}
    own += [Record("In numbers", "", facts=plain)] if plain else []
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in record.notes)
    parts = [*record.detail, *own]
    return notes + "\n".join(record_html.folded(part, ROWS, draw) for part in parts)


def _provenance(record: Record) -> str:
    told = {k: v for k, v in record.provenance.items() if k not in ("command", "id")}
    line = ", ".join(f"{k} {v}" if k != "date" else v for k, v in told.items())
    command = record.provenance.get("command")
    shown = f"<pre>{escape(command)}</pre>" if command else ""
    return f"<footer>{escape(line)}{shown}</footer>" if line or shown else ""


def drawn(picture: Picture, numbers: Iterator[int]) -> str:
    """A figure. One that cannot be drawn leaves its place, with the reason."""
    try:
        made = picture.draw()
        if isinstance(made, str) and not isinstance(made, Svg):
            return made
        text = made if isinstance(made, Svg) else svg(made)
        image = inline(text, f"f{next(numbers)}-", picture.alt)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"[:300]
        image = f'<p class="missing">This picture could not be drawn: {escape(reason)}</p>'
    return f"<figure>{image}<figcaption>{escape(picture.caption)}</figcaption></figure>"


def inline(image: str, prefix: str, alt: str) -> str:
    """An SVG within a page: its names begin with `prefix`, so that no two pictures share one; its style
    says how narrow a screen may make it before it scrolls."""
    image = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}\1"', image)
    image = re.sub(r'(url\(#|href="#)', rf"\1{prefix}", image)
    width = re.search(r'<svg [^>]*?width="([\d.]+)pt"', image)
    least = f'style="--least: {LEAST * float(width[1]):.0f}pt" ' if width else ""
    return image.replace("<svg ", f'<svg role="img" aria-label="{escape(alt)}" {least}', 1)

"""A record as Markdown."""

from collections.abc import Mapping, Sequence

from hjcontrol._ground.record import Record, Value, figure


def markdown(record: Record, level: int = 1) -> str:
    """The record as text: title, headline, facts, tables, notes, and the records below. No pictures."""
    return "\n".join(_lines(record, level)) + "\n"


def _lines(record: Record, level: int) -> list[str]:
    verdict = f" · **{record.verdict}**" if record.verdict else ""
    found = [f"{'#' * level} {record.title}", "", f"{record.headline}{verdict}", ""]
    if record.facts:
        found += [*table([{"": k, " ": v} for k, v in record.facts.items()]), ""]
    for caption, rows in record.rows.items():
        found += [*([caption, ""] if caption else []), *table(rows), ""]
    for note in record.notes:
        found += [note, ""]
    for part in record.detail:
        found += _lines(part, level + 1)
    return found


def fact(name: str, words: str) -> list[str]:
    """A paragraph that begins with a name; `name` closes its own emphasis."""
    return [f"*{name} {words}", ""]


def cell(text: str) -> str:
    """Text that stays within its cell of a table."""
    return text.replace("|", "\\|")


def table(rows: Sequence[Mapping[str, Value]], escaped: bool = False) -> list[str]:
    """Rows of equal keys as lines. `escaped`: cells that are Markdown already."""
    if not rows:
        return []
    shown = [[figure(v) if escaped else cell(figure(v)) for v in row.values()] for row in rows]
    return [
        "| " + " | ".join(rows[0]) + " |",
        "|---" * len(rows[0]) + "|",
        *("| " + " | ".join(row) + " |" for row in shown),
    ]

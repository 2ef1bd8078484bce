"""A record as lines of at most 80 columns: headline, facts, tables, notes, the records below."""

import textwrap
from collections.abc import Mapping, Sequence

from hjcontrol._ground.record import Mark, Record, Value, figure

COLUMNS, ROWS = 80, 12
LEAST, WRAPPED = 8, 24  # characters that a cut column keeps, and a wrapped one


def text(record: Record, columns: int = COLUMNS) -> str:
    """The record for a terminal."""
    return "\n".join(lines(record, columns))


def lines(record: Record, columns: int = COLUMNS) -> list[str]:
    """The same, one string per line."""
    head = f"{record.title}: {record.headline}" if record.headline else record.title
    found = _wrapped(head, columns, "", "  ")
    found += facts(record.facts, columns)
    for caption, rows in record.rows.items():
        found += ["  " + caption] if caption else []
        found += table(rows, columns)
    for note in record.notes:
        found += _wrapped(note, columns, "  ", "  ")
    for part in record.detail:
        found += ["  " + line if line else "" for line in lines(part, columns - 2)]
    return found


def facts(named: Mapping[str, Value], columns: int = COLUMNS) -> list[str]:
    """One fact per line, names and values aligned."""
    width = max((len(name) for name in named), default=0)
    found: list[str] = []
    for name, value in named.items():
        first = f"  {name:<{width}}  "
        found += _wrapped(figure(value), columns, first, " " * len(first))
    return found


def table(rows: Sequence[Mapping[str, Value]], columns: int = COLUMNS) -> list[str]:
    """Rows of equal keys. Numbers stand right, words left; words in the last column are wrapped, and the
    widest column of words before it is cut where the table would not fit. Numbers are never cut."""
    if not rows:
        return []
    names = list(rows[0])
    shown = rows if len(rows) <= ROWS + 1 else rows[:ROWS]
    cells = [[_shown(row[name]) for name in names] for row in shown]
    words = [all(isinstance(row[name], (str, Mark)) for row in shown) for name in names]
    grid = [names, *cells]
    widths = [max(len(row[j]) for row in grid) for j in range(len(names))]
    room = lambda: columns - sum(widths) - 2 * len(widths)
    while room() < 0:
        wide = [j for j in range(len(widths)) if words[j] and widths[j] > LEAST]
        if not wide:
            break
        last = len(widths) - 1
        j = last if last in wide and widths[last] > WRAPPED else max(wide, key=widths.__getitem__)
        widths[j] -= 1
    if room() < 0 and len(names) > 2:  # numbers are not cut: columns that are left go below
        return [*_continued(shown, names, widths, columns), *_more(rows, shown)]
    found = []
    for row in grid:
        pairs = list(zip(row, widths, words, strict=True))
        *parts, last = [_fit(c, w, left) for c, w, left in pairs[:-1]] + [row[-1]]
        ends = (
            textwrap.wrap(last, max(widths[-1], LEAST)) if words[-1] else [f"{last:>{widths[-1]}}"]
        )
        first = "  " + "".join(f"{part}  " for part in parts)
        found.append((first + (ends[0] if ends else "")).rstrip())
        found += [" " * len(first) + end for end in ends[1:]]
    return [*found, *_more(rows, shown)]


def _continued(
    rows: Sequence[Mapping[str, Value]], names: list[str], widths: list[int], columns: int
) -> list[str]:
    """Two tables, of the columns that fit, and of the others behind those that tell the rows apart."""
    fit = max(k for k in range(2, len(names)) if k == 2 or sum(widths[:k]) + 2 * k <= columns)
    apart = lambda k: len({tuple(_shown(row[name]) for name in names[:k]) for row in rows})
    key = next((k for k in range(1, fit) if apart(k) == len(rows)), 1)
    part = lambda kept: table([{name: row[name] for name in kept} for row in rows], columns)
    return [*part(names[:fit]), *part([*names[:key], *names[fit:]])]


def _more(rows: Sequence[object], shown: Sequence[object]) -> list[str]:
    left = len(rows) - len(shown)
    return [f"  and {left} more"] if left else []


def _shown(value: Value) -> str:
    return figure(value, 2) if isinstance(value, float) else figure(value)


def _fit(cell: str, width: int, left: bool) -> str:
    cell = cell if len(cell) <= width else cell[: width - 1] + "…"
    return f"{cell:<{width}}" if left else f"{cell:>{width}}"


def _wrapped(words: str, columns: int, first: str, rest: str) -> list[str]:
    """Wrapped at spaces; a path or an expression is never broken."""
    return textwrap.wrap(
        words,
        columns,
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    ) or [first.rstrip()]

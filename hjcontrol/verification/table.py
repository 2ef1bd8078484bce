"""A certificate's rows as lines of text: equal places folded, the worst first."""

import dataclasses
from collections.abc import Iterable
from typing import Any

from hjcontrol.verification.verdicts import EXACT, ORDER, UNTESTED


def severity(row: Any) -> tuple[int, float]:
    """Sorts the worst row first."""
    return ORDER.index(row.verdict), -row.gap


def folded(rows: Iterable[Any]) -> list[list[Any]]:
    """Rows of one rule at one line together, the worst first."""
    found: dict[Any, list[Any]] = {}
    for row in rows:
        key = (row.rule, row.file, row.line, row.source.scope, row.verdict, row.tensor)
        found.setdefault(key, []).append(row)
    each = [sorted(group, key=severity) for group in found.values()]
    return sorted(each, key=lambda group: severity(group[0]))


def told(rows: list[Any]) -> list[str]:
    """One line of the table, and its reason on the next."""
    row = rows[0]
    gap = "-" if not row.gap and row.kind == "stop_gradient" else f"{row.gap:.1e}"
    reach = "-" if row.reach is None else f"{row.reach:.0e}"
    live = "-" if row.live is None else f"{row.live:.2f}"
    places = len({r.place for r in rows})
    many = [f"{places} places"] if places > 1 else []
    turns = row.gaps.size
    if turns > 1 and row.verdict == EXACT:
        many.append(f"{turns} iterations")
    where = "" if row.verdict == EXACT else f"  {row.location}"
    tail = f"   ({', '.join(many)})" if many else ""
    scope = f" [{row.scope}]" if row.scope else ""
    line = (
        f"  {row.verdict:<11}{gap:<9}{reach:<7}{live:<6}{row.rule}  "
        f"{_place(row)}{scope}{where}{tail}"
    )
    reason = row.reason
    if row.reach == 0 and row.kind != "stop_gradient" and row.verdict != UNTESTED:
        reason = "; ".join(
            x for x in (reason, "no costate from this cost: random costates only") if x
        )
    return [line.rstrip(), *([f"{'':13}{reason}"] if reason else [])]


def _place(row: Any) -> str:
    source = dataclasses.replace(row.source, scope="")
    return str(source) if row.file else "?"


def count(n: int, one: str, many: str, before: str = "") -> str:
    """A number with its noun."""
    return f"{before}{n} {one if n == 1 else many}"

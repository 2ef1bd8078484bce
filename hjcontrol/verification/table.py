"""A certificate's rows as lines of text: equal places folded, the worst first."""

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np

from hjcontrol._ground.record import Mark, Quantity, Record, figure
from hjcontrol.verification.verdicts import EXACT, ORDER, REFUTED, UNTESTED, tone


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


def certificate_record(certificate: Any) -> Record:
    """The certificate as a record: the sentence, the routes of a chain, the optimality below."""
    found, q = certificate, certificate.problem
    gaps = list(found.agreement.values()) or [p.disagreement for p in found.pairs]
    gaps += [row.gap for row in found.rows if not found.pairs]
    gap = max(gaps, default=None)
    facts: dict[str, Any] = {"worst disagreement": None if gap is None else Quantity(gap, 2)}
    if found.pairs:
        facts["stationarity"] = Quantity(found.stationarity, 3)
        facts["feasibility"] = Quantity(found.feasibility, 3)
        facts["problem"] = (
            f"{q['samples']} samples, {q['stages']} stages, {q['weights']} weights, {q['dtype']}"
        )
    else:
        facts["places"] = q["places"]
        facts |= {"cost": Quantity(found.cost, 4)} if found.gradient is not None else {}
        facts["problem"] = f"{count(q['leaves'], 'leaf', 'leaves', 'gradient ')}, {q['dtype']}"
    facts |= {"exact means": f"<= {found.tol:.0e}"} if found.pairs else {}
    routes = [
        {
            "routes": pair.name.replace("|", " | "),
            "states": _largest(pair.states),
            "weights": _largest(pair.weights),
            "verdict": Mark(pair.verdict, tone(pair.verdict)),
            "worst at": str(pair.worst or ""),
        }
        for pair in found.pairs
    ]
    return Record(
        "Backward pass",
        _sentence(found, gap),
        verdict=found.verdict,
        tone=tone(found.verdict),
        facts=facts,
        lead=tuple(facts)[:3],
        rows={"Disagreement of the routes": routes} if routes else {},
        notes=tuple(found.notes),
        detail=() if found.optimality is None else (found.optimality.as_record(),),
    )


def _largest(values: Any) -> Quantity:
    found = np.asarray([] if values is None else values, float)
    known = found[~np.isnan(found)]
    return Quantity(float(known.max()) if known.size else None, 2)


def _sentence(found: Any, gap: float | None) -> str:
    far, worst = figure(gap, 2), found.worst
    if found.verdict == REFUTED:
        where = f" at {worst}" if worst is not None else ""
        return f"The backward pass is wrong{where}: it is off by {far}, relative."
    if tone(found.verdict) == "good":
        if found.pairs:
            return f"All routes to the costate agree to {far}."
        if not found.rows:
            return "The program has no custom rule, so its backward pass is JAX's own."
        return f"Every custom rule agrees with its function to {far}, or differs as declared."
    return f"The backward pass is not refuted, and not all of it was shown: {found.verdict}."

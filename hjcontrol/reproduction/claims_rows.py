"""Rows of the claims' tables, for the terminal, the page and the docs. Entries are plain data."""

from collections.abc import Mapping, Sequence
from typing import Any

from hjcontrol.reporting.tables import figure

SHADE = {
    "holds exactly": "exact",
    "holds within its bound": "exact",
    "holds once amended": "consistent",
    "heuristic": "consistent",
    "fails as stated": "refuted",
}
Entry = Mapping[str, Any]


def claim_rows(entries: Sequence[Entry]) -> list[dict[str, str]]:
    """One row a claim: what it is decided by."""
    rows = []
    for e in entries:
        f = _headline(e)
        rows.append({
            "claim": e["id"],
            "decided by": f["name"],
            "published": f["published"] or "–",
            "expected": expected(f),
            "ours": numbers(f["ours"]),
            "tolerance": figure(float(f["tolerance"]), 1),
            "verdict": e["verdict"],
            "control": "failed" if _control_failed(e) else "did NOT fail",
        })  # fmt: skip
    return rows


def finding_rows(entry: Entry) -> list[dict[str, str]]:
    """One row a finding of one claim."""
    return [
        {
            "quantity": f["name"],
            "role": f["role"],
            "published": f["published"] or "–",
            "expected": expected(f),
            "ours": numbers(f["ours"]),
            "tolerance": figure(float(f["tolerance"]), 1),
            "holds": "yes" if f["holds"] else "no",
        }
        for f in entry["findings"]
    ]


def control_rows(entry: Entry) -> list[dict[str, str]]:
    """One row a finding of the claim's control."""
    return [
        {
            "quantity": f["name"],
            "expected": expected(f),
            "with the fault": numbers(f["ours"]),
            "holds": "yes" if f["holds"] else "no",
        }
        for f in entry["control"]["findings"]
    ]


def expected(finding: Mapping[str, Any]) -> str:
    """What was expected, with its sign; one number where all are equal."""
    values = finding["expected"]
    same = len(set(values)) == 1
    sign = {"=": "", "<=": "≤ ", ">=": "≥ "}[finding["relation"]]
    return sign + numbers(values[:1] if same else values)


def numbers(values: Sequence[float]) -> str:
    """Up to six numbers, and how many more."""
    shown = ", ".join(figure(float(v), 5) for v in values[:6])
    return shown + (f" and {len(values) - 6} more" if len(values) > 6 else "")


def _headline(entry: Entry) -> Mapping[str, Any]:
    """The counterexample where it decides, else a published number, else the first finding."""
    findings = entry["findings"]
    if entry["verdict"] in ("fails as stated", "heuristic"):
        return next(f for f in findings if f["role"] == "stated" and not f["holds"])
    if entry["verdict"] == "holds once amended":
        return next(f for f in findings if f["role"] == "amended")
    told = [f for f in findings if f["role"] == "stated" and f["published"]]
    return told[0] if told else findings[0]


def _control_failed(entry: Entry) -> bool:
    broken = entry["control"]["findings"]
    return bool(broken) and not any(f["holds"] for f in broken)

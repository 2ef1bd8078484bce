"""The ledger: every claim of the theory, its check, its negative control, and the verdict that
follows."""

from hjcontrol.ledger.audit import Entry, audit
from hjcontrol.ledger.claim import VERDICTS, Claim, Evidence, Picture, evidence
from hjcontrol.ledger.finding import Finding, at_least, at_most, equal, zero
from hjcontrol.ledger.registry import CLAIMS, by_id

__all__ = [
    "CLAIMS",
    "VERDICTS",
    "Claim",
    "Entry",
    "Evidence",
    "Finding",
    "Picture",
    "at_least",
    "at_most",
    "audit",
    "by_id",
    "equal",
    "evidence",
    "zero",
]

"""Reproduction: every claim of the theory, its check, its negative control, and the verdict that
follows."""

from hjcontrol.reproduction.audit import Entry, audit
from hjcontrol.reproduction.claim import VERDICTS, Claim, Evidence, Picture, evidence
from hjcontrol.reproduction.finding import Finding, at_least, at_most, equal, zero
from hjcontrol.reproduction.registry import CLAIMS, by_id

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

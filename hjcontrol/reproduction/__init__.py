"""Reproduction: every claim of the theory, its check, its negative control, and the verdict that
follows."""

from typing import TYPE_CHECKING

from hjcontrol._ground.lazy import lazily
from hjcontrol.reproduction.auditing import Entry, audit
from hjcontrol.reproduction.claim import VERDICTS, Claim, Evidence, Picture, evidence
from hjcontrol.reproduction.finding import Measurement, at_least, at_most, equal, zero
from hjcontrol.reproduction.registry import CLAIMS, by_id

__all__ = [
    "CLAIMS",
    "VERDICTS",
    "Claim",
    "Entry",
    "Evidence",
    "Measurement",
    "Picture",
    "at_least",
    "at_most",
    "audit",
    "by_id",
    "equal",
    "evidence",
    "zero",
]

if not TYPE_CHECKING:  # old names, for one release
    __getattr__, _ = lazily(__name__, renamed={"Finding": ":Measurement"})

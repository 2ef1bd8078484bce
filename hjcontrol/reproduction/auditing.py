r"""The audit: every claim checked, every control seen to fail, the verdict compared with the record.

    sound  =  verdict is the recorded one,  every amended, instead and number finding holds,
              every stated finding has a control, and each finding of the control comes out the
              other way

Runs in 64-bit floats whatever the caller's precision is: the tolerances are those of 64 bits.
"""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from hjcontrol.reproduction.claim import Claim, Evidence, Verdict, counterexample, verdict
from hjcontrol.reproduction.finding import Measurement


@dataclass(frozen=True, eq=False)
class Entry:
    """A claim with its evidence."""

    claim: Claim
    evidence: Evidence
    control: Evidence
    seconds: float

    @property
    def verdict(self) -> Verdict:
        """Computed from the findings."""
        return verdict(self.evidence.findings, self.claim.rule)

    @property
    def counterexample(self) -> str | None:
        """The numbers that refute the sentence as it was stated; `None` if it stands."""
        return counterexample(self.evidence.findings)

    @property
    def faults(self) -> tuple[str, ...]:
        """Why this entry is unsound, one sentence each."""
        return (*self.faults_of_check, *self._faults_of_control())

    @property
    def faults_of_check(self) -> tuple[str, ...]:
        """Those that the check shows without its control."""
        said = []
        if self.verdict != self.claim.recorded:
            said.append(f"the verdict is {self.verdict!r}, on record is {self.claim.recorded!r}")
        for f in self.evidence.findings:
            if f.role != "stated" and not f.holds:
                said.append(f"{f.name}: {_numbers(f)}")
        return tuple(said)

    def _faults_of_control(self) -> tuple[str, ...]:
        said = []
        held = {f.name: f.holds for f in self.evidence.findings}
        if not self.control.findings:
            said.append("the control measures nothing")
        for f in self.control.findings:
            if f.name not in held:
                said.append(f"control, {f.name}: no finding of the check has this name")
            elif f.holds == held[f.name]:
                same = "holds all the same" if f.holds else "fails all the same"
                said.append(f"control, {f.name}: {same} although {self.claim.fault}")
        tried = {f.name for f in self.control.findings}
        for f in self.evidence.findings:
            if f.role == "stated" and f.name not in tried:
                said.append(f"{f.name}: stated, and no control tries it")
        return tuple(said)

    @property
    def sound(self) -> bool:
        """Whether the claim came out as recorded and its control turned what it tries."""
        return not self.faults

    def summary(self) -> dict[str, Any]:
        """The entry in types that JSON has."""
        c = self.claim
        return {
            "id": c.id,
            "title": c.title,
            "source": c.source,
            "published": c.published,
            "precise": c.precise,
            "verdict": self.verdict,
            "counterexample": self.counterexample if self.verdict == "fails as stated" else None,
            "sound": self.sound,
            "faults": list(self.faults),
            "findings": [_row(f) for f in self.evidence.findings],
            "control": {"fault": c.fault, "findings": [_row(f) for f in self.control.findings]},
            "seconds": self.seconds,
        }


def audit(claims: Iterable[Claim], *, fast: bool = False) -> Iterator[Entry]:
    """Check the claims one after another, each with its control.

    **Arguments:** `claims`, such as `hj.reproduction.CLAIMS`; `fast` leaves out what takes longer than
    seconds.

    **Returns:** an iterator, so that what is finished is kept when the rest is interrupted.
    """
    import jax

    for claim in claims:
        began = time.perf_counter()
        with jax.enable_x64(True):
            found, broken = claim.check(fast), claim.control(fast)
        yield Entry(claim, found, broken, time.perf_counter() - began)


def _numbers(f: Measurement) -> str:
    k = f.worst
    return f"{f.ours[k]:.6g}, not {f.relation} {f.expected[k]:.6g} to {f.tol:.1e}"


def turned(summary: dict[str, Any]) -> int:
    """How many findings of an entry's control came out the other way."""
    held = {f["name"]: f["holds"] for f in summary["findings"]}
    return sum(
        f["holds"] != held.get(f["name"], f["holds"]) for f in summary["control"]["findings"]
    )


def _row(f: Measurement) -> dict[str, Any]:
    return {
        "name": f.name,
        "role": f.role,
        "relation": f.relation,
        "ours": list(f.ours),
        "expected": list(f.expected),
        "tolerance": f.tol,
        "published": f.published,
        "holds": f.holds,
    }

"""Seven verdicts, and what a trial says of one argument of one place.

    exact        the rule is the derivative to roundoff, or lies in a kink's interval
    consistent   it agrees as far as can be told: the number says how far
    deliberate   it differs from the derivative, and was declared
    detached     a costate that is not roundoff is cut
    untested     no derivative was there to compare
    undefined    finite in, not finite out; or no one-sided slope exists
    refuted      none of these

For a whole program the worst place speaks, in the order of `ORDER`.
"""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any

from hjcontrol._ground.record import Tone

EXACT, CONSISTENT, DELIBERATE = "exact", "consistent", "deliberate"
DETACHED, UNTESTED, UNDEFINED, REFUTED = "detached", "untested", "undefined", "refuted"
NO_RULE = "no custom rule"
ROUGH = "roundoff is as large as the derivative: other inputs, or 64 bits, please"
ORDER = (REFUTED, UNDEFINED, UNTESTED, DETACHED, CONSISTENT, DELIBERATE, EXACT, NO_RULE)


@dataclasses.dataclass
class Outcome:
    """Of one argument: verdict, the number that a threshold sees, and the reason in words.

    `room`, `room_of_values`: the largest relative gaps of the image and of the values that roundoff
    explains, where it was measured.
    """

    verdict: str
    gap: float
    reason: str
    argument: int
    index: tuple[int, ...] | None = None
    series: tuple[float, ...] = ()
    kink: bool = False
    inner: Sequence[Any] = ()  # rows of the rules inside
    room: float = math.inf
    room_of_values: float = math.inf

    def beside(self, gap: float, apart: float) -> "Outcome":
        """An acquittal alone beside the gaps of image and values when the program ran: the same inputs
        and costate give the same result, unless the rule reads something else."""
        image, values = gap > self.room, apart > self.room_of_values
        if self.verdict != EXACT or not (image or values):
            return self
        what, size = ("result for the costate", gap) if image else ("forward pass", apart)
        words = (
            f"the rule's {what} was off by {size:.1e} when the program ran, and is right when tried "
            "alone at the same point: the rule depends on a state that is not passed"
        )
        return dataclasses.replace(self, verdict=UNTESTED, gap=0.0, reason=words)

    @classmethod
    def of_rows(cls, rows: Sequence[Any], argument: int) -> "Outcome":
        """A place that is right up to the rules inside it: the worst of them speaks."""
        row = min(rows, key=lambda r: (ORDER.index(r.verdict), -r.gap))
        words = f"{row.rule} inside, at {row.where}: {row.reason or row.verdict}"
        kink = any(r.kink for r in rows)
        return cls(row.verdict, row.gap, words, argument, None, kink=kink, inner=tuple(rows))


def tone(verdict: str) -> Tone:
    """What a verdict means to a reader: all was shown, something is wrong, or neither."""
    if verdict in (EXACT, DELIBERATE, NO_RULE):
        return "good"
    return "bad" if verdict == REFUTED else "partial"


def worst_of(verdicts: Iterable[str]) -> str:
    """The verdict that speaks for all; `no custom rule` where there is none."""
    return min(verdicts, key=ORDER.index, default=NO_RULE)

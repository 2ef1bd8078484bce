r"""A claim of the theory, its check, its negative control, and the verdict that follows from both.

    every `stated` finding holds    all equalities: holds exactly      some bounds: holds within its
    bound
    one does not                    every `amended` one does: holds once amended
                                    a rule of thumb, right somewhere: heuristic
                                    otherwise: fails as stated, and the finding is the counterexample

A verdict is never typed in. `recorded` is the one that the check gave when the claim entered the
register; an audit in which it comes out otherwise is unsound, and so is one in which the control
does not fail.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from hjcontrol._ground.arguments import admits
from hjcontrol.reproduction.finding import Measurement

Verdict = Literal[
    "holds exactly", "holds within its bound", "holds once amended", "heuristic", "fails as stated"
]
VERDICTS: tuple[Verdict, ...] = (
    "holds exactly",
    "holds within its bound",
    "holds once amended",
    "heuristic",
    "fails as stated",
)


@dataclass(frozen=True, eq=False)
class Picture:
    """Curves to draw: name to `(x, y)`. A reader of the page sees them beside the numbers."""

    caption: str
    x_label: str
    y_label: str
    lines: dict[str, tuple[np.ndarray, np.ndarray]]
    x_log: bool = False
    y_log: bool = False


@admits()
@dataclass(frozen=True, eq=False)
class Evidence:
    """What a check found."""

    findings: tuple[Measurement, ...]
    picture: Picture | None = None


def those(found: Evidence, *names: str) -> tuple[Measurement, ...]:
    """The findings of these names, or whose names begin so: what a control shows of a measurement.

    **Raises:** `ValueError` where a name fits none of them, or several.
    """
    kept = []
    for name in names:
        fits = [f for f in found.findings if f.name == name]
        fits = fits or [f for f in found.findings if f.name.startswith(name)]
        if len(fits) != 1:
            raise ValueError(f"control: {len(fits)} findings begin with {name!r}; one is needed.")
        kept += fits
    return tuple(kept)


def evidence(*findings: Measurement, picture: Picture | None = None) -> Evidence:
    """The findings of a check, in the order in which they are read."""
    return Evidence(findings, picture)


@dataclass(frozen=True, eq=False)
class Claim:
    """One published sentence and what decides it.

    - `published`: the sentence in our words; `source`: where arXiv 2605.28983, or what goes with
    it, says so.
    - `precise`: the exact statement, with constants and signs.
    - `check(fast)`: measures. Without `fast` it may take minutes and has at least the same findings.
    - `control(fast)`: the same with other mathematics, which `fault` names: the expected numbers stay.
      Each finding must come out the other way: one that holds fails, and one that refutes the sentence
      holds, since what refuted it is gone. Every stated finding is among them.
    - `rule`: a rule of thumb, of which nothing exact is stated.
    - `seconds`: about how long the full check takes, where it is longer than the fast one.
    """

    id: str
    title: str
    source: str
    published: str
    precise: str
    check: Callable[[bool], Evidence]
    fault: str
    control: Callable[[bool], Evidence]
    recorded: Verdict
    rule: bool = False
    seconds: float | int = 0


def verdict(findings: Sequence[Measurement], rule: bool = False) -> Verdict:
    """What the findings say of the claim.

    **Raises:** `ValueError` if none of them tries the published sentence.
    """
    stated = [f for f in findings if f.role == "stated"]
    amended = [f for f in findings if f.role == "amended"]
    if not stated:
        raise ValueError(
            f"a verdict needs a finding of the role 'stated'; found {len(findings)} others. "
            "State what the published sentence predicts."
        )
    if all(f.holds for f in stated):
        bounds = rule or any(f.relation != "=" for f in stated)
        return "holds within its bound" if bounds else "holds exactly"
    if amended and all(f.holds for f in amended):
        return "holds once amended"
    if rule and any(f.holds for f in stated):
        return "heuristic"
    return "fails as stated"


def counterexample(findings: Sequence[Measurement]) -> str | None:
    """The first stated finding that does not hold, with its numbers; `None` if all do."""
    failing = next((f for f in findings if f.role == "stated" and not f.holds), None)
    if failing is None:
        return None
    k = failing.worst
    sign = {"=": "", "<=": "at most ", ">=": "at least "}[failing.relation]
    return f"{failing.name}: stated {sign}{failing.expected[k]:.6g}, found {failing.ours[k]:.6g}"

"""From measured disagreement to a verdict.

    refuted  <=>  gap > tolerance + 10 error,  and neither a kink nor the inlined program explains it

`error` is the estimate that a method of differences makes of itself; forward mode has none. A pair
that compares whole costates carries a stage's fault to every stage below it, so there the fault is
where disagreement begins: at the largest k.
"""

from typing import Any

import numpy as np

from hjcontrol.verification.certificate import CONSISTENT, EXACT, REFUTED, Finding, Pair

LENIENT = 1e-6  # of whole costates that rest on differences, and of differences of J
MULTIPLIERS = 1e-5  # a transcription's multipliers are as good as its solver's tolerance
ROUNDED = 1e-6  # differences less accurate than this do not excuse a rule
MARGIN = 10.0


class Excuses:
    """Stages whose disagreement is explained, as sets of `(index, where)`."""

    def __init__(self, tolerance: float, here: Any = None, again: Any = None):
        self.kinks: dict[tuple[int, str], float] = {}
        self.values: dict[tuple[int, str], float] = {}
        if here is None:
            return
        trials = (
            ("state", here.states, here.state_error, again.forward.states, again.values.states),
            (
                "weights",
                here.weights,
                here.weight_error,
                again.forward.weights,
                again.values.weights,
            ),
        )
        for where, gap, error, near, far in trials:
            over = ~(gap <= tolerance + MARGIN * error)
            smooth = near.gap <= tolerance + MARGIN * near.error
            true = (far.gap <= tolerance + MARGIN * far.error) & (far.error <= ROUNDED)
            for k in np.flatnonzero(over):
                if smooth[k]:
                    self.kinks[int(k), where] = float(gap[k])
                elif true[k]:
                    self.values[int(k), where] = float(gap[k])

    def __contains__(self, place: tuple[int, str]) -> bool:
        return place in self.kinks or place in self.values

    @property
    def deepest(self) -> int:
        """Largest index of an explained stage; -1 if none."""
        return max((k for k, _ in (*self.kinks, *self.values)), default=-1)


def limits(name: str, gaps: Any, tolerance: float, forward: bool) -> dict[str, np.ndarray | float]:
    """How large each gap of a pair may be before it refutes."""
    floor = tolerance
    if "finite_difference" in name or not (forward or "pairing" in name):
        floor = max(tolerance, LENIENT)
    if "multipliers" in name:
        floor = max(floor, MULTIPLIERS)
    return {
        "state": floor + MARGIN * np.asarray(gaps.state_error),
        "weights": floor + MARGIN * np.asarray(gaps.weight_error),
    }


def over_limit(
    name: str, gaps: Any, tolerance: float, forward: bool
) -> list[tuple[int, str, float]]:
    """Places of a pair that would refute it, deepest first. A NaN refutes, unless it marks a
    multiplier that the transcription does not have."""
    bound, found = limits(name, gaps, tolerance, forward), []
    for where, values in (("state", gaps.states), ("weights", gaps.weights)):
        if values is None:
            continue
        bad = ~(values <= bound[where])
        if "multipliers" in name:
            bad &= ~np.isnan(values)
        found += [(int(k), where, float(values[k])) for k in np.flatnonzero(bad)]
    # A state's identity at k tests the rule of stage k after its weights': state first on a tie.
    return sorted(found, key=lambda f: (-f[0], f[1] != "state"))


def judge(
    name: str,
    gaps: Any,
    tolerance: float,
    forward: bool,
    excuses: Excuses,
    title: Any,
    innocent: bool,
) -> tuple[Pair, list[Finding]]:
    """The pair with its verdict, and what refutes it. `title(k)`: name of stage k. `innocent`: each
    stage, tried on its own, is either right or explained."""
    local = "pairing" in name
    bad = over_limit(name, gaps, tolerance, forward)
    if local:
        bad = [b for b in bad if b[:2] not in excuses]
    elif innocent and all(k <= excuses.deepest for k, _, _ in bad):
        bad = []
    elif bad:
        bad = bad[:1]  # below the first, disagreement is inherited
    findings = [Finding(k, where, title(k), gap, name) for k, where, gap in bad]
    worst = _worst(name, gaps, excuses, title)
    value = worst.disagreement if worst else 0.0
    fallback = not forward or bool(excuses.values)
    kind = CONSISTENT if fallback or "finite_difference" in name else EXACT
    verdict = REFUTED if bad else EXACT if kind == EXACT and value <= tolerance else CONSISTENT
    if kind == EXACT and not bad and not local and excuses.kinks:
        verdict = EXACT
    worst = max(findings, key=lambda f: _order(f.disagreement)) if local and findings else worst
    worst = findings[0] if findings and not local else worst
    return Pair(name, kind, verdict, gaps.states, gaps.weights, worst, value), findings


def _worst(name: str, gaps: Any, excuses: Excuses, title: Any) -> Finding | None:
    best = None
    for where, values in (("state", gaps.states), ("weights", gaps.weights)):
        for k, gap in enumerate(() if values is None else values):
            if (k, where) in excuses or ("multipliers" in name and np.isnan(gap)):
                continue
            if best is None or _order(float(gap)) > _order(best.disagreement):
                best = Finding(k, where, title(k), float(gap), name)
    return best


def _order(gap: float) -> float:
    return np.inf if np.isnan(gap) else gap

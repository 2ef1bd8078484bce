"""From measured disagreement of routes to a verdict.

    refuted  <=>  gap > tolerance + 10 error,  unless every stage up to there is right on its own

`error` is the estimate that a method of differences makes of itself; forward mode has none. A pair that
compares whole costates carries a stage's fault to every stage below it, so there the fault is where
disagreement begins: at the largest k. The pair `backprop|pairing` is the places of the chain's stages,
each judged on its own.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from hjcontrol.control import ControlProblem
from hjcontrol.verification.certificate import Finding, Pair, Row
from hjcontrol.verification.verdicts import (
    CONSISTENT,
    DELIBERATE,
    DETACHED,
    EXACT,
    ORDER,
    REFUTED,
    UNDEFINED,
    worst_of,
)

LENIENT = 1e-6  # of whole costates that rest on differences, and of differences of J
MULTIPLIERS = 1e-5  # a transcription's multipliers are as good as its solver's tolerance
MARGIN = 10.0
Title = Callable[[int], str]


def judge_places(
    problem: ControlProblem, rows: Sequence[Row], depths: Any, title: Title
) -> tuple[Pair, list[Finding]]:
    """The stages' own places as one pair of routes. `depths`: their gaps by stage."""
    del problem
    name = "backprop|pairing"
    finding = lambda r: Finding(r.stage, r.tensor, title(r.stage), r.gap, name)
    staged = [r for r in rows if r.stage is not None]
    bad = sorted(
        (r for r in staged if r.verdict in (REFUTED, UNDEFINED)),
        key=lambda r: (-(r.stage or 0), r.tensor),
    )
    verdict = worst_of(r.verdict for r in staged)
    if verdict == "no custom rule":
        verdict = EXACT
    shown = bad or staged
    worst = min(shown, key=lambda r: (ORDER.index(r.verdict), -r.gap), default=None)
    value = max((r.gap for r in staged), default=0.0)
    # Where a place is explained, its bare gap is not a disagreement.
    pair = Pair(
        name,
        EXACT,
        verdict,
        depths.states,
        depths.weights,
        None if worst is None else finding(worst),
        float(value),
    )
    return pair, [finding(r) for r in bad]


def judge_routes(
    name: str, gaps: Any, tol: float, rows: Sequence[Row], title: Title
) -> tuple[Pair, list[Finding]]:
    """Two whole costates compared; what refutes them is where disagreement begins."""
    bound = _limits(name, gaps, tol)
    over = []
    for where, values in (("state", gaps.states), ("weights", gaps.weights)):
        if values is None:
            continue
        bad = ~(values <= bound[where])
        if "multipliers" in name:  # NaN marks a multiplier that the transcription does not have
            bad &= ~np.isnan(values)
        over += [(int(k), where, float(values[k])) for k in np.flatnonzero(bad)]
    over.sort(key=lambda f: (-f[0], f[1] != "state"))
    kinks = [r.stage for r in rows if r.stage is not None and r.kink]
    wrong = (REFUTED, UNDEFINED, DETACHED, DELIBERATE)
    innocent = "multipliers" not in name and not any(r.verdict in wrong for r in rows)
    loose = [r for r in rows if r.verdict == CONSISTENT]
    deepest = max([*kinks, *(r.stage for r in loose if r.stage is not None)], default=-1)
    explained = innocent and all(k <= deepest for k, _, _ in over)
    findings = [Finding(k, where, title(k), gap, name) for k, where, gap in over[:1]]
    findings = [] if explained else findings
    worst = _worst(name, gaps, title, deepest if explained else -1)
    value = worst.disagreement if worst else 0.0
    differences = "finite_difference" in name or not gaps.forward or bool(loose)
    kind = CONSISTENT if differences else EXACT
    near = value <= tol or explained
    verdict = REFUTED if findings else EXACT if kind == EXACT and near else CONSISTENT
    where = findings[0] if findings else worst
    return Pair(name, kind, verdict, gaps.states, gaps.weights, where, value), findings


def _limits(name: str, gaps: Any, tol: float) -> dict[str, Any]:
    floor = tol
    if "finite_difference" in name or not gaps.forward:
        floor = max(floor, LENIENT)
    if "multipliers" in name:
        floor = max(floor, MULTIPLIERS)
    return {
        "state": floor + MARGIN * np.asarray(gaps.state_error),
        "weights": floor + MARGIN * np.asarray(gaps.weight_error),
    }


def _worst(name: str, gaps: Any, title: Title, deepest: int) -> Finding | None:
    best = None
    for where, values in (("state", gaps.states), ("weights", gaps.weights)):
        for k, gap in enumerate(() if values is None else values):
            if k <= deepest or ("multipliers" in name and np.isnan(gap)):
                continue
            if best is None or _order(float(gap)) > _order(best.disagreement):
                best = Finding(k, where, title(k), float(gap), name)
    return best


def _order(gap: float) -> float:
    return np.inf if np.isnan(gap) else gap

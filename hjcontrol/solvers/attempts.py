"""One solve by a CasADi plugin, judged, and where IPOPT goes astray a second one.

    first   f / unit,  at most  max_steps - RESERVE  steps        second   f / (LESS unit)

An objective's unit is measured at the start, by its slope in the weights alone. States are variables as
well; where their curvature is large beside that slope, f / unit outweighs the constraints, and IPOPT ends
at a number that is not finite or spends its steps. No one scale suits all: f itself, everywhere, leaves
problems without an answer that have one at f / unit. So the second is from the same start, and only after
such an end.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from hjcontrol._ground.results import RESULTS
from hjcontrol.solvers.casadi_backends import judged, residual, run
from hjcontrol.solvers.direct_missed import kept_from

LESS = 100.0
ENOUGH, RESERVE = 1000, 200  # of that many steps or more, these are kept for a second try


@dataclasses.dataclass(frozen=True)
class Attempt:
    """An end point, the result, the words of it, gradient evaluations, and `max |dL/d(x, theta)|`."""

    end: dict[str, np.ndarray]
    result: RESULTS
    message: str
    evaluations: int
    slope: float


def first_limit(direct: Any) -> int:
    """The steps of a first try: a limit that is near is not divided."""
    kept = RESERVE if direct.max_steps >= ENOUGH and _ours(direct) else 0
    return direct.max_steps - kept


def attempted(direct: Any, t: Any, call: Any, called: Callable[..., Any]) -> Attempt:
    """The answer of a program `t`, or how it failed.

    **Arguments:** `call`: plugin, watch and order for the first try; `called(direct, t, scale)` makes
    those of a second one, at a scale of the objective.
    """
    first = _attempt(direct, t, call)
    made, astray = call[1].count, (RESULTS.nonfinite, RESULTS.max_steps_reached)
    left = direct.max_steps - max(made, 0)
    if not (_ours(direct) and left > 0 and any(bool(first.result == r) for r in astray)):
        return first
    report = direct.report
    later = None if report is None else lambda step, *row: report(made + step, *row)
    again = dataclasses.replace(direct, report=later, max_steps=left)
    second = _attempt(again, t, called(again, t, 1.0 / (LESS * direct.unit)))
    evaluations = first.evaluations + second.evaluations
    words = [one.message.split(";")[0] for one in (first, second)]
    scaled = f"the objective scaled by {1 / LESS:g}"
    if bool(second.result == RESULTS.successful):
        message = f"{words[1]} at a second try, {scaled}; the first: {words[0]}"
        return dataclasses.replace(second, message=message, evaluations=evaluations)
    rest = first.message[len(words[0]) :]
    message = f"{words[0]}, at a second try, {scaled}, {words[1]}{rest}"
    return dataclasses.replace(first, message=message, evaluations=evaluations)


def _attempt(direct: Any, t: Any, call: Any) -> Attempt:
    solver, watch, order = call
    end, result, message, evaluations = run(solver, watch, t, order)
    allowed = direct.tol * direct.unit
    worst = residual(watch, t, end, direct.unit, direct.tol)
    result, message = judged(result, message, worst, allowed)
    if not bool(result == RESULTS.successful):
        message = "; ".join([message, *kept_from(t, end, message, (direct.tol, worst, allowed))])
    slope = watch.slope(end["x"], end["lam_x"], end["lam_g"])
    return Attempt(end, result, message, evaluations, float(slope))


def _ours(direct: Any) -> bool:
    """Whether the scale, the steps and their count are ours: the user's options own them otherwise."""
    options = direct.options or {}
    own = options.get("ipopt", {})
    theirs = isinstance(own, Mapping) and {"obj_scaling_factor", "max_iter"} & set(own)
    return direct.backend == "ipopt" and not theirs and "iteration_callback" not in options

r"""Multipliers of a solve that has not ended: no costates yet, and no fault of the backward pass.

    not converged   <=>   result is not `successful`   and   max(|dL/d(x, theta)|, |dJ/dtheta|) > LEFT u

dL    of the solver's last iterate, the last row of `solution.history`
dJ    of its weights' rollout, `solution.stats["stationarity"]`       u    the unit, see `control.units`

A solver that ended well, or stopped at a point that is stationary, claims that its multipliers are the
costates: these are judged as they are. Multipliers that came from elsewhere always are.
"""

import dataclasses
from typing import Any

import equinox as eqx
import numpy as np

from hjcontrol._ground.results import RESULTS
from hjcontrol.control import Solution, backpropagate
from hjcontrol.control.units import measured
from hjcontrol.verification.certificate import CONSISTENT, REFUTED, Finding, Pair

LEFT = (
    1e-5  # of the gradient's unit: multipliers are compared with costates to this relative accuracy
)

Judged = list[tuple[Pair, list[Finding]]]


def not_converged(solution: Any) -> str | None:
    """Why a solution's own multipliers are no costates yet; `None` if they claim to be."""
    if not isinstance(solution, Solution) or solution.multipliers is None:
        return None
    if bool(solution.result == RESULTS.successful):
        return None
    units = measured(solution.stated, solution.weights, eqx.filter_jit(backpropagate))
    left = [solution.stats["stationarity"], *solution.history.stationarity[-1:]]
    residual = float(np.max(np.nan_to_num(left, nan=np.inf))) / float(units.gradient)
    if residual <= LEFT:
        return None
    why = RESULTS[solution.result].split(". ")[0]
    return (
        f"multipliers not converged: KKT residual {residual:.1e}, {solution.solver} stopped. {why}."
    )


def excused(judged: Judged, words: str | None) -> Judged:
    """Pairs with multipliers that have not converged are not refuted; they say why."""
    if words is None:
        return judged

    def one(pair: Pair, findings: list[Finding]) -> tuple[Pair, list[Finding]]:
        if "multipliers" not in pair.name or pair.verdict != REFUTED:
            return pair, findings
        return dataclasses.replace(pair, verdict=CONSISTENT, remark=words), []

    return [one(*found) for found in judged]

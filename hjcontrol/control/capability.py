"""What a problem's stages can do, asked before anything is solved; and why they failed, afterwards.

reverse              J's gradient                  every solver, the witness
forward-over-reverse curvature times a vector      Newton, second-order certificates
"""

import equinox as eqx
import jax
import numpy as np

from hjcontrol.control.problem import ControlProblem
from hjcontrol.networks import Weights


def require(problem: ControlProblem, derivative: str, who: str) -> None:
    """Refuse a problem with a stage that lacks a derivative `who` needs.

    **Raises:** `ValueError` naming the stage, and what to do.
    """
    first = 0
    for run in problem.chain.runs:
        reason = run.stage.refusal(derivative)
        if reason is not None:
            raise ValueError(
                f"{who}: stage {first} ({type(run.stage).__name__}) lacks a derivative: {reason}"
            )
        first += run.length


def complaint(problem: ControlProblem, weights: Weights) -> str | None:
    """Why the first stage that leaves a state that is not finite failed, in its own words; `None` if
    all states are finite, or the stage has nothing to say."""
    states = eqx.filter_jit(problem.rollout)(weights)
    finite = [all(bool(np.isfinite(a).all()) for a in jax.tree.leaves(x)) for x in states]
    if all(finite):
        return None
    k = max(finite.index(False) - 1, 0)
    stage, theta = problem.chain[k], problem.chain.unstack(weights)[k]
    words = stage.complaint(states[k], theta)
    return None if words is None else f"stage {k} ({type(stage).__name__}): {words}"

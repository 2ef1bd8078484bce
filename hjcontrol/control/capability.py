"""What a problem's stages can do, asked before anything is solved; and why they failed, afterwards.

reverse              J's gradient                  every solver, the witness
forward-over-reverse curvature times a vector      Newton, second-order certificates
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from hjcontrol.control.hamiltonians import given_at
from hjcontrol.control.problem import ControlProblem
from hjcontrol.control.streams import some
from hjcontrol.networks import AbstractStage, Weights
from hjcontrol.networks.given import read_of


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
    read = () if stage.reads == "nothing" else (read_of(given_at(problem, k)),)
    words = stage.complaint(states[k], theta, *read)
    return None if words is None else f"stage {k} ({type(stage).__name__}): {words}"


COARSE = 1e-2  # of the largest state


def coarse(problem: ControlProblem, weights: Weights) -> str | None:
    """Where steps are longer than their scheme bears, by the stages' own estimates; `None` if nowhere,
    or where no stage makes one."""
    if not any(_estimates(run.stage) for run in problem.chain.runs):
        return None
    problem = some(problem)
    errors, size = _discretisation(problem, weights)
    errors = np.asarray(errors)
    worst = int(errors.argmax())
    if not errors[worst] > COARSE * float(size):
        return None
    return (
        f"stage {worst} ({type(problem.chain[worst]).__name__}): its step and two of half the length "
        f"differ by {errors[worst]:.2g}, the states being at most {float(size):.2g}."
    )


def _estimates(stage: AbstractStage) -> bool:
    return type(stage).discretisation_error is not AbstractStage.discretisation_error


@eqx.filter_jit
def _discretisation(problem: ControlProblem, weights: Weights) -> tuple[Any, Any]:
    """The estimate of every stage, 0 where there is none, and the largest state."""
    states = problem.rollout(weights)

    def body(r: int, carry: None, stage: AbstractStage, theta: Any, u: Any, x: Any) -> Any:
        del r, u
        if not _estimates(stage):
            return carry, jnp.zeros((), problem.dtype)
        return carry, jnp.max(jax.vmap(lambda a: stage.discretisation_error(a, theta))(x))

    _, errors = problem.fold(body, None, weights, states.runs)
    sizes = [jnp.max(jnp.abs(a)) for a in jax.tree.leaves(states)]
    return jnp.concatenate(errors), jnp.max(jnp.stack(sizes))

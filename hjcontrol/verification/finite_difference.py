r"""Differences of J: uses function values only, no derivative rules.

    dJ/dtheta_k . w  =  lim_h [ J(theta + h w e_k) - J(theta - h w e_k) ] / 2h

One direction per stage, the other stages' weights held, Richardson extrapolation, float64 only.

Differences are `consistent` with a gradient, never `exact`: their error is estimated, and is at best
`eps |J| / h`. The disagreement is relative to the size of the summands of `dJ/dtheta_k . w`
(`ensemble.summands`), which does not vanish at a stationary point. A difference that its own error
estimate explains does not refute; below that resolution this route is blind.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from hjcontrol.control import ControlProblem
from hjcontrol.control.hamiltonians import inner
from hjcontrol.networks import Weights
from hjcontrol.verification.directional import differences
from hjcontrol.verification.ensemble import summands
from hjcontrol.verification.probes import directions


class Differenced(NamedTuple):
    """Relative disagreement of every stage's weights with the gradient, and its estimated error."""

    gap: Float[Array, " stages"]
    error: Float[Array, " stages"]


def difference(
    problem: ControlProblem, weights: Weights, gradient: Weights, key: Key[Array, ""]
) -> Differenced:
    """`gradient` against differences of `J`, stage by stage."""
    keys = jax.random.split(key, len(weights))
    ways = []
    by_run = []
    for r, (run, theta) in enumerate(zip(problem.chain.runs, weights, strict=True)):
        w = directions(keys[r], theta, 1)
        w = jax.tree.map(lambda a: a[0], w)
        ways.append(w)

        def along(k: Array, r: int = r, theta: Any = theta, w: Any = w) -> tuple[Array, Array]:
            one = lambda tree: jax.tree.map(lambda a: a[k], tree)

            def objective(th: Any) -> Float[Array, ""]:
                moved = jax.tree.map(lambda a, b: a.at[k].set(b), theta, th)
                return problem.objective((*weights[:r], moved, *weights[r + 1 :]))

            slope, error = differences(objective, one(theta), one(w))
            return slope - inner(one(gradient[r]), one(w)), error

        if jax.tree.leaves(theta):
            by_run.append(tuple(map(run.place, jax.lax.map(along, jnp.arange(run.sets)))))
        else:
            by_run.append((jnp.zeros(run.length), jnp.zeros(run.length)))
    residual, error = jax.tree.map(lambda *a: jnp.concatenate(a), *by_run)
    scale = summands(problem, weights, tuple(ways))
    relative = lambda a: jnp.where(a == 0, 0.0, a / jnp.maximum(scale, jnp.finfo(scale.dtype).tiny))
    return Differenced(relative(jnp.abs(residual)), relative(error))

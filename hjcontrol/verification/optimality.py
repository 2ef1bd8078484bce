r"""Is a point optimal? Every condition with its number, what it may be, and whether it must hold.

    necessary     KKT, transversality, free steps, the claimed costates, curvature on the free face
    diagnostics   Legendre-Clebsch, Hamiltonian minimum, constancy of H: theorems of continuous time,
                  which discrete time keeps to first order in the step only

No row proves a minimum: first-order rows together say stationary; a positive smallest curvature on the
free face adds that no nearby feasible point is lower, as far as Lanczos has converged.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from hjcontrol.control import ControlProblem, Trajectory, backpropagate
from hjcontrol.control.units import Units, measured
from hjcontrol.networks import Weights
from hjcontrol.verification.constancy import Levels, autonomous, levels
from hjcontrol.verification.curvature import Curvature, face_curvature
from hjcontrol.verification.exact_minimum import exact_gap
from hjcontrol.verification.faces import faces
from hjcontrol.verification.free_steps import Steps, free_steps
from hjcontrol.verification.kkt import Residuals, residuals
from hjcontrol.verification.legendre import legendre
from hjcontrol.verification.measuring import apart
from hjcontrol.verification.minimum import lowering
from hjcontrol.verification.path_conditions import PathFound
from hjcontrol.verification.stagewise import placed, stagewise
from hjcontrol.verification.transversality import transversality


class Found(NamedTuple):
    """Numbers only. Stage by stage where the shape says so. `curvature` is that on the face `wide`,
    `tight` on the one of that name; where the set's faces are not known, both are of the whole space."""

    kkt: Residuals
    transversality: Float[Array, ""]
    costates: Float[Array, " depths"] | None
    steps: Steps | None
    curvature: Curvature
    tight: Curvature
    legendre: Curvature  # by stage
    exact: Float[Array, " stages"]
    sampled: Float[Array, " stages"]
    levels: tuple[Levels | None, ...]
    autonomous: tuple[Array | None, ...]
    horizon: Float[Array, ""] | None
    units: Units
    path: PathFound | None


@eqx.filter_jit
def examine(
    problem: ControlProblem,
    weights: Weights,
    claimed: tuple[Trajectory, Trajectory] | None,
    multipliers: Weights | None,
    key: Key[Array, ""],
    tol: float,
    path: PathFound | None = None,
    held: Float[Array, "active m"] | None = None,
) -> Found:
    """All conditions, in one program. `claimed`: states and costates that a solver gives;
    `multipliers`: those it gives for the control set; `path`, `held`: what was found of constraints along
    depth, and the slopes of the active ones."""
    _, states, costates, gradient = backpropagate(problem, weights)
    units = measured(problem, weights, here=(states, costates, gradient))
    small = tol * units.gradient
    on = faces(problem, weights, gradient, tol, small)

    def ask(value: Any, theta: Any, face: Any, k: Any, run: int) -> tuple[Any, ...]:
        first, second = jax.random.split(k)
        exact = exact_gap(problem, value, theta, small, run)
        return (
            legendre(value, theta, face, first),
            exact,
            lowering(problem, value, theta, second, run),
        )

    one, two = jax.random.split(key)
    at, p = claimed or (states, costates)
    by_run = stagewise(problem, weights, states, costates, ask, one, on.wide)
    curved, exact, sampled = zip(*by_run, strict=True)
    along = levels(problem, weights, states, costates)
    steps = [found for found in along if found is not None]
    total = sum(jnp.sum(s.length) for s in steps)
    return Found(
        residuals(problem, weights, gradient, multipliers, tol, units.gradient),
        transversality(problem, at.final, p.final),
        None if claimed is None else apart(claimed[1], costates),
        free_steps(problem, weights, at, p, units.gradient),
        *face_curvature(problem, weights, two, on, held),
        Curvature(
            placed(problem, tuple(c.smallest for c in curved), blank=jnp.inf),
            placed(problem, tuple(c.bound for c in curved)),
            placed(problem, tuple(c.largest for c in curved)),
        ),
        placed(problem, exact),
        placed(problem, sampled),
        along,
        tuple(
            None if found is None else autonomous(run)
            for run, found in zip(problem.chain.runs, along, strict=True)
        ),
        sum(jnp.sum(s.length * s.slope) for s in steps) / total if steps else None,
        units,
        path,
    )

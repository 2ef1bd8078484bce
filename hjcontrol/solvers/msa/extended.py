r"""Extended successive approximations: the augmented Hamiltonian, and a price that keeps J falling.

    theta' <- argmin over Theta of H~_k,   all stages at once         (H~ and its theorem: see `sweep`)
    taken if   J - J' >= 1e-4 * (decrease of sum_k H~_k);   else rho <- 4 rho and the sweep is made again
    rho <- rho / 2 after a step that fell by at least half of what H~ said

J falls by construction. Where its change is below its own roundoff, `10 eps |J|`, that cannot be seen,
and a step is taken if the Euclidean `|theta - project(theta - dJ/dtheta)|` falls. Convergence is linear.
With minibatches the same is asked of the batch's J, and nothing is claimed of the whole.
Source: Li, Chen, Tai & E, "Maximum principle based algorithms for deep learning", JMLR 18:165, 2018;
the safeguard is ours: theirs keeps rho, and J may rise.
"""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from hjcontrol._ground.arguments import admits
from hjcontrol._ground.concrete import known_to_fail
from hjcontrol._ground.renamed import renamed
from hjcontrol._ground.results import RESULTS
from hjcontrol._ground.shown import Shown
from hjcontrol.control import ControlProblem, Minibatch, minibatch
from hjcontrol.control.units import stationarity
from hjcontrol.networks import Weights
from hjcontrol.solvers.msa.point import Point, at, choose
from hjcontrol.solvers.msa.stage import DEFAULT, AbstractSweeps, Inner
from hjcontrol.solvers.msa.sweep import sweep
from hjcontrol.solvers.solver import Ending, Outcome

SUFFICIENT = 1e-4
RAISE, LOWER = 4.0, 0.5
SMALLEST = 1e-8
PATIENCE = 30  # sweeps refused in a row


class ExtendedState(Shown):
    """The present point, the price, and how many sweeps in a row were refused."""

    point: Point
    stationarity: Float[Array, ""]
    rho: Float[Array, ""]
    refused: Int[Array, ""]
    sweeps: Int[Array, ""]
    batches: Minibatch | None


@renamed(inner_steps="steps")
@admits(rho="> 0", steps=">= 1", tol=">= 0", batch_size=">= 1")
class ExtendedMSA(AbstractSweeps):
    """Successive approximations that descend.

    - `rho`: price of infeasibility to begin with, > 0; it adapts unless `adaptive=False`, which is the
      published method: every sweep is taken, and J may rise.
    - `inner`, `steps`, `tol`, `batch_size`, `closed`, `unit`: as for `MSA`. The price has no
      unit: J and 1e-8 J take different steps unless `rho` is changed too.
    """

    rho: Float[Array, ""] = eqx.field(converter=jnp.asarray, default=1.0)
    adaptive: bool = eqx.field(static=True, default=True)
    inner: Inner = eqx.field(static=True, default="auto")
    steps: int = eqx.field(static=True, default=10)
    tol: Float[Array, ""] = eqx.field(converter=jnp.asarray, default=DEFAULT)
    batch_size: int | None = eqx.field(static=True, default=None)
    closed: bool = eqx.field(static=True, default=True)
    unit: Float[Array, ""] | float = 1.0

    def __check_init__(self):
        if known_to_fail(self.rho > 0 if self.adaptive else self.rho >= 0):
            raise ValueError(
                f"ExtendedMSA: `rho` must be positive; found {float(self.rho)}. Use `MSA` for none."
            )

    @property
    def name(self) -> str:
        return "emsa"

    def init(self, problem: ControlProblem, weights: Weights, key: Any) -> ExtendedState:
        point = at(problem, weights)
        size = stationarity(problem, weights, point.gradient, self.unit)
        batches = minibatch(problem, self.batch_size, key, "ExtendedMSA")
        kept = point if batches is None else point.bare()
        rho = self.rho.astype(point.objective.dtype)
        return ExtendedState(kept, size, rho, jnp.asarray(0), jnp.asarray(0), batches)

    def step(self, problem: ControlProblem, state: ExtendedState) -> ExtendedState:
        return _step(self, problem, state)

    def terminate(self, problem: ControlProblem, state: ExtendedState) -> Ending:
        full = self.batch_size is None
        reached = (state.stationarity <= self.tol * self.unit) & full
        stuck = (state.refused >= PATIENCE) & full
        return reached | stuck, RESULTS.where(reached, RESULTS.successful, RESULTS.stagnated)

    def postprocess(self, problem: ControlProblem, state: ExtendedState) -> Outcome:
        return Outcome(state.point.weights)


def _step(msa: ExtendedMSA, problem: ControlProblem, state: ExtendedState) -> ExtendedState:
    theta_set, point, batches = problem.control_set, state.point, state.batches
    if batches is not None and msa.batch_size is not None:
        problem, batches = batches.draw(problem, msa.batch_size)
        point = at(problem, point.weights)
    minimise = msa.stages.on(theta_set)
    weights, promised = sweep(problem, point.weights, point.paths, state.rho, minimise)
    new = at(problem, weights)
    floor = 10 * jnp.finfo(promised.dtype).eps * jnp.abs(point.objective)
    fell = point.objective - new.objective
    blind = (promised <= floor) & (jnp.abs(fell) <= floor)
    falls = jnp.where(
        blind,
        new.residual(theta_set) < point.residual(theta_set),
        (fell > 0) & (fell >= SUFFICIENT * promised),
    )
    accept = new.finite() & (falls | (not msa.adaptive))
    change = jnp.where(accept, jnp.where(~blind & (fell >= 0.5 * promised), LOWER, 1.0), RAISE)
    rho = jnp.maximum(state.rho * change, SMALLEST) if msa.adaptive else state.rho
    new = choose(accept, new, point)
    return ExtendedState(
        new if batches is None else new.bare(),
        stationarity(problem, new.weights, new.gradient, msa.unit),
        rho.astype(state.rho.dtype),
        jnp.where(accept, 0, state.refused + 1),
        state.sweeps + 1,
        batches,
    )

r"""The method of successive approximations, as Krylov and Chernous'ko stated it.

    x from theta;  p from x, theta;  theta_k <- argmin over Theta of H_k(x_k, p_{k+1}, theta)

Its fixed points are stationary. Nothing makes it descend: a step is as long as the Hamiltonian alone
allows, whatever it does to the states, and it commonly oscillates or diverges. That is told apart:

    diverged      J is not finite, or over `EXPLOSION` times its smallest and its first value
    oscillating   no better J or stationarity for `PATIENCE` sweeps, while J rose in some of them
    stagnated     no better for as long, without a rise

Handed back: the last weights if they are stationary, else those of the smallest J met.
"""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from hjcontrol._ground.arguments import admits
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

EXPLOSION = 1e3
PATIENCE = 20
BETTER = 1e-3  # relative: less than this in `PATIENCE` sweeps is no progress if J also rises


class MSAState(Shown):
    """The present point, the best one, and what tells how it goes."""

    point: Point
    stationarity: Float[Array, ""]
    best: Point
    least: Float[Array, ""]  # stationarity
    first: Float[Array, ""]  # |J| at the start
    waited: Int[Array, ""]  # sweeps since the last progress
    rose: Bool[Array, ""]  # whether J rose in one of them
    blown: Bool[Array, ""]  # the last sweep left the finite numbers
    sweeps: Int[Array, ""]
    batches: Minibatch | None


@renamed(inner_steps="steps")
@admits(steps=">= 1", tol=">= 0", batch_size=">= 1")
class MSA(AbstractSweeps):
    """Plain successive approximations. See `ExtendedMSA` for the one that descends.

    - `inner`: how a stage without closed form is minimised: `"auto"` (L-BFGS for free weights, else
      projected gradient), `"lbfgs"`, `"projected_gradient"`, `"lbfgsb"` (jaxopt).
    - `steps`: most steps of it a sweep.
    - `tol`: stop once `max |theta - project(theta - dJ/dtheta / unit)| <= tol` (full batch only).
    - `unit`: of `dJ/dtheta`; `hj.solve` measures it (see `control.units`).
    - `batch_size`: samples a sweep; all of them without it. Needs `key=` in `solve`.
    - `closed`: use closed forms where they exist.

    **Example:**

        >>> import hjcontrol as hj
        >>> hj.solvers.MSA().name
        'msa'
    """

    inner: Inner = eqx.field(static=True, default="auto")
    steps: int = eqx.field(static=True, default=10)
    tol: Float[Array, ""] = eqx.field(converter=jnp.asarray, default=DEFAULT)
    batch_size: int | None = eqx.field(static=True, default=None)
    closed: bool = eqx.field(static=True, default=True)
    unit: Float[Array, ""] | float = 1.0

    @property
    def name(self) -> str:
        return "msa"

    def init(self, problem: ControlProblem, weights: Weights, key: Any) -> MSAState:
        point = at(problem, weights)
        size = stationarity(problem, weights, point.gradient, self.unit)
        no = jnp.asarray(False)
        batches = minibatch(problem, self.batch_size, key, "MSA")
        zero = jnp.asarray(0)
        first = jnp.abs(point.objective)
        kept = point if batches is None else point.bare()
        return MSAState(kept, size, point.bare(), size, first, zero, no, no, zero, batches)

    def step(self, problem: ControlProblem, state: MSAState) -> MSAState:
        return _step(self, problem, state)

    def terminate(self, problem: ControlProblem, state: MSAState) -> Ending:
        full = self.batch_size is None
        reached = (state.stationarity <= self.tol * self.unit) & full
        scale = jnp.maximum(jnp.abs(state.best.objective), state.first)
        diverged = state.blown | (state.point.objective > EXPLOSION * scale)
        stuck = (state.waited >= PATIENCE) & full
        named = RESULTS.where(state.rose, RESULTS.oscillating, RESULTS.stagnated)
        named = RESULTS.where(diverged, RESULTS.diverged, named)
        return reached | diverged | stuck, RESULTS.where(reached, RESULTS.successful, named)

    def postprocess(self, problem: ControlProblem, state: MSAState) -> Outcome:
        last = (state.stationarity <= self.tol * self.unit) | (self.batch_size is not None)
        return Outcome(choose(last, state.point.bare(), state.best).weights)


def _step(msa: MSA, problem: ControlProblem, state: MSAState) -> MSAState:
    theta_set, point, batches = problem.control_set, state.point, state.batches
    minimise = msa.stages.on(theta_set)
    if batches is not None and msa.batch_size is not None:
        problem, batches = batches.draw(problem, msa.batch_size)
        point = at(problem, point.weights)
    weights, _ = sweep(problem, point.weights, point.paths, None, minimise)
    new = at(problem, weights)
    finite = new.finite()
    new = choose(finite, new, point)
    size = stationarity(problem, new.weights, new.gradient, msa.unit)
    small = jnp.sqrt(jnp.finfo(size.dtype).eps) * jnp.abs(point.objective)
    margin = BETTER * jnp.abs(state.best.objective)
    better = new.objective < state.best.objective - margin
    better = better | (size < (1 - BETTER) * state.least)
    rose = new.objective > point.objective + small
    return MSAState(
        new if batches is None else new.bare(),
        size,
        choose(new.objective < state.best.objective, new.bare(), state.best),
        jnp.minimum(size, state.least),
        state.first,
        jnp.where(better, 0, state.waited + 1),
        rose | (state.rose & ~better),
        ~finite,
        state.sweeps + 1,
        batches,
    )

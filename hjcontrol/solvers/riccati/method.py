r"""Iterated Riccati sweeps on the ensemble: iLQR (Gauss-Newton) and DDP.

    sweep     V_k(dx) = 1/2 dx'P_k dx + p_k.dx     from the last stage to the first, about the rollout
    roll out  theta_k <- theta_k + alpha k_k + K_k (x_k - x_k_old)     stage after stage, closed loop

gauss_newton  curvature of the costs along linearised states: iLQR        M >= 0 for convex costs
ddp           and that of the dynamics, `p.d2F` at the costates of the current weights: its open-loop
              step is exactly Newton's (stagewise Newton)                 M may be indefinite
mu            `Quu_k + mu I` at every stage: Levenberg-Marquardt, raised until a factor exists and J
              falls, lowered while the model predicts J well (Tassa, Erez & Todorov 2012)
alpha         shortens the open-loop term alone; the feedback keeps its whole gain

DDP begins with Gauss-Newton sweeps, which need little damping far from a minimum, and ends exact.
At roundoff J no longer tells steps apart: a step then counts if it lowers the gradient. Cost of a sweep
and what is stored: see `factored`.
"""

import dataclasses
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from hjcontrol._ground.arguments import admits
from hjcontrol._ground.results import RESULTS
from hjcontrol._ground.shown import Shown
from hjcontrol.control import (
    ControlProblem,
    Trajectory,
    backpropagate,
)
from hjcontrol.control.control_sets import largest
from hjcontrol.control.units import Units
from hjcontrol.networks import Weights
from hjcontrol.solvers.riccati.factored import Sweep, closed_loop, matrix, steps_along
from hjcontrol.solvers.riccati.stages import flat_weights, linearise
from hjcontrol.solvers.solver import AbstractSolver, Info, Outcome

LARGEST = (
    12_000  # weights: M takes 8 * LARGEST^2 bytes, 1.2 GB, and twice that while it is factored
)
PATIENCE = 6  # sweeps without progress
TRIES = 14  # values of mu a sweep
SHORTEST = 0.2  # least alpha; below it a larger mu turns the step as well
GROW, SHRINK = 8.0, 0.2


class RiccatiState(Shown):
    """A point with its states, costates and gradient, and the damping of the next sweep."""

    weights: Weights
    objective: Float[Array, ""]
    gradient: Weights
    states: Trajectory
    costates: Trajectory
    threshold: Float[Array, ""]  # largest gradient at which DDP's curvature is the exact one
    mu: Float[Array, ""]
    best: Float[Array, ""]  # smallest gradient since J went blind
    failures: Int[Array, ""]
    num_evals: Int[Array, ""]


@admits(tol=">= 0", switch=">= 0")
class Riccati(AbstractSolver):
    """Riccati sweeps with regularisation and line search, factored so that memory is linear in samples.

    - `curvature`: `"gauss_newton"` (iLQR) or `"ddp"`, exact.
    - `tol`: stop once `max |dH/dtheta| <= tol * unit`; `hj.solve` measures the `unit` of `dJ/dtheta` (see
      `control.units`).
    - `switch`: `"ddp"` begins with Gauss-Newton sweeps, until the gradient is this fraction of the
      first one; 1 begins with exact curvature, which is indefinite far from a minimum.
    - `feedback`: roll out in closed loop; `False` takes the open-loop step, which is one damped
      Gauss-Newton or Newton step in weight space.

    **Example:**

        >>> import hjcontrol as hj
        >>> [hj.solvers.Riccati(curvature=c).name for c in ("gauss_newton", "ddp")]
        ['riccati', 'ddp']
    """

    curvature: Literal["gauss_newton", "ddp"] = eqx.field(static=True, default="gauss_newton")
    tol: Float[Array, ""] = eqx.field(converter=jnp.asarray, default=1e-10)
    switch: Float[Array, ""] = eqx.field(converter=jnp.asarray, default=1e-2)
    feedback: bool = eqx.field(static=True, default=True)
    unit: float = eqx.field(static=True, default=1.0)

    default_max_steps = 1000
    asks = "forward-over-reverse"
    sets = "free"

    def __check_init__(self):
        if self.curvature not in ("gauss_newton", "ddp"):
            raise ValueError(
                f"Riccati: `curvature` must be 'gauss_newton' or 'ddp'; found {self.curvature!r}."
            )

    @property
    def name(self) -> str:
        return "riccati" if self.curvature == "gauss_newton" else "ddp"

    def check(self, problem: ControlProblem) -> None:
        return _check(self, problem)

    def measuring(self, units: Units) -> "Riccati":
        return dataclasses.replace(self, unit=float(units.gradient))

    def init(self, problem: ControlProblem, weights: Weights, key: Any) -> RiccatiState:
        return _initial(self, problem, weights, key)

    def step(self, problem: ControlProblem, state: RiccatiState) -> RiccatiState:
        # Once crossed the threshold stays crossed: `_arrived` lifts it then.
        exact = self.curvature == "ddp" and largest(state.gradient) <= state.threshold
        runs = linearise(problem, state.weights, state.states, state.costates, exact)
        M, g = matrix(runs), flat_weights(problem, state.gradient)
        scale = jnp.mean(jnp.abs(jnp.diag(M)))

        def attempt(carry: Any) -> Any:
            mu, tries, evals, *_ = carry
            sweep = Sweep(runs, _factor(M, mu), g)
            weights, alpha, ratio, asked = _search(self, problem, state, sweep, mu)
            good = ratio > 1e-4
            raised = jnp.maximum(GROW * mu, 1e-6 * scale)
            eased = jnp.where(ratio > 0.75, SHRINK * mu, mu)
            eased = jnp.where((ratio < 0.25) | (alpha < 1.0), 2.0 * mu, eased)
            eased = jnp.where(eased < 1e-12 * scale, 0.0, eased)
            mu = jnp.where(good, eased, raised).astype(mu.dtype)
            return mu, tries + 1, evals + asked, good, weights

        def again(carry: Any) -> Array:
            return ~carry[3] & (carry[1] < TRIES)

        zero = jnp.asarray(0)
        start = (state.mu, zero, zero, jnp.asarray(False), state.weights)
        mu, _, evals, good, weights = jax.lax.while_loop(again, attempt, start)
        return _arrived(self, problem, state, weights, mu, good, state.num_evals + evals + 1)

    def info(self, state: RiccatiState) -> Info:
        return Info(state.objective, largest(state.gradient), state.num_evals)

    def terminate(
        self, problem: ControlProblem, state: RiccatiState
    ) -> tuple[Bool[Array, ""], RESULTS]:
        reached = largest(state.gradient) <= self.tol * self.unit
        stuck = state.failures >= PATIENCE
        return reached | stuck, RESULTS.where(reached, RESULTS.successful, RESULTS.stagnated)

    def postprocess(self, problem: ControlProblem, state: RiccatiState) -> Outcome:
        return Outcome(state.weights)


def _initial(riccati: Riccati, problem: ControlProblem, weights: Weights, key: Any) -> RiccatiState:
    value, states, costates, gradient = backpropagate(problem, weights)
    return RiccatiState(
        weights,
        value,
        gradient,
        states,
        costates,
        # a start that is nearly stationary already needs no Gauss-Newton sweeps first
        jnp.maximum(
            riccati.switch * largest(gradient),
            jnp.cbrt(jnp.finfo(value.dtype).eps) * jnp.abs(value),
        ).astype(value.dtype),
        jnp.zeros_like(value),
        jnp.full_like(value, jnp.inf),
        jnp.asarray(0),
        jnp.asarray(1),
    )


def _check(riccati: Riccati, problem: ControlProblem) -> None:
    who = f"Riccati ({riccati.name})"
    first = 0
    for run in problem.chain.runs:
        if run.tied and run.length > 1:
            raise ValueError(
                f"{who}: every stage needs weights of its own, for feedback answers a state at "
                f"its depth; stages {first} to {first + run.length - 1} are tied. Use `Newton`, "
                "or state them as untied stages."
            )
        first += run.length
    shapes = jax.eval_shape(problem.init, jax.eval_shape(lambda: jax.random.key(0)))
    size = sum(a.size for a in jax.tree.leaves(shapes))
    if not 0 < size <= LARGEST:
        raise ValueError(
            f"{who}: the sweep factors a matrix of all weights, so there must be 1 to {LARGEST}; "
            f"found {size}. Use `Newton`, which forms no matrix of them."
        )


def _arrived(riccati: Riccati, problem, state, weights, mu, good, evals) -> RiccatiState:
    value, states, costates, gradient = backpropagate(problem, weights)
    floor = 10 * jnp.finfo(value.dtype).eps * jnp.abs(value)
    size, blind = largest(gradient), state.objective - value <= floor
    # Where J is blind the gradient judges alone, so the last steps never lose what was reached.
    good = good & (~blind | (size <= largest(state.gradient)))
    progress = good & (~blind | (size < state.best))
    new = (weights, value, gradient, states, costates)
    old = (state.weights, state.objective, state.gradient, state.states, state.costates)
    weights, value, gradient, states, costates = jax.tree.map(
        lambda a, b: jnp.where(good, a, b), new, old
    )
    best = jnp.where(blind & good, jnp.minimum(size, state.best), state.best)
    crossed = jnp.minimum(size, largest(state.gradient)) <= state.threshold
    threshold = jnp.where(crossed, jnp.inf, state.threshold)
    failures = jnp.where(progress, 0, state.failures + 1)
    return RiccatiState(
        weights, value, gradient, states, costates, threshold, mu, best, failures, evals
    )


def _search(
    riccati: Riccati, problem: ControlProblem, state: RiccatiState, sweep: Sweep, mu: Array
) -> tuple[Weights, Array, Array, Array]:
    """Halve alpha until J falls as the model says: weights, alpha, fall over prediction, tries."""
    s = sweep.open_loop()
    slope = -sweep.gradient @ s
    bend = slope - mu * (s @ s)  # s'M s, the damping taken off again
    floor = 10 * jnp.finfo(state.objective.dtype).eps * jnp.abs(state.objective)

    def halve(carry: Any) -> Any:
        alpha, tries, *_ = carry
        alpha = jnp.where(tries == 0, 1.0, 0.5 * alpha).astype(slope.dtype)
        if riccati.feedback:
            new = closed_loop(problem, state.weights, state.states.runs, sweep, alpha)
        else:
            new = steps_along(problem, state.weights, alpha * s)
        fall = state.objective - problem.objective(new)
        predicted = alpha * slope - 0.5 * alpha**2 * bend
        ratio = (fall + floor) / (predicted + floor)
        # NaN compares as no descent: of a factor that does not exist, of values that overflow
        return alpha, tries + 1, jnp.where(predicted >= 0, ratio, jnp.nan), new

    def short(carry: Any) -> Array:
        alpha, tries, ratio, _ = carry
        factored = jnp.isfinite(slope) | (tries == 0)
        return ~(ratio > 1e-4) & (alpha > SHORTEST) & factored

    start = (jnp.ones_like(slope), jnp.asarray(0), jnp.full_like(slope, jnp.nan), state.weights)
    alpha, tries, ratio, new = jax.lax.while_loop(short, halve, start)
    return new, alpha, ratio, tries


def _factor(M: Float[Array, "M M"], mu: Float[Array, ""]) -> Float[Array, "M M"]:
    return jnp.linalg.cholesky(M + mu * jnp.eye(M.shape[0], dtype=M.dtype), symmetrize_input=False)

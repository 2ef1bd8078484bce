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
At roundoff J no longer tells steps apart: a step then counts if it lowers the gradient. Small ensembles
of untied stages, one sample above all, are swept stage after stage (`ensemble`), their `J` and gradient
taken along the states of the closed loop; larger ones by a matrix of all weights (`factored`).

bounds       `Quu` is minimised within them, by projected Newton (`boxed`); small ensembles only
Mayer form   costs linear in the states have no Gauss-Newton curvature, mean |diag M| <= 1e-8 |g|: the
             scale of mu is then |g|, and DDP is exact at once
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
from hjcontrol.control import ControlProblem, Free, Trajectory, backpropagate, costate
from hjcontrol.control.capability import require
from hjcontrol.control.feedback import Feedback, Gains
from hjcontrol.control.units import Units, plain, resolved, stationarity
from hjcontrol.networks import Weights
from hjcontrol.solvers.riccati.ensemble import STATES, WEIGHTS, Policy, Stacked, small
from hjcontrol.solvers.riccati.factored import Factored, Sweep, matrix
from hjcontrol.solvers.riccati.stages import flat_weights, linearise
from hjcontrol.solvers.solver import AbstractSolver, Ending, Info, Outcome

LARGEST = (
    12_000  # weights: M takes 8 * LARGEST^2 bytes, 1.2 GB, and twice that while it is factored
)
PATIENCE = 6  # sweeps without progress
TRIES = 14  # values of mu a sweep
SHORTEST = 0.2  # least alpha; below it a larger mu turns the step as well
GROW, SHRINK = 8.0, 0.2
FLAT = 1e-8  # of the gradient: least curvature that counts as one
LOUD = 1e4  # growth from which on a gradient's unit is that of an exploding rollout


class RiccatiState(Shown):
    """A point with its states, costates and gradient, and the damping of the next sweep."""

    weights: Weights
    objective: Float[Array, ""]
    gradient: Weights
    size: Float[Array, ""]  # stationarity: the largest gradient, or what bounds leave of it
    states: Trajectory
    costates: Trajectory
    threshold: Float[Array, ""]  # largest gradient at which DDP's curvature is the exact one
    mu: Float[Array, ""]
    best: Float[Array, ""]  # smallest gradient since J went blind
    failures: Int[Array, ""]
    num_evals: Int[Array, ""]
    # Of the last sweep that counted; None: a sweep of many samples, which has none
    gains: Gains | None
    growth: Float[Array, ""]  # how much the dynamics amplify
    foreseen: Float[Array, ""]  # largest fall of J that the last sweep's models saw
    scale: Float[Array, ""]  # of the curvature, that mu is measured by
    flat: Bool[Array, ""]  # no Gauss-Newton curvature


DEFAULT = 1e-10  # tolerance; where the dtype is coarser, what it resolves


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
    tol: Float[Array, ""] = eqx.field(converter=jnp.asarray, default=DEFAULT)
    switch: Float[Array, ""] = eqx.field(converter=jnp.asarray, default=1e-2)
    feedback: bool = eqx.field(static=True, default=True)
    unit: Float[Array, ""] | float = 1.0

    default_max_steps = 1000
    asks = "forward-over-reverse"
    sets = "bounds"
    priced = True

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

    def nearby(self) -> "Riccati":
        return dataclasses.replace(self, switch=jnp.ones_like(self.switch))

    def measuring(self, units: Units) -> "Riccati":
        power = 1.0 if self.curvature == "ddp" else 0.5  # Gauss-Newton ends where J goes blind
        tol = resolved(self.tol, DEFAULT, power, units)
        return dataclasses.replace(self, tol=tol, unit=plain(units.gradient))

    def init(self, problem: ControlProblem, weights: Weights, key: Any) -> RiccatiState:
        del key
        return _initial(self, problem, weights)

    def step(self, problem: ControlProblem, state: RiccatiState) -> RiccatiState:
        # Once crossed the threshold stays crossed: `_arrived` lifts it then.
        size = state.size
        exact = self.curvature == "ddp" and size <= state.threshold
        model = _model(problem, state, exact)

        def attempt(carry: Any) -> Any:
            mu, tries, evals, _, _, _, foreseen, *_ = carry
            policy = model.policy(mu)
            flat = policy.curvature <= FLAT * size
            landing, alpha, ratio, asked, seen = _search(self, problem, state, policy, mu)
            good = ratio > 1e-4
            scale = jnp.where(flat, size, policy.scale)
            raised = jnp.maximum(GROW * mu, 1e-6 * scale)
            eased = jnp.where(ratio > 0.75, SHRINK * mu, mu)
            eased = jnp.where((ratio < 0.25) | (alpha < 1.0), 2.0 * mu, eased)
            eased = jnp.where(eased < 1e-12 * scale, 0.0, eased)
            mu = jnp.where(good, eased, raised).astype(mu.dtype)
            gains = policy.K if isinstance(policy, Policy) else None
            foreseen = jnp.where(jnp.isfinite(seen), jnp.maximum(seen, foreseen), foreseen)
            told = (foreseen, scale, policy.growth, flat)
            return mu, tries + 1, evals + asked, good, landing, gains, *told

        def again(carry: Any) -> Array:
            return ~carry[3] & (carry[1] < TRIES)

        zero, none = jnp.asarray(0), jnp.zeros_like(state.mu)
        met = state.states if isinstance(model, Stacked) else None
        here = (state.weights, met, state.objective)
        no = jnp.asarray(False)
        start = (state.mu, zero, zero, no, here, state.gains, none, none, none, no)
        mu, _, evals, good, landing, gains, *told = jax.lax.while_loop(again, attempt, start)
        count = state.num_evals + evals + 1
        new = _arrived(problem, state, landing, mu, good, count, told[-1], self.unit)
        kept = jax.tree.map(lambda a, b: jnp.where(good, a, b), gains, state.gains)
        fields = lambda s: (s.gains, s.foreseen, s.scale, s.growth, s.flat)
        return eqx.tree_at(fields, new, (kept, *told), is_leaf=lambda leaf: leaf is None)

    def info(self, state: RiccatiState) -> Info:
        return Info(state.objective, state.size, state.num_evals)

    def terminate(self, problem: ControlProblem, state: RiccatiState) -> Ending:
        reached = _reached(self, state)
        stuck = state.failures >= PATIENCE
        floor = 1e3 * jnp.finfo(state.objective.dtype).eps * jnp.abs(state.objective)
        free = (state.mu <= 1e-3 * state.scale) | state.flat  # no damping holds the step short
        true = (state.foreseen <= floor) & free
        ended = RESULTS.where(true, RESULTS.stagnated, RESULTS.no_descent)
        return reached | stuck, RESULTS.where(reached, RESULTS.successful, ended)

    def found(self, problem: ControlProblem, state: RiccatiState) -> Weights:
        del problem
        return state.weights

    def postprocess(self, problem: ControlProblem, state: RiccatiState) -> Outcome:
        return _outcome(self, problem, state)


def _reached(riccati: Riccati, state: RiccatiState) -> Bool[Array, ""]:
    """Whether the gradient is small: in its unit, and where that is an exploding rollout's, only if
    no fall of `J` is in sight either."""
    size, tol = state.size, riccati.tol
    quiet = (state.growth <= LOUD) | (state.foreseen <= tol * jnp.abs(state.objective))
    return (size <= tol * jnp.minimum(riccati.unit, 1.0)) | ((size <= tol * riccati.unit) & quiet)


def _outcome(riccati: Riccati, problem: ControlProblem, state: RiccatiState) -> Outcome:
    del problem
    message = feedback = None
    mayer = riccati.curvature == "gauss_newton" and bool(state.flat)
    if mayer and not bool(_reached(riccati, state)):
        message = (
            "The costs have no curvature along linearised states: state the running cost as one "
            "(`running=`), not as a state that a linear terminal cost reads, or use 'ddp'."
        )
    if state.gains is not None and bool(jnp.isfinite(state.growth)):
        found = (state.gains, state.weights, state.states, state.objective, state.growth)
        feedback = Feedback(*found)
    along = {"states": state.states, "objective": state.objective} if feedback is not None else {}
    return Outcome(state.weights, message=message, feedback=feedback, **along)


def _model(problem: ControlProblem, state: RiccatiState, exact: Any) -> Stacked | Factored:
    if state.gains is not None:
        return Stacked(problem, state.weights, state.states, state.costates, exact)
    runs = linearise(problem, state.weights, state.states, state.costates, exact)
    return Factored(runs, matrix(runs), flat_weights(problem, state.gradient))


def _initial(riccati: Riccati, problem: ControlProblem, weights: Weights) -> RiccatiState:
    if not isinstance(problem.control_set, Free):
        weights = problem.control_set.project(weights)
    value, states, costates, gradient = backpropagate(problem, weights)
    size = stationarity(problem, weights, gradient, riccati.unit)
    return RiccatiState(
        weights,
        value,
        gradient,
        size,
        states,
        costates,
        # a start that is nearly stationary already needs no Gauss-Newton sweeps first
        jnp.maximum(
            riccati.switch * size, jnp.cbrt(jnp.finfo(value.dtype).eps) * jnp.abs(value)
        ).astype(value.dtype),
        jnp.zeros_like(value),
        jnp.full_like(value, jnp.inf),
        jnp.asarray(0),
        jnp.asarray(1),
        _no_gains(problem, weights, states) if small(problem) else None,
        jnp.full_like(value, jnp.inf if small(problem) else 1.0),
        jnp.full_like(value, jnp.inf),
        jnp.ones_like(value),
        jnp.asarray(False),
    )


def _no_gains(problem: ControlProblem, weights: Weights, states: Trajectory) -> Gains:
    size = lambda tree, count: sum(a.size for a in jax.tree.leaves(tree)) // count
    every = zip(problem.chain.runs, weights, states.runs, strict=True)
    return tuple(
        jnp.zeros((run.length, size(th, run.length), size(x, run.length)), problem.dtype)
        for run, th, x in every
    )


def _check(riccati: Riccati, problem: ControlProblem) -> None:
    who = f"Riccati ({riccati.name})"
    require(problem, "forward", who)  # of each stage alone, beside forward over reverse
    first = 0
    for run in problem.chain.runs:
        if run.tied and run.length > 1:
            raise ValueError(
                f"{who}: every stage needs weights of its own, for feedback answers a state at "
                f"its depth; stages {first} to {first + run.length - 1} are tied. Use `Newton`, "
                "or state them as untied stages."
            )
        first += run.length
    if small(problem):
        return
    if not isinstance(problem.control_set, Free):
        raise ValueError(
            f"{who}: bounds on weights are met stage by stage, which suits at most {STATES} states of "
            f"all samples together and {WEIGHTS} weights a stage; found more. Use `Newton`."
        )
    size = sum(a.size for a in jax.tree.leaves(problem.chain.drawn()))
    if not 0 < size <= LARGEST:
        raise ValueError(
            f"{who}: the sweep factors a matrix of all weights, so there must be 1 to {LARGEST}; "
            f"found {size}. Use `Newton`, which forms no matrix of them."
        )


def _arrived(problem, state, landing, mu, good, evals, flat, unit) -> RiccatiState:
    weights, states, value = landing
    if states is None:
        value, states, costates, gradient = backpropagate(problem, weights)
    else:  # along the closed loop's own states, which no other rollout need reproduce
        costates, gradient = costate(problem, weights, states)
    floor = 10 * jnp.finfo(value.dtype).eps * jnp.abs(value)
    size = stationarity(problem, weights, gradient, unit)
    blind = state.objective - value <= floor
    # Where J is blind the gradient judges alone, so the last steps never lose what was reached.
    good = good & (~blind | (size <= state.size))
    progress = good & (~blind | (size < state.best))
    fields = ("weights", "objective", "gradient", "size", "states", "costates")
    new = (weights, value, gradient, size, states, costates)
    old = tuple(getattr(state, name) for name in fields)
    kept = jax.tree.map(lambda a, b: jnp.where(good, a, b), new, old)
    best = jnp.where(blind & good, jnp.minimum(size, state.best), state.best)
    crossed = (jnp.minimum(size, state.size) <= state.threshold) | flat
    threshold = jnp.where(crossed, jnp.inf, state.threshold)
    failures = jnp.where(progress, 0, state.failures + 1)
    return dataclasses.replace(
        state,
        **dict(zip(fields, kept, strict=True)),
        threshold=threshold,
        mu=mu,
        best=best,
        failures=failures,
        num_evals=evals,
    )


def _search(
    riccati: Riccati, problem: ControlProblem, state: RiccatiState, sweep: Sweep | Policy, mu: Array
) -> tuple[Any, Array, Array, Array, Array]:
    """Halve alpha until J falls as the model says: where it lands, alpha, fall over prediction, tries,
    and the fall that the model sees."""
    slope, bend = sweep.foresight(mu)
    floor = 10 * jnp.finfo(state.objective.dtype).eps * jnp.abs(state.objective)

    def halve(carry: Any) -> Any:
        alpha, tries, *_ = carry
        alpha = jnp.where(tries == 0, 1.0, 0.5 * alpha).astype(slope.dtype)
        new, value = sweep.roll(problem, state.weights, state.states, alpha, riccati.feedback)
        fall = state.objective - value
        predicted = alpha * slope - 0.5 * alpha**2 * bend
        ratio = (fall + floor) / (predicted + floor)
        # NaN compares as no descent: of a factor that does not exist, of values that overflow
        return alpha, tries + 1, jnp.where(predicted >= 0, ratio, jnp.nan), new, value

    def short(carry: Any) -> Array:
        alpha, tries, ratio, *_ = carry
        factored = jnp.isfinite(slope) | (tries == 0)
        return ~(ratio > 1e-4) & (alpha > SHORTEST) & factored

    here = (state.weights, state.states if isinstance(sweep, Policy) else None)
    start = (jnp.ones_like(slope), jnp.asarray(0), jnp.full_like(slope, jnp.nan), here)
    start = (*start, state.objective)
    alpha, tries, ratio, new, value = jax.lax.while_loop(short, halve, start)
    return (*new, value), alpha, ratio, tries, slope - 0.5 * bend

r"""Newton-Krylov in a trust region, on the condensed problem.

    minimise over s   g.s + 1/2 s.H s    subject to  |s|_B <= radius        theta <- theta + s

g   dJ/dtheta, one reverse pass: states and costates are eliminated sample by sample
H   exact: the second-order costate sweep; or Gauss-Newton: H of the costs along linearised states
B   per-stage curvature blocks (see `blocks`), the preconditioner and the metric of the region

The subproblem is solved by conjugate gradients (Steihaug). A direction of negative curvature is
followed to the boundary of the region, not avoided; a step too long for J is shortened along itself.
The residual asked of a step is what the last one's success warrants, so the last steps converge
faster than linearly, down to roundoff; while they succeed they share one preconditioner.

L-BFGS comes first (`quasi_newton`): its steps cost a gradient each. From `BENT` of the first gradient on
its metric is B, built anew every `REFRESH` steps. It hands over to Newton's steps once the gradient has
fallen by `switch`, or has not halved in `CHEAP_STEPS` steps, or J falls no more. A Newton step that ends
at the boundary is taken, and L-BFGS resumes, to a quarter of that threshold.

Bounds on the weights (a control set that is `elementwise`): the step is Newton's on the face that the
weights press against, projected; the bounds' multipliers are minus the gradient there.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int

from hjcontrol._ground.arguments import admits
from hjcontrol._ground.results import RESULTS
from hjcontrol._ground.shown import Shown
from hjcontrol.control import (
    ControlProblem,
    Free,
    backpropagate,
    curvature,
    gauss_newton_curvature,
    value_and_gradient,
)
from hjcontrol.control.control_sets import largest
from hjcontrol.control.hamiltonians import inner
from hjcontrol.control.units import Units, in_units, plain, resolved, stationarity
from hjcontrol.networks import Weights
from hjcontrol.solvers import quasi_newton
from hjcontrol.solvers.blocks import Factors, factored, solved
from hjcontrol.solvers.exact_region import few, stepped
from hjcontrol.solvers.loop import in_turn, once
from hjcontrol.solvers.solver import AbstractSolver, Ending, Info, Outcome
from hjcontrol.solvers.steihaug import Linear, shortened, steihaug


class NewtonState(Shown):
    """A point with its first derivatives, and what the two kinds of step carry along."""

    weights: Weights
    objective: Float[Array, ""]
    gradient: Weights
    size: Float[Array, ""]  # stationarity
    memory: Any  # of the cheap steps; none where no cheap step is taken
    metric: Factors  # curvature blocks; none where the whole Hessian is formed
    age: Int[Array, ""]  # cheap steps since the blocks were built
    radius: Float[Array, ""]
    forcing: Float[Array, ""]  # residual asked of the next Newton step, relative to its gradient
    threshold: Float[Array, ""]  # largest gradient at which a Newton step is tried
    first: Float[Array, ""]  # the first gradient
    cheap: Int[Array, ""]  # cheap steps since the last Newton step, or since the gradient halved
    mark: Float[Array, ""]  # the gradient from which that is counted
    best: Float[Array, ""]  # smallest gradient since J went blind
    failures: Int[Array, ""]  # steps without progress
    num_evals: Int[Array, ""]


NEVER = 2**30  # steps since blocks were built, where there are none
DEFAULT = 1e-10  # tolerance; where the dtype is coarser, what it resolves


@admits(tol=">= 0", switch=">= 0", max_krylov=">= 1")
class Newton(AbstractSolver):
    """Trust-region Newton-Krylov after L-BFGS in the metric of the problem's curvature.

    - `tol`: stop once `max |dH/dtheta| <= tol * unit`; 1e-12 can be reached in float64.
    - `unit`: of `dJ/dtheta`. `hj.solve` measures it (see `control.units`): it is one where the gradient
      is of order one, and a cost that is 1e-8 times as large is solved in the same steps.
    - `curvature`: `"exact"` or `"gauss_newton"`.
    - `switch`: L-BFGS until the gradient is this fraction of the first one (1e-4 at least where the
      weights are so few that the whole Hessian is formed); 1 begins with Newton.
      Larger costs more and can end in a lower minimum of a nonconvex problem, where directions of
      negative curvature are followed earlier.
    - `max_krylov`: most Hessian-vector products a step.

    **Example:**

        >>> import hjcontrol as hj
        >>> solver = hj.solvers.Newton(tol=1e-10)
        >>> solver.name, solver.sets
        ('newton', 'bounds')
    """

    tol: Float[Array, ""] = eqx.field(converter=jnp.asarray, default=DEFAULT)
    curvature: Literal["exact", "gauss_newton"] = eqx.field(static=True, default="exact")
    switch: Float[Array, ""] = eqx.field(converter=jnp.asarray, default=1e-9)
    max_krylov: Int[Array, ""] = eqx.field(converter=jnp.asarray, default=1000)
    unit: Float[Array, ""] | float = 1.0

    asks = "forward-over-reverse"
    sums = True
    sets = "bounds"
    couples = True
    priced = True

    default_max_steps = 5000

    def __check_init__(self):
        if self.curvature not in ("exact", "gauss_newton"):
            raise ValueError(
                f"Newton: `curvature` must be 'exact' or 'gauss_newton'; found {self.curvature!r}."
            )

    @property
    def name(self) -> str:
        return "newton" if self.curvature == "exact" else "gauss-newton"

    def nearby(self) -> "Newton":
        return dataclasses.replace(self, switch=jnp.ones_like(self.switch))

    def measuring(self, units: Units) -> "Newton":
        power = 1.0 if self.curvature == "exact" else 0.5  # Gauss-Newton ends where J goes blind
        tol = resolved(self.tol, DEFAULT, power, units)
        return dataclasses.replace(self, tol=tol, unit=plain(units.gradient))

    def init(self, problem: ControlProblem, weights: Weights, key: Any) -> NewtonState:
        value, gradient = value_and_gradient(problem, weights)
        whole = few(problem, weights)
        blank = () if whole else eqx.filter_eval_shape(_blocks, problem, weights)
        return NewtonState(
            weights,
            value,
            gradient,
            stationarity(problem, weights, gradient, self.unit),
            quasi_newton.begun(ravel_pytree(weights)[0]),
            jax.tree.map(lambda a: jnp.ones(a.shape, a.dtype), blank),
            jnp.asarray(NEVER),
            jnp.asarray(-1.0, value.dtype),  # set by the first metric
            jnp.asarray(LOOSE, value.dtype),
            # L-BFGS knows no bounds.
            (jnp.maximum(self.switch, SWITCH_FEW if whole else 0.0) * largest(gradient)).astype(
                value.dtype
            )
            if isinstance(problem.control_set, Free)
            else jnp.full((), jnp.inf, value.dtype),
            largest(gradient).astype(value.dtype),
            jnp.asarray(0),
            largest(gradient).astype(value.dtype),
            jnp.full((), jnp.inf, value.dtype),
            jnp.asarray(0),
            jnp.asarray(1),
        )

    def step(self, problem: ControlProblem, state: NewtonState) -> NewtonState:
        whole = few(problem, state.weights)
        most = CHEAP_STEPS if not whole else CHEAP_FEW
        cheap = (state.size > state.threshold) & (state.cheap < most)
        newton = _whole_step if whole else _newton_step
        dear = ~cheap & ~self.terminate(problem, state)[0]  # members of a `vmap` that are done wait
        if not whole:
            due = (state.size <= BENT * state.first) & (state.age >= REFRESH)
            state = in_turn((due & cheap) | dear, _rebuilt, problem, state)
        state = once(cheap, lambda s: _cheap_step(problem, s, self.unit), state)
        return in_turn(dear, newton, self, problem, state)

    def info(self, state: NewtonState) -> Info:
        return Info(state.objective, state.size, state.num_evals)

    def terminate(self, problem: ControlProblem, state: NewtonState) -> Ending:
        del problem
        reached = state.size <= self.tol * self.unit
        stuck = state.failures >= PATIENCE
        return reached | stuck, RESULTS.where(reached, RESULTS.successful, RESULTS.stagnated)

    def postprocess(self, problem: ControlProblem, state: NewtonState) -> Outcome:
        return Outcome(state.weights)


def _correction(
    newton: Newton, problem: ControlProblem, state: NewtonState
) -> tuple[Bool[Array, ""], NewtonState]:
    """One step in the region, and whether the model held and more is to be gained."""
    value, gradient = state.objective, state.gradient
    product = (curvature if newton.curvature == "exact" else gauss_newton_curvature)(
        problem, state.weights
    )
    solve = lambda v: solved(state.metric, v)
    size, home = state.size, state.weights
    if not isinstance(problem.control_set, Free):
        product, solve, gradient, home = _on_face(problem, state, product, solve, newton.unit)
    # The block step underestimates the whole one along directions that couple stages.
    first = jnp.sqrt(inner(gradient, solve(gradient)))
    radius = jnp.where(state.radius <= 0, FIRST_RADIUS * first, state.radius)
    # No more residual than the last step's success warrants (Eisenstat & Walker, choice 2), and
    # none below the tolerance.
    residual = jnp.maximum(state.forcing * size, 0.5 * newton.tol * newton.unit).astype(size.dtype)
    path = steihaug(product, solve, gradient, radius, CONCAVE * first, residual, newton.max_krylov)
    # Near a stationary point J changes by less than its own roundoff: the ratio
    # is noise, so both sides get the same floor (Conn, Gould & Toint, section 17.4.2), which
    # lets every step pass; progress is then the gradient's, and not a step-by-step one.
    floor = _unseen(value)
    at = (state.weights, value, state.gradient)
    path, tries, (weights, new_value, new_gradient) = shortened(problem, at, path, floor, home)
    radius = jnp.where(tries > 1, path.length, radius)
    ratio = (value - new_value + floor) / (path.decrease + floor)
    blind = path.decrease <= floor
    accept = (ratio > 1e-4) & jnp.isfinite(new_value)
    radius = jnp.where(
        ~(ratio > 0.25),
        0.25 * jnp.minimum(radius, path.length),
        jnp.where((ratio > 0.75) & path.boundary, 2.5 * radius, radius),
    )
    end = jax.tree.map(lambda a, b: jnp.where(accept, a, b), (weights, new_value, new_gradient), at)
    new_size = stationarity(problem, weights, new_gradient, newton.unit)
    held = (ratio > 0.25) & ~path.boundary & (tries == 1)
    succeeded = held & (new_size < 0.5 * size) & (new_size > newton.tol * newton.unit)
    state = _judged(state, end, new_size, accept, path.boundary, blind)
    return succeeded, dataclasses.replace(
        state,
        radius=radius,
        forcing=jnp.clip(0.9 * (new_size / size) ** 1.5, TIGHT, LOOSE),
        num_evals=state.num_evals + 1 + tries + path.products,
    )


def _unseen(value: Float[Array, ""]) -> Float[Array, ""]:
    """What J cannot tell apart."""
    return 10 * jnp.finfo(value.dtype).eps * jnp.maximum(jnp.abs(value), 1e-300)


def _judged(
    state: NewtonState, end: Any, size: Array, accept: Array, boundary: Array, blind: Array
) -> NewtonState:
    """The state after a step in the region: at its `end` where it was accepted. `size`: of the gradient
    there; `blind`: whether J was too coarse to judge the step."""
    weights, objective, gradient = end
    progress = accept & (~blind | (size < state.best))
    early = jnp.where(boundary & ~blind, 0.25, 1.0).astype(state.threshold.dtype)
    size = jnp.where(accept, size, state.size)
    return dataclasses.replace(
        state,
        weights=weights,
        objective=objective,
        gradient=gradient,
        size=size,
        threshold=early * state.threshold,
        cheap=jnp.where(accept, 0, CHEAP_STEPS),  # a refused step is tried again, shorter
        mark=size,
        best=jnp.where(blind & accept, jnp.minimum(size, state.best), state.best),
        failures=jnp.where(progress, 0, state.failures + 1),
    )


def _whole_step(newton: Newton, problem: ControlProblem, state: NewtonState) -> NewtonState:
    """One step in the region by the whole Hessian."""
    value = state.objective
    kind = curvature if newton.curvature == "exact" else gauss_newton_curvature
    floor = _unseen(value)
    at = (state.weights, value, state.gradient)
    step = stepped(problem, kind(problem, state.weights), at, state.radius, floor)
    size, blind = largest(step.end[2]), step.decrease <= floor
    state = _judged(state, step.end, size, step.accepted, step.boundary, blind)
    count = ravel_pytree(state.weights)[0].size
    return dataclasses.replace(
        state, radius=step.radius, num_evals=state.num_evals + step.tries + count
    )


def _blocks(problem: ControlProblem, weights: Weights) -> Factors:
    """Factored curvature blocks, of a first chunk of the samples."""
    few = problem.first_chunk
    _, states, costates, _ = backpropagate(few, weights)
    return factored(few, weights, states, costates)


def _rebuilt(problem: ControlProblem, state: NewtonState) -> NewtonState:
    metric = _blocks(problem, state.weights)
    return dataclasses.replace(state, metric=metric, age=jnp.zeros_like(state.age))


def _newton_step(newton: Newton, problem: ControlProblem, state: NewtonState) -> NewtonState:
    """Corrections in one metric, for as long as each is a whole success."""

    def proceed(carry: Any) -> Array:
        count, succeeded, _ = carry
        return (count < CORRECTIONS) & succeeded

    def correct(carry: Any) -> Any:
        count, _, state = carry
        return count + 1, *_correction(newton, problem, state)

    start = (jnp.asarray(0), jnp.asarray(True), state)
    return jax.lax.while_loop(proceed, correct, start)[-1]


FIRST_RADIUS = 1000.0  # in lengths of the block step, which couplings of stages make too short
CONCAVE = 30.0
CHEAP_STEPS = 100  # at most, until the gradient halves: a long valley is Newton's after all
CHEAP_FEW, SWITCH_FEW = 100, 1e-4  # where the whole Hessian is cheap
BENT = 1e-2  # of the first gradient: from here on the blocks are the metric of the cheap steps
REFRESH = 150  # cheap steps in one metric
PATIENCE = 12
CORRECTIONS = 5  # most Newton steps that share a preconditioner
LOOSE, TIGHT = 0.1, 1e-4  # forcing terms


def _cheap_step(problem: ControlProblem, state: NewtonState, unit: Any) -> NewtonState:
    """One step of L-BFGS with its line search, on J / unit: its first step is as long as the gradient."""
    flat, unravel = ravel_pytree(state.weights)  # many small leaves cost more than one vector
    step = quasi_newton.stepped(
        lambda v: in_units(problem.objective(unravel(v.astype(flat.dtype))), unit),
        flat,
        in_units(state.objective, unit),
        in_units(ravel_pytree(state.gradient)[0], unit),
        state.memory,
        _metric(state, unravel, unit),
    )
    value, gradient = unit * step.value, unit * step.gradient
    size = jnp.max(jnp.abs(gradient))
    halved = size < 0.5 * state.mark
    # A line search that lowers J no more hands over to Newton, for good.
    stalled = ~(value < state.objective)
    return dataclasses.replace(
        state,
        weights=unravel(step.at),
        objective=value,
        gradient=unravel(gradient),
        size=size,
        memory=step.memory,
        age=state.age + 1,
        radius=jnp.where(stalled, state.radius, -1.0).astype(state.radius.dtype),
        forcing=jnp.full_like(state.forcing, LOOSE),
        threshold=jnp.where(stalled, jnp.inf, state.threshold).astype(state.threshold.dtype),
        cheap=jnp.where(halved, 0, state.cheap + 1),
        mark=jnp.where(halved, size, state.mark),
        num_evals=state.num_evals + step.tries,
    )


def _metric(state: NewtonState, unravel: Callable, unit: Any) -> quasi_newton.Metric:
    """The inverse of the curvature of J / unit, as far as it is known."""
    if not state.metric:
        return lambda v: v
    one = lambda v: unit * ravel_pytree(solved(state.metric, unravel(v)))[0]
    return lambda v: jnp.where(state.age < NEVER, one(v), v)


NEAR = 1e-3  # a bound is met from this far, and from nearer the smaller the stationarity


def _on_face(
    problem: ControlProblem, state: NewtonState, product: Linear, solve: Linear, unit: Any
) -> tuple[Linear, Linear, Weights, Weights]:
    """The model on the face of the set that the weights press against: curvature, preconditioner,
    gradient, and the weights moved onto it (Bertsekas 1982, projected Newton)."""
    within = jnp.minimum(state.size / unit, NEAR).astype(state.size.dtype)
    active, home = problem.control_set.active(state.weights, state.gradient, within)
    inside = lambda v: jax.tree.map(lambda a, x: jnp.where(a, 0, x), active, v)
    return (
        lambda v: inside(product(inside(v))),
        lambda v: inside(solve(inside(v))),
        inside(state.gradient),
        home,
    )

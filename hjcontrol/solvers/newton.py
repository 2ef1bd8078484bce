r"""Newton-Krylov in a trust region, on the condensed problem.

    minimise over s   g.s + 1/2 s.H s    subject to  |s|_B <= radius        theta <- theta + s

g   dJ/dtheta, one reverse pass: states and costates are eliminated sample by sample
H   exact: the second-order costate sweep; or Gauss-Newton: H of the costs along linearised states
B   per-stage curvature blocks (see `blocks`), the preconditioner and the metric of the region

The subproblem is solved by conjugate gradients (Steihaug). A direction of negative curvature is
followed to the boundary of the region, not avoided; a step too long for J is shortened along itself.
The residual asked of a step is what the last one's success warrants, so the last steps converge
faster than linearly, down to roundoff; while they succeed they share one preconditioner.

Far from a minimum, where the region and not the curvature decides a step, L-BFGS goes as far for a
fraction of the price: such cheap steps come first, until the gradient has fallen by `switch`. A
Newton step that then still ends at the boundary is taken, and cheap steps resume, to a quarter of
that threshold, or for `CHEAP_STEPS`.

Bounds on the weights (a control set that is `elementwise`): the step is Newton's on the face that the
weights press against, projected; the bounds' multipliers are minus the gradient there.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
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
from hjcontrol.solvers.blocks import preconditioner
from hjcontrol.solvers.exact_region import few, stepped
from hjcontrol.solvers.solver import AbstractSolver, Info, Outcome
from hjcontrol.solvers.steihaug import Linear, Path, axpy, steihaug


class NewtonState(Shown):
    """A point with its first derivatives, and what the two kinds of step carry along."""

    weights: Weights
    objective: Float[Array, ""]
    gradient: Weights
    size: Float[Array, ""]  # stationarity
    lbfgs: Any
    radius: Float[Array, ""]
    forcing: Float[Array, ""]  # residual asked of the next Newton step, relative to its gradient
    threshold: Float[Array, ""]  # largest gradient at which a Newton step is tried
    floor: Float[Array, ""]  # below it J is too coarse for cheap steps
    cheap: Int[Array, ""]  # cheap steps since the last Newton step
    best: Float[Array, ""]  # smallest gradient since J went blind
    failures: Int[Array, ""]  # steps without progress
    num_evals: Int[Array, ""]


DEFAULT = 1e-10  # tolerance; where the dtype is coarser, what it resolves


@admits(tol=">= 0", switch=">= 0", max_krylov=">= 1")
class Newton(AbstractSolver):
    """Trust-region Newton-Krylov with a cheap start.

    - `tol`: stop once `max |dH/dtheta| <= tol * unit`; 1e-12 can be reached in float64.
    - `unit`: of `dJ/dtheta`. `hj.solve` measures it (see `control.units`): it is one where the gradient
      is of order one, and a cost that is 1e-8 times as large is solved in the same steps.
    - `curvature`: `"exact"` or `"gauss_newton"`.
    - `switch`: cheap steps until the gradient is this fraction of the first one; 1 begins with Newton.
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
    switch: Float[Array, ""] = eqx.field(converter=jnp.asarray, default=1e-4)
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
        return NewtonState(
            weights,
            value,
            gradient,
            stationarity(problem, weights, gradient, self.unit),
            _CHEAP.init(ravel_pytree(weights)[0]),
            jnp.asarray(-1.0, value.dtype),  # set by the first metric
            jnp.asarray(LOOSE, value.dtype),
            # L-BFGS knows no bounds.
            (self.switch * largest(gradient)).astype(value.dtype)
            if isinstance(problem.control_set, Free)
            else jnp.full((), jnp.inf, value.dtype),
            jnp.sqrt(jnp.finfo(value.dtype).eps) * largest(gradient),
            jnp.asarray(0),
            jnp.full((), jnp.inf, value.dtype),
            jnp.asarray(0),
            jnp.asarray(1),
        )

    def step(self, problem: ControlProblem, state: NewtonState) -> NewtonState:
        whole = few(problem, state.weights)
        most = CHEAP_STEPS if not whole else CHEAP_FEW
        cheap = (state.size > state.threshold) & (state.cheap < most)
        newton = _whole_step if whole else _newton_step
        state = _once(cheap, lambda s: _cheap_step(problem, s, self.unit), state)
        return _once(~cheap, lambda s: newton(self, problem, s), state)

    def info(self, state: NewtonState) -> Info:
        return Info(state.objective, state.size, state.num_evals)

    def terminate(
        self, problem: ControlProblem, state: NewtonState
    ) -> tuple[Bool[Array, ""], RESULTS]:
        del problem
        reached = state.size <= self.tol * self.unit
        stuck = state.failures >= PATIENCE
        return reached | stuck, RESULTS.where(reached, RESULTS.successful, RESULTS.stagnated)

    def postprocess(self, problem: ControlProblem, state: NewtonState) -> Outcome:
        return Outcome(state.weights)


def _correction(
    newton: Newton, problem: ControlProblem, solve: Linear, state: NewtonState
) -> tuple[Bool[Array, ""], NewtonState]:
    """One step in the region, and whether the model held and more is to be gained."""
    value, gradient = state.objective, state.gradient
    product = (curvature if newton.curvature == "exact" else gauss_newton_curvature)(
        problem, state.weights
    )
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
    floor = 10 * jnp.finfo(value.dtype).eps * jnp.maximum(jnp.abs(value), 1e-300)
    path, tries, (weights, new_value, new_gradient) = _shortened(problem, state, path, floor, home)
    radius = jnp.where(tries > 1, path.length, radius)
    ratio = (value - new_value + floor) / (path.decrease + floor)
    blind = path.decrease <= floor
    accept = (ratio > 1e-4) & jnp.isfinite(new_value)
    radius = jnp.where(
        ~(ratio > 0.25),
        0.25 * jnp.minimum(radius, path.length),
        jnp.where((ratio > 0.75) & path.boundary, 2.5 * radius, radius),
    )
    kept = jax.tree.map(
        lambda a, b: jnp.where(accept, a, b),
        (weights, new_value, new_gradient),
        (state.weights, value, state.gradient),
    )
    early = path.boundary & ~blind
    new_size = stationarity(problem, weights, new_gradient, newton.unit)
    progress = accept & (~blind | (new_size < state.best))
    weights, objective, gradient = kept
    held = (ratio > 0.25) & ~path.boundary & (tries == 1)
    succeeded = held & (new_size < 0.5 * size) & (new_size > newton.tol * newton.unit)
    return succeeded, NewtonState(
        weights,
        objective,
        gradient,
        jnp.where(accept, new_size, size),
        state.lbfgs,
        radius,
        jnp.clip(0.9 * (new_size / size) ** 1.5, TIGHT, LOOSE),
        jnp.maximum(
            jnp.where(early, 0.25, 1.0).astype(radius.dtype) * state.threshold, state.floor
        ),
        state.floor,
        jnp.where(accept, 0, CHEAP_STEPS),  # a refused step is tried again, shorter
        jnp.where(blind & accept, jnp.minimum(new_size, state.best), state.best),
        jnp.where(progress, 0, state.failures + 1),
        state.num_evals + 1 + tries + path.products,
    )


def _once(when: Array, do: Callable[[NewtonState], NewtonState], state: NewtonState) -> NewtonState:
    """`do(state)` or the state. Under `vmap` a `cond` would do both for all; this does nothing where it
    is nobody's turn."""
    body = lambda carry: (jnp.zeros_like(when), do(carry[1]))
    return jax.lax.while_loop(lambda carry: carry[0], body, (when, state))[1]


def _whole_step(newton: Newton, problem: ControlProblem, state: NewtonState) -> NewtonState:
    """One step in the region by the whole Hessian."""
    value, size = state.objective, state.size
    kind = curvature if newton.curvature == "exact" else gauss_newton_curvature
    floor = 10 * jnp.finfo(value.dtype).eps * jnp.maximum(jnp.abs(value), 1e-300)
    at = (state.weights, value, state.gradient)
    step = stepped(problem, kind(problem, state.weights), at, state.radius, floor)
    weights, objective, gradient = step.end
    new_size, blind = largest(gradient), step.decrease <= floor
    progress = step.accepted & (~blind | (new_size < state.best))
    early = step.boundary & ~blind
    return NewtonState(
        weights,
        objective,
        gradient,
        new_size,
        state.lbfgs,
        step.radius,
        state.forcing,
        jnp.maximum(jnp.where(early, 0.25, 1.0).astype(size.dtype) * state.threshold, state.floor),
        state.floor,
        jnp.where(step.accepted, 0, CHEAP_STEPS),
        jnp.where(blind & step.accepted, jnp.minimum(new_size, state.best), state.best),
        jnp.where(progress, 0, state.failures + 1),
        state.num_evals + step.tries + ravel_pytree(weights)[0].size,
    )


def _newton_step(newton: Newton, problem: ControlProblem, state: NewtonState) -> NewtonState:
    """Corrections with one preconditioner, for as long as each is a whole success."""
    few = problem.first_chunk
    _, states, costates, _ = backpropagate(few, state.weights)
    solve = preconditioner(few, state.weights, states, costates)

    def proceed(carry: Any) -> Array:
        count, succeeded, _ = carry
        return (count < CORRECTIONS) & succeeded

    def correct(carry: Any) -> Any:
        count, _, state = carry
        return count + 1, *_correction(newton, problem, solve, state)

    start = (jnp.asarray(0), jnp.asarray(True), state)
    return jax.lax.while_loop(proceed, correct, start)[-1]


_CHEAP = optax.lbfgs()
FIRST_RADIUS = 1000.0  # in lengths of the block step, which couplings of stages make too short
CONCAVE = 30.0
CHEAP_FEW = 100  # where the whole Hessian is cheap
CHEAP_STEPS = 400  # at most, between two Newton steps: a long valley is Newton's after all
PATIENCE = 12
CORRECTIONS = 5  # most Newton steps that share a preconditioner
LOOSE, TIGHT = 0.1, 1e-4  # forcing terms


def _cheap_step(problem: ControlProblem, state: NewtonState, unit: Any) -> NewtonState:
    """One step of L-BFGS with its line search, on J / unit: its first step is as long as the gradient."""
    flat, unravel = ravel_pytree(state.weights)  # many small leaves cost more than one vector
    objective = lambda v: in_units(problem.objective(unravel(v.astype(flat.dtype))), unit)
    slope = in_units(ravel_pytree(state.gradient)[0], unit)
    change, lbfgs = _CHEAP.update(
        slope,
        state.lbfgs,
        flat,
        value=in_units(state.objective, unit),
        grad=slope,
        value_fn=objective,
    )
    flat = optax.apply_updates(flat, change)
    value, gradient = (unit * optax.tree_utils.tree_get(lbfgs, name) for name in ("value", "grad"))
    tries = optax.tree_utils.tree_get(lbfgs, "num_linesearch_steps")
    # A line search that lowers J no more hands over to Newton, for good.
    stalled = ~(value < state.objective)
    carried = (
        jnp.where(stalled, state.radius, -1.0).astype(state.radius.dtype),
        jnp.full_like(state.forcing, LOOSE),
        jnp.where(stalled, jnp.inf, state.threshold).astype(state.threshold.dtype),
        state.cheap + 1,
    )
    return eqx.tree_at(
        lambda s: (
            s.weights,
            s.objective,
            s.gradient,
            s.size,
            s.lbfgs,
            s.num_evals,
            s.radius,
            s.forcing,
            s.threshold,
            s.cheap,
        ),
        state,
        (
            unravel(flat),
            value,
            unravel(gradient),
            jnp.max(jnp.abs(gradient)),
            lbfgs,
            state.num_evals + tries,
            *carried,
        ),
    )


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


SHORTEN = 0.25
SHORTEST = 1e-4


def _shortened(
    problem: ControlProblem, state: NewtonState, path: Path, floor: Array, home: Weights
) -> tuple[Path, Int[Array, ""], tuple[Weights, Array, Weights]]:
    """The path from `home`, shortened until J falls as the model says (Nocedal & Yuan); how often J was
    asked; and the weights at its end with J and its gradient.

    A whole new path in a smaller region costs a preconditioner and its conjugate gradients; a trial
    on this one costs a gradient.
    """
    slope = inner(state.gradient, path.step)
    bend = -2.0 * (slope + path.decrease)  # of the model along the step
    decrease = lambda a: -a * slope - 0.5 * a**2 * bend

    def too_long(carry: Any) -> Array:
        a, tries, (_, value, _) = carry
        falls = state.objective - value + floor > 0.1 * (decrease(a) + floor)
        return (tries == 0) | (~falls & (a > SHORTEST))

    def shorter(carry: Any) -> Any:
        a, tries, _ = carry
        a = jnp.where(tries == 0, a, SHORTEN * a)
        weights = problem.control_set.project(axpy(a, path.step, home))
        return a, tries + 1, (weights, *value_and_gradient(problem, weights))

    end = (state.weights, state.objective, state.gradient)
    one = jnp.ones_like(state.objective)
    a, tries, end = jax.lax.while_loop(too_long, shorter, (one, jnp.asarray(0), end))
    step = jax.tree.map(lambda z: a * z, path.step)
    return Path(step, a * path.length, decrease(a), path.boundary, path.products), tries, end

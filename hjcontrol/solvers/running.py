"""A solve as a pure function: what `hj.solve` does between its start and its report.

    run(problem, solver, weights, max_steps)  ->  Ended          under jit, vmap and grad

The steps, the tests for convergence and the detection of non-finite values are the driver's. Left out is
what needs a host: progress, the history, checkpoints, the clock, and words about a failure. `vmap` over
seeds, strengths, temperatures or data is one program for all of them; its loop ends with its last
member. Derivatives are those of `implicit`.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from hjcontrol._ground.arguments import admits
from hjcontrol._ground.meshes import automatic
from hjcontrol._ground.results import RESULTS
from hjcontrol._ground.shown import Shown
from hjcontrol.control import ControlProblem, value_and_gradient
from hjcontrol.control.units import measured
from hjcontrol.networks import Weights
from hjcontrol.solvers.closures import opened
from hjcontrol.solvers.ends import held_at_a_time
from hjcontrol.solvers.implicit import moved
from hjcontrol.solvers.loop import advance, initial
from hjcontrol.solvers.names import by_name
from hjcontrol.solvers.selection import admit
from hjcontrol.solvers.solver import AbstractHostSolver, AbstractSolver, summed


class Ended(Shown):
    """Where a run ended: weights, `J`, `max |dH/dtheta|`, the outcome, steps and evaluations."""

    weights: Weights
    objective: Float[Array, "..."]
    stationarity: Float[Array, "..."]
    result: RESULTS
    num_steps: Int[Array, "..."]
    num_evals: Int[Array, "..."]


@admits(max_steps=">= 0")
def run(
    problem: ControlProblem,
    solver: AbstractSolver | str,
    weights: Weights,
    max_steps: int | Int[Array, ""] | None = None,
    *,
    key: Key[Array, ""] | None = None,
) -> Ended:
    """Solve a control problem by a pure function, which may be jitted, vmapped and differentiated.

    **Arguments:**

    - `problem`: its arrays may be traced: a strength, a temperature, the data.
    - `solver`: a method that runs inside JAX, or its name; its tolerances may be traced.
    - `weights`: to start from, as `problem.init(key)` draws them.
    - `max_steps`: step limit; the method's own default without it. `key`: for minibatches.

    **Returns:** `Ended`, the same weights as `hj.solve` ends with. Their derivative in whatever the
    problem holds is the implicit function's, `-(d2J/dtheta2)^-1 d2J/dtheta dc`, exact at a stationary
    point: ask for a small `tol`. It is NaN unless the result is `successful`; in `weights` (the start)
    and in the solver's settings it is zero.

    **Raises:** `ValueError` for wrong shapes, a problem the method cannot treat, or a method that runs
    outside JAX; and, when differentiated, for constraints or a control set without bounds.

    **Example:**

        >>> import jax, jax.numpy as jnp, hjcontrol as hj
        >>> x = jnp.array([[1.0], [-0.5]])
        >>> def best(strength):
        ...     problem = hj.ControlProblem(
        ...         [hj.readout(1, 1)], x, 2 * x, terminal=hj.least_squares, running=hj.Ridge(strength)
        ...     )
        ...     start = problem.init(jax.random.key(0))
        ...     return hj.solvers.run(problem, hj.Newton(tol=1e-6), start, 50).objective
        >>> jax.vmap(best)(jnp.array([0.1, 1.0, 10.0])).shape
        (3,)
    """
    solver = by_name(solver) if isinstance(solver, str) else solver
    if isinstance(solver, AbstractHostSolver):
        raise ValueError(
            f"run: {solver.name} runs outside JAX, so it is no pure function. Use `hj.solve`, or a "
            "method such as Newton or Gradient."
        )
    if problem.stream is not None and not summed(problem, solver):
        raise ValueError(
            f"run: {solver.name} takes these samples in batches that come from outside, which is no pure "
            "function. Use `hj.solve`, or state the problem on arrays."
        )
    if problem.stream is not None:
        problem = held_at_a_time(problem, solver, None, None)
    weights, problem = automatic(weights), opened(problem)
    problem.chain.check_weights("run", weights)
    admit(problem, solver)
    solver.ready()
    limit = jnp.asarray(solver.default_max_steps if max_steps is None else max_steps)
    weights, result, counts = _solved(problem, solver, weights, limit, key)
    value, gradient = value_and_gradient(problem, weights)
    stationarity = jax.lax.stop_gradient(problem.control_set.stationarity(weights, gradient))
    return Ended(weights, value, stationarity, result, *counts)


@eqx.filter_custom_jvp
def _solved(
    problem: ControlProblem, solver: AbstractSolver, weights: Weights, limit: Array, key: Any
) -> tuple[Weights, RESULTS, tuple[Array, Array]]:
    solver = solver.measuring(measured(problem, weights))
    start = initial(solver, problem, weights, key)
    state, count, done, result, _ = advance(solver, problem, start, limit, careful=True)
    result = RESULTS.where(done, result, RESULTS.max_steps_reached)
    return solver.found(problem, state), result, (count, solver.info(state).num_evals)


@_solved.def_jvp
def _(primals: Any, tangents: Any) -> Any:
    problem, along = primals[0], tangents[0]
    weights, result, counts = _solved(*primals)
    answer = (weights, result, counts)
    change = moved(problem, weights, along)
    # A run that ended elsewhere has no such derivative, and says so.
    known = jnp.where(result == RESULTS.successful, 1.0, jnp.nan)
    change = jax.tree.map(lambda a: a * known.astype(a.dtype), change)
    return answer, (change, *(jax.tree.map(lambda _: None, part) for part in answer[1:]))

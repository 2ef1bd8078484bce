"""The loop of a traceable method, as one jitted program: its start, and some of its steps.

A state may be large (curvature blocks), so the loop holds one and not the one before it as well: what a
step that is not finite has spoilt, the driver makes good by running the steps before it once more.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from hjcontrol._ground.results import RESULTS
from hjcontrol.control import ControlProblem
from hjcontrol.networks import Weights
from hjcontrol.solvers.solver import AbstractSolver

ROWS = 256  # steps recorded in one entry of the jitted loop


@eqx.filter_jit
def initial(solver: AbstractSolver, problem: ControlProblem, weights: Weights, key: Any) -> Any:
    """The state at the start, its types strong as the loop returns them: it is compiled once."""

    def strong(leaf: Any) -> Any:
        numeric = eqx.is_array(leaf) and not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        return jax.lax.convert_element_type(leaf, leaf.dtype) if numeric else leaf

    return jax.tree.map(strong, solver.init(problem, weights, key))


@eqx.filter_jit
def advance(
    solver: AbstractSolver,
    problem: ControlProblem,
    state: Any,
    limit: Int[Array, ""],
    careful: bool = False,
):
    """At most `limit` steps; stops early when the method does or when a value is not finite, behind that
    step, or before it if `careful`, which holds each state twice."""
    dynamic, static = eqx.partition(state, eqx.is_array)

    def verdict(state: Any) -> tuple[Any, RESULTS]:
        info = solver.info(state)
        done, result = solver.terminate(problem, state)
        finite = jnp.isfinite(info.objective) & jnp.isfinite(info.stationarity)
        return done | ~finite, RESULTS.where(finite, result, RESULTS.nonfinite)

    def proceed(carry: Any) -> Any:
        count, _, done, _, _ = carry
        return (count < limit) & ~done

    def body(carry: Any) -> Any:
        count, dynamic, _, _, (objectives, stationarities) = carry
        new = solver.step(problem, eqx.combine(dynamic, static))
        done, result = verdict(new)
        info = solver.info(new)
        rows = (
            objectives.at[count].set(info.objective),
            stationarities.at[count].set(info.stationarity),
        )
        kept = eqx.filter(new, eqx.is_array)
        if careful:
            failed = done & (result == RESULTS.nonfinite)
            kept = jax.tree.map(lambda a, b: jnp.where(failed, b, a), kept, dynamic)
        return count + 1, kept, done, result, rows

    done, result = verdict(state)
    empty = jnp.zeros(ROWS, problem.dtype)
    count, dynamic, done, result, rows = jax.lax.while_loop(
        proceed, body, (jnp.asarray(0), dynamic, done, result, (empty, empty))
    )
    return eqx.combine(dynamic, static), count, done, result, rows

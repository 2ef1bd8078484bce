"""The loop of a traceable method, as one jitted program: its start, and some of its steps.

A state may be large (curvature blocks), so the loop holds one and not the one before it as well: what a
step that is not finite has spoilt, the driver makes good by running the steps before it once more.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from hjcontrol._ground.results import RESULTS
from hjcontrol.control import ControlProblem
from hjcontrol.networks import Weights
from hjcontrol.solvers.solver import AbstractSolver

ROWS = 256  # steps recorded in one entry of the jitted loop


def strong(state: Any) -> Any:
    """The state without weak types: a program that takes it, and returns it so, is compiled once."""

    def one(leaf: Any) -> Any:
        numeric = eqx.is_array(leaf) and not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        return jax.lax.convert_element_type(leaf, leaf.dtype) if numeric else leaf

    return jax.tree.map(one, state)


@eqx.filter_jit
def initial(solver: AbstractSolver, problem: ControlProblem, weights: Weights, key: Any) -> Any:
    """The state at the start."""
    return strong(solver.init(problem, weights, key))


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
        kept = strong(eqx.filter(new, eqx.is_array))
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


def once(when: Bool[Array, ""], do: Callable[[Any], Any], state: Any) -> Any:
    """`do(state)` or the state. Under `vmap` a `cond` would do both for all; this does nothing where it
    is nobody's turn."""
    body = lambda carry: (jnp.zeros_like(when), do(carry[1]))
    return jax.lax.while_loop(lambda carry: carry[0], body, (when, state))[1]


def in_turn(when: Bool[Array, ""], do: Callable[..., Any], *args: Any) -> Any:
    """`do(*args)` or the last of `args`. Under `vmap` one member after another, each only where it is its
    turn: for what costs more than many members gain by going together. `do` takes all that is traced as
    an argument."""
    arrays, static = eqx.partition(args, eqx.is_array)
    own = jax.tree.structure(arrays[-1])

    def alone(when: Any, arrays: Any) -> Any:
        def one(last: Any) -> Any:
            found = do(*eqx.combine((*arrays[:-1], jax.tree.unflatten(own, last)), static))
            return jax.tree.leaves(eqx.filter(found, eqx.is_array))

        return once(when, one, jax.tree.leaves(arrays[-1]))

    leaves = jax.custom_batching.sequential_vmap(alone)(when, arrays)
    return eqx.combine(jax.tree.unflatten(own, leaves), static[-1])

"""Where a problem is not a finite number: which part of it, at which depth, of which sample.

A constraint that is NaN or infinite at a start has no direction to be met in: no method can begin there.
A cost or a state that is not finite ends a run, and the words say which.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from hjcontrol._ground.concrete import known
from hjcontrol.control.pricing import path_values
from hjcontrol.control.problem import ControlProblem
from hjcontrol.control.trajectory import Trajectory, by_runs
from hjcontrol.networks import Weights

_compiled: Callable[[Callable[..., Any]], Callable[..., Any]] = functools.cache(eqx.filter_jit)


def check_constraints(
    who: str, problem: ControlProblem, weights: Weights, guess: tuple[Array, ...] | None = None
) -> None:
    """Refuse a start, or states `guess` x_0 .. x_K in its place, at which a constraint is not finite.

    **Raises:** `ValueError` naming the constraint, its depth and the sample.
    """
    if not problem.path and problem.terminal_constraint is None:
        return
    states = None if guess is None else Trajectory(by_runs(problem.chain, guess), guess[-1])
    values, end = _compiled(_constraints)(problem, weights, states)
    depth = len(problem.chain)
    found = [_place(f"the path constraint {name!r}", c) for name, c in values.items()]
    found.append(None if end is None else _place("the terminal constraint", end[:, None], depth))
    words = next(filter(None, found), None)
    if words is not None:
        raise ValueError(
            f"{who}: {words} at the start, so no method can begin there. Begin elsewhere, by `init=` "
            "weights or `Guess(weights, states)`, or state the constraint so that it is finite."
        )


def not_finite(problem: ControlProblem, weights: Weights) -> str | None:
    """The first part of a problem that is not finite at these weights; `None` if all of it is."""
    given = ("inputs", "targets", "forcing", "context")
    words = data_not_finite({name: getattr(problem, name) for name in given})
    if words is not None:
        return words
    if not all(bool(np.isfinite(a).all()) for a in jax.tree.leaves(weights)):
        return "The weights are not finite."
    states, running, terminal = _compiled(_costs)(problem, weights)
    along = [(k, a) for k, x in enumerate(states) for a in jax.tree.leaves(x)]
    found = [_place("the state", jnp.reshape(a, (len(a), 1, -1)), k) for k, a in along]
    found.append(_place("the running cost", running))
    found.append(_place("the terminal cost", terminal[:, None, None], len(problem.chain)))
    words = next(filter(None, found), None)
    return None if words is None else f"{words[0].upper()}{words[1:]}."


def data_not_finite(named: Mapping[str, Any], first: int = 0, of: str = "sample") -> str | None:
    """The first samples of arrays, by name, that are not finite; `None` if all are. `first`: the number
    of the first sample, or of the batch."""
    for name, tree in named.items():
        for leaf in jax.tree.leaves(tree):
            rows = known(leaf)
            if rows is not None and not np.isfinite(rows.reshape(len(rows), -1)).all():
                i = int(np.flatnonzero(~np.isfinite(rows.reshape(len(rows), -1)).all(axis=1))[0])
                return f"`{name}` of {of} {first + (0 if of == 'batch' else i)} are not finite."
    return None


def _constraints(
    problem: ControlProblem, weights: Weights, states: Trajectory | None
) -> tuple[Mapping[str, Array], Array | None]:
    states = problem.rollout(weights) if states is None else states
    ending = problem.terminal_constraint
    end = None if ending is None else ending.values(problem, states.final)
    return path_values(problem, weights, states), end


def _costs(problem: ControlProblem, weights: Weights) -> tuple[Trajectory, Array, Array]:
    """States, running costs `(n, K, 1)` and terminal costs `(n,)`."""
    states, n = problem.rollout(weights), problem.num_samples

    def body(r: int, carry: Any, stage: Any, theta: Any, u: Any, x: Any) -> tuple[Any, Array]:
        paid = jax.vmap(lambda x, u: jnp.asarray(problem.state_cost(x, theta, u), problem.dtype))
        return carry, jnp.broadcast_to(paid(x, u), (n,))

    _, running = problem.fold(body, 0, weights, states.runs)
    terminal = jax.vmap(problem.terminal_cost)(states.final, problem.targets)
    return states, jnp.concatenate(running).T[..., None], terminal


def _place(name: str, values: Array, first: int = 0) -> str | None:
    """Where values `(n, depths, m)` or a number are not finite; `first`: the depth of the first ones."""
    found = known(values)
    if found is None or np.isfinite(found).all():
        return None
    if found.ndim == 0:
        return f"{name} is {found}"
    i, k, j = np.argwhere(~np.isfinite(found))[0]
    return f"{name} is {found[i, k, j]} at depth {first + k} of sample {i}"

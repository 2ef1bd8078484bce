"""Costs that close over a traced value, with that value as a part of the problem.

    terminal = lambda x, y: eps * phi(x / eps, y)          eps traced: its derivative is asked for

A custom derivative sees what a problem holds and not what its functions close over. Such a function is
traced once for one sample, and what it closes over becomes its arrays.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from hjcontrol._ground.concrete import traced
from hjcontrol._ground.shapes import of_drawn, of_one
from hjcontrol._ground.shown import line_of
from hjcontrol.control import ControlProblem, StateCost, WeightCost
from hjcontrol.control.ensemble import replaced


def opened(problem: ControlProblem) -> ControlProblem:
    """The problem whose terminal and running costs hold what they close over.

    **Raises:** `ValueError` for a stage, a reading cost or a constraint that closes over a traced value.
    """
    fields: dict[str, Any] = {}
    if closes(problem.terminal):
        weights = of_drawn(problem.init)
        final = jax.eval_shape(problem.rollout, weights).final
        read = (final,) if problem.targets is None else (final, problem.targets)
        fields["terminal"] = _held(problem.terminal, of_one(read))
    running = [_cost(problem, cost) for cost in problem.running]
    if any(new is not old for new, old in zip(running, problem.running, strict=True)):
        fields["running"] = tuple(running)
    return replaced(problem, **fields) if fields else problem


def check_closures(who: str, problem: ControlProblem) -> None:
    """Refuse functions that close over a traced value, where values are needed.

    **Raises:** `ValueError`.
    """
    named = [("terminal", problem.terminal)]
    named += [("running", getattr(cost, "function", None)) for cost in problem.running]
    named += [("stages", getattr(run.stage, "function", None)) for run in problem.chain.runs]
    for name, function in named:
        if closes(function):
            raise ValueError(
                f"{who}: `{name}` of the problem, {line_of(function)}, holds a value that jit, vmap or "
                f"grad hide. Call {who} outside of these, or use `hj.solvers.run`, which may be traced."
            )


def _cost(problem: ControlProblem, cost: Any) -> Any:
    function = getattr(cost, "function", None)
    if not closes(function):
        return cost
    weights = of_drawn(problem.init)
    states = jax.eval_shape(problem.rollout, weights).runs
    alike = len(problem.chain.runs) == 1 and not problem.chain.runs[0].tied
    if alike and isinstance(cost, WeightCost):
        return eqx.tree_at(lambda c: c.function, cost, _held(function, (of_one(weights[0]),)))
    if alike and isinstance(cost, StateCost) and cost.reads == "nothing":
        shapes = (of_one(of_one(states[0])), of_one(weights[0]))
        return eqx.tree_at(lambda c: c.function, cost, _held(function, shapes))
    raise ValueError(
        "run: a running cost closes over a value that is traced, and a derivative in it is not seen. "
        "Write the cost as an `eqx.Module` that holds the value."
    )


def closes(function: Any, within: tuple[int, ...] = ()) -> bool:
    """Whether a plain function closes over, or has as a default, a traced value. `within`: the functions
    that hold this one."""
    if isinstance(function, eqx.Module) or not callable(function) or id(function) in within:
        return False
    cells = [c.cell_contents for c in getattr(function, "__closure__", None) or ()]
    held = (*cells, *(getattr(function, "__defaults__", None) or ()))
    functions = (a for a in held if callable(a) and hasattr(a, "__closure__"))
    inner = any(closes(a, (*within, id(function))) for a in functions)
    return inner or any(traced(a) for a in jax.tree.leaves(held))


def _held(function: Callable[..., Any], shapes: tuple[Any, ...]) -> Any:
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    return eqx.filter_closure_convert(function, *zeros)

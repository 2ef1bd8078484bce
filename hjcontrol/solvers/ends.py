"""The two ends of a solve: where it starts, and what is kept and told of it."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from hjcontrol._ground.by_shape import looked_at_once
from hjcontrol._ground.meshes import automatic
from hjcontrol._ground.quick import quick_jit
from hjcontrol._ground.results import RESULTS
from hjcontrol.control import ControlProblem, Free, Solution, backpropagate
from hjcontrol.control.capability import complaint
from hjcontrol.control.derivatives import sketched
from hjcontrol.control.finiteness import not_finite
from hjcontrol.control.streams import some
from hjcontrol.control.units import Units, measured
from hjcontrol.networks import Weights
from hjcontrol.networks.model import draws
from hjcontrol.solvers.checkpoint import Checkpoint, Keeper, identity
from hjcontrol.solvers.solver import AbstractSolver, Outcome, summed

# One wrapper a function: making it takes a millisecond.
compiled: Callable[[Callable[..., Any]], Callable[..., Any]] = functools.cache(quick_jit)
MAPPED = 1024  # rows of a memory map that are read at a time, where a step takes all of them
PASS = 256  # samples at a time, where a method of minibatches looks at all of them


def held_at_a_time(
    problem: ControlProblem, solver: AbstractSolver, chunk: int | None, keep: str | None
) -> ControlProblem:
    """The problem with the chunk asked for, or that of a method of minibatches: it never holds the states
    of all samples.

    **Raises:** `ValueError` for a chunk that is none, or states of a stream.
    """
    if keep == "all" and problem.stream is not None:
        raise ValueError("solve: `keep` must be 'weights' for a stream: its samples are not held.")
    if chunk is not None:
        return problem.in_chunks(chunk)
    batch = getattr(solver, "batch_size", None)
    mapped = problem.stream is not None and summed(problem, solver)
    if problem.chunk is not None or (problem.stream is not None and not mapped):
        return problem
    if not mapped and batch is None:
        return problem
    if problem.path or problem.terminal_constraint is not None:
        return problem
    most = MAPPED if mapped else max(batch, PASS)
    n = problem.num_samples
    most = min(most, n) if mapped else most
    # A chunk that divides the samples leaves no remainder, and so no second program.
    even = [size for size in range(most // 2, most + 1) if size and n % size == 0]
    return problem.in_chunks(max(even, default=most))


def stationarity(problem: ControlProblem, weights: Weights, gradient: Weights) -> Array:
    """How far from stationary, in the measure of the problem's control set; one program."""
    return compiled(type(problem.control_set).stationarity)(problem.control_set, weights, gradient)


def units_of(problem: ControlProblem, weights: Weights, solver: AbstractSolver) -> Units:
    """The problem's units at the start; of minibatches with free weights, which ask for none, the unit
    one: nothing is computed."""
    batches = not summed(problem, solver)
    if batches and solver.streams and isinstance(problem.control_set, Free):
        return Units(1.0, 1.0, 1.0)
    problem = some(problem) if batches else problem
    return measured(problem, weights, compiled(sketched if problem.chunked else backpropagate))


def trimmed(solution: Solution, problem: ControlProblem, keep: str | None) -> Solution:
    """The solution of the problem as it was stated, without states where only weights are kept."""
    if keep is None and problem is solution.problem:
        return solution
    if keep == "all" and solution._trajectory is None:
        _, states, costates, _ = eqx.filter_jit(backpropagate)(problem, solution.weights)
    else:
        states, costates = solution._trajectory, solution._costate
    none = keep == "weights"
    return dataclasses.replace(
        solution,
        problem=problem,
        _trajectory=None if none else states,
        _costate=None if none else costates,
    )


@looked_at_once()
def begun(problem: ControlProblem, init: Any, key: Any) -> Weights:
    """The weights to start from.

    **Raises:** `ValueError` without any, or for weights of another shape.
    """
    if isinstance(init, Solution):
        init = init.weights
    if init is None:
        if key is None and not any(draws(run[0]) for run in problem.chain.runs):
            key = jax.random.key(0)  # the model came with its weights, and nothing is drawn
        if key is None:
            raise ValueError(
                "solve: a start is needed. Pass `init=` weights, or `key=jax.random.key(seed)`."
            )
        return problem.init(key)
    init = automatic(init)
    problem.chain.check_weights("solve: `init`", init)
    shape = problem.chain.drawn()
    init = jax.tree.unflatten(jax.tree.structure(shape), map(jnp.asarray, jax.tree.leaves(init)))
    floating = lambda s: jnp.issubdtype(s.dtype, jnp.floating)
    return jax.tree.map(
        lambda a, s: a.astype(problem.dtype if floating(s) else s.dtype), init, shape
    )


def keeping(problem, solver, weights, key, checkpoint, resume) -> Keeper | None:
    """What keeps the run's checkpoints; `None` for nothing.

    **Raises:** `ValueError` for a method that runs outside JAX.
    """
    if checkpoint is None:
        if resume:
            raise ValueError("solve: `resume=True` needs `checkpoint=`, the folder to resume from.")
        return None
    if problem.stream is not None:
        raise ValueError(
            "solve: a `checkpoint` holds all that a run depends on, and cannot hold the place of a "
            "stream. Leave it out; `init=solution.weights` starts anew from a solution's weights."
        )
    if not solver.traceable:
        raise ValueError(
            f"solve: {solver.name} runs outside JAX, and what its solver holds between two iterations "
            "cannot be written down: there is nothing to resume bit by bit. Leave `checkpoint` out; "
            "`init=solution.weights` starts anew from a solution's weights."
        )
    place = checkpoint if isinstance(checkpoint, Checkpoint) else Checkpoint(checkpoint)
    return Keeper(place, identity(problem, solver, weights, key), resume)


@contextlib.contextmanager
def explained(problem: ControlProblem, start: Weights) -> Iterator[None]:
    """What a stage raises while the program runs (an implicit scheme on numbers that are not finite),
    in the stage's own words where it has some."""
    try:
        yield
    except eqx.EquinoxRuntimeError as error:
        words = complaint(some(problem), start)
        if words is None:
            words = (
                f"{str(error).split('---')[0].strip()}\nIt was raised at weights that the method tried; "
                "at the start every state is finite. Start nearer, take shorter steps, or let the stage "
                "give NaN instead of raising."
            )
        raise RuntimeError(f"solve: {words}") from error


def words_of(problem, solver, state, outcome: Outcome, result) -> str | None:
    """What the method says of its end, and what is not finite there: at the weights given back, or at
    those that the next step would have tried; in a stage's own words if it has some."""
    if not bool(result == RESULTS.nonfinite):
        said = solver.said(problem) if bool(result == RESULTS.successful) else None
        return outcome.message or said
    problem, weights = some(problem), outcome.weights
    words = complaint(problem, weights)
    if words is None and solver.traceable:
        tried = eqx.filter_jit(solver.step)(problem, state)
        words = complaint(problem, solver.postprocess(problem, tried).weights)
    words = not_finite(problem, weights) if words is None else words
    return "; ".join(filter(None, (outcome.message, words))) or None

"""The loop over batches that come from outside: one jitted step a batch.

    state <- step(problem on batch t, state)        t = 1, 2, ...        as they come, epoch after epoch

JAX runs a step while the next batch is read; the figures of `READ` steps are fetched at a time. At the
end J and its gradient are means over one epoch, or over as many batches as were trained on, if those are
fewer (a stream need not end). No states are held.
"""

import itertools
import time
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from hjcontrol._ground.results import RESULTS
from hjcontrol.control import ControlProblem, Solution, value_and_gradient
from hjcontrol.control.finiteness import data_not_finite
from hjcontrol.control.solution import stats_of
from hjcontrol.networks import Weights
from hjcontrol.solvers.solver import AbstractSolver, summed

READ = 64


def check_stream(problem: ControlProblem, solver: AbstractSolver) -> None:
    """Refuse a solver that needs all samples, or a drawing that the stream cannot make.

    **Raises:** `ValueError`.
    """
    if problem.stream is None:
        return
    rows, size = problem.stream.rows, getattr(solver, "batch_size", None)
    if summed(problem, solver):
        return
    if not solver.streams:
        also = "hj.Newton, hj.Gradient" if rows is not None else "hj.Gradient"
        raise ValueError(
            f"{solver.name}: it needs the states of all samples in memory, and the samples come in "
            f"batches. Use {also}, or state the problem on arrays."
        )
    if rows is None and size is not None:
        raise ValueError(
            f"{solver.name}: a loader makes its own batches; found `batch_size` = {size}. Leave it out."
        )
    if rows is not None and not 1 <= (size or 0) <= rows:
        raise ValueError(
            f"{solver.name}: `batch_size` must lie in 1 .. {rows} (the rows of the memory map); found "
            f"{size}."
        )


def run_streamed(problem, solver, weights, key, max_steps, meter, watch):
    """As the driver's other runs: the last state, its number of steps, the result, seconds compiling."""
    clock = time.perf_counter()
    stream = problem.stream
    if stream.rows is not None and key is None:
        raise ValueError(f"{solver.name}: minibatches need `key=jax.random.key(seed)` in `solve`.")
    batches = stream.drawn(solver.batch_size, key)
    first = next(batches, None)
    solver = solver.arriving()
    state = _begun(solver, problem, first, weights, key)
    alive = jnp.asarray(True)
    jax.block_until_ready(_step(solver, problem, first, state, alive))  # compiled, and thrown away
    compile_seconds = time.perf_counter() - clock
    info, rows, why = solver.info(state), [], None
    meter.start(float(info.objective), float(info.stationarity))
    begun = time.perf_counter()
    for batch in itertools.islice(itertools.chain([first], batches), max_steps):
        state, alive, row = _step(solver, problem, batch, state, alive)
        rows.append(row)
        steps = meter.steps + len(rows)
        due = watch is not None and steps % watch.every == 0
        if len(rows) < READ and not due and steps < max_steps:
            continue
        living = _read(rows, meter, begun)
        rows, begun = [], time.perf_counter()
        if not living:
            return state, meter.steps, RESULTS.nonfinite, compile_seconds
        if watch is not None and due:
            why = watch.look(solver, problem, state, meter.row)
        if why is not None:
            return state, meter.steps, RESULTS.stopped, compile_seconds
    return state, meter.steps, RESULTS.max_steps_reached, compile_seconds


def finished_stream(problem, solver, state, ended: tuple, meter, watch) -> Solution:
    """What the last state gives, J and stationarity measured once more on the stream."""
    steps, result, compile_seconds = ended
    outcome = solver.postprocess(problem, state if watch is None else watch.kept(state))
    outcome = outcome if watch is None else watch.told(outcome)
    weights, total, n, bad = outcome.weights, None, 0, None
    most = None if problem.stream.rows else max(steps, 1)
    for number, batch in enumerate(itertools.islice(problem.stream.epoch(), most)):
        count = len(jax.tree.leaves(batch[0])[0])
        if bool(result == RESULTS.nonfinite) and bad is None:
            first = (n, "sample") if problem.stream.rows else (number, "batch")
            bad = data_not_finite({"inputs": batch[0], "targets": batch[1]}, *first)
        total = _added(problem, batch, weights, total, jnp.asarray(float(count)))
        jax.block_until_ready(total)  # or all batches of the epoch would be read ahead
        n += count
    value, gradient = jax.tree.map(lambda a: a / n, total)
    message = outcome.message or bad
    stationarity = problem.control_set.stationarity(weights, gradient)
    evals = int(solver.info(state).num_evals)
    return Solution(
        weights=weights,
        _trajectory=None,
        _costate=None,
        objective=value,
        result=result,
        stats={
            **stats_of(steps, evals, value, stationarity, compile_seconds, meter.seconds),
            **({} if message is None else {"message": message}),
            **({} if watch is None else watch.stats()),
        },
        history=meter.history(),
        problem=problem,
        solver=solver.name,
    )


@eqx.filter_jit
def _begun(
    solver: AbstractSolver, problem: ControlProblem, batch: Any, weights: Weights, key: Any
) -> Any:
    return solver.init(problem.placed(*batch), weights, key)


@eqx.filter_jit
def _step(
    solver: AbstractSolver, problem: ControlProblem, batch: Any, state: Any, alive: Bool[Array, ""]
) -> tuple[Any, Bool[Array, ""], tuple[Array, ...]]:
    """One step; a state that is not finite, and all after it, are not kept."""
    new = solver.step(problem.placed(*batch), state)
    info = solver.info(new)
    alive = alive & jnp.isfinite(info.objective) & jnp.isfinite(info.stationarity)
    dynamic, static = eqx.partition(new, eqx.is_array)
    old = eqx.filter(state, eqx.is_array)
    kept = jax.tree.map(lambda a, b: jnp.where(alive, a, b), dynamic, old)
    return eqx.combine(kept, static), alive, (info.objective, info.stationarity, alive)


@eqx.filter_jit
def _added(problem: ControlProblem, batch: Any, weights: Weights, total: Any, count: Array) -> Any:
    found = value_and_gradient(problem.placed(*batch), weights)
    part = jax.tree.map(lambda a: a * count.astype(a.dtype), found)
    return part if total is None else jax.tree.map(jnp.add, total, part)


def _read(rows: list[tuple[Array, ...]], meter: Any, begun: float) -> bool:
    """Fetch the figures of some steps; whether all of them were finite."""
    found = np.asarray(jax.device_get(rows), float)
    living = int(found[:, 2].sum())
    shown = min(living + 1, len(found))  # with the step that failed, as in the driver
    meter.add(time.perf_counter() - begun, found[:shown, 0], found[:shown, 1])
    return living == len(found)

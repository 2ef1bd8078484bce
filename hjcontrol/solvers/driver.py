"""The one loop: every method is driven from here.

    hj.solve(problem, method, init=weights)  ->  Solution

The driver owns the step limit, the detection of non-finite values, the progress meter, the history
and the clock. Traceable methods run as one jitted program, entered in chunks of some tenths of a
second so that progress can be shown, checkpoints written and Ctrl-C obeyed without any callback on the
hot path.
"""

import os
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from hjcontrol._ground.arguments import admits, answers, concrete
from hjcontrol._ground.interruptions import held
from hjcontrol._ground.memory import ready
from hjcontrol._ground.results import RESULTS
from hjcontrol._ground.threads import one_blas_thread
from hjcontrol.control import ControlProblem, Guess, History, Solution, backpropagate, costate
from hjcontrol.control.capability import coarse
from hjcontrol.control.derivatives import totals
from hjcontrol.control.finiteness import check_constraints
from hjcontrol.control.solution import priced_by, stats_of
from hjcontrol.networks import Weights
from hjcontrol.solvers import ends
from hjcontrol.solvers.checkpoint import Checkpoint, Snapshot
from hjcontrol.solvers.closures import check_closures
from hjcontrol.solvers.loop import ROWS, advance, initial
from hjcontrol.solvers.names import by_name
from hjcontrol.solvers.progress import Progress, followed
from hjcontrol.solvers.selection import admit, first
from hjcontrol.solvers.solver import AbstractHostSolver, AbstractSolver, summed
from hjcontrol.solvers.streaming import check_stream, finished_stream, run_streamed
from hjcontrol.solvers.watching import watching

CHUNK_SECONDS = 0.25


@admits(max_steps=">= 0")
def solve(
    problem: ControlProblem,
    solver: AbstractSolver | str,
    *,
    init: Weights | Solution | Guess | None = None,
    key: Key[Array, ""] | None = None,
    max_steps: int | None = None,
    progress: Progress | bool | None = None,
    throw: bool = False,
    checkpoint: Checkpoint | str | os.PathLike[str] | None = None,
    resume: bool = False,
    keep: Literal["all", "weights"] | None = None,
    chunk: int | None = None,
    callback: Callable[..., Any] | None = None,
    validation: Any = None,
    patience: int | None = None,
    every: int = 100,
) -> Solution:
    """Solve a control problem.

    **Arguments:**

    - `solver`: a method of `hjcontrol.solvers`, its name, or `"auto"`: what `select` chooses.
    - `init`: weights to start from, or a `Solution` to continue, or a `Guess` of weights and states.
      Without it, a model that came with weights starts from them; others are drawn with `key`.
    - `key`: for drawing the start and for minibatches.
    - `max_steps`: step limit; the method's own default without it.
    - `progress`: called as `progress(step, objective, stationarity, seconds)` a few times a second;
      `True` shows them on standard error: a live line on a terminal, elsewhere a line every few seconds.
    - `throw`: raise if the result is not `successful`, instead of returning it.
    - `checkpoint`: a folder, or a `Checkpoint` with one: the run's whole state is kept there, so that
      it can be resumed after any interruption. Ctrl-C writes one before it is raised.
    - `resume`: continue from the folder's newest checkpoint, to the very bits that an uninterrupted run
      ends with; from the start if there is none. All else must be as it was, but for `max_steps`.
    - `keep`: `"weights"` leaves states and costates out of the solution, which makes them when asked;
      `"all"` holds them. Without it, minibatches and chunks leave them out.
    - `chunk`: samples whose states are held at a time, as in `ControlProblem`.
    - `callback`: called as `callback(info)` every `every` steps; a true answer ends the run. `info` has
      `step`, `objective`, `stationarity`, `seconds`, `weights` and `validation`.
    - `validation`: inputs, or a pair (inputs, targets), held out: their cost, without that of the weights
      alone, is measured every `every` steps and at the end; `stats["validation"]` has rows (step, cost).
    - `patience`: end the run after so many looks at `validation` without a smaller cost, and return the
      weights of the smallest.

    **Returns:** a `Solution`, also on Ctrl-C-free failure: read `solution.result`.

    **Raises:** `ValueError` for wrong types and shapes, a problem the method cannot treat, a
    `checkpoint` of a method that runs outside JAX, or one that is another run's.

    **Example:**

        >>> import jax, jax.numpy as jnp, hjcontrol as hj
        >>> x = jnp.array([[1.0], [-0.5]])
        >>> stages = [hj.networks.Residual(hj.networks.Dense(1, 1), 0.5)] * 3
        >>> problem = hj.ControlProblem(
        ...     stages, x, jnp.sin(x), terminal=hj.least_squares, running=hj.Ridge(0.1)
        ... )
        >>> solution = hj.solve(problem, hj.solvers.Newton(tol=1e-10), key=jax.random.key(0))
        >>> bool(solution.result == hj.RESULTS.successful), bool(solution.stats["stationarity"] < 1e-9)
        (True, True)
    """
    clock = time.perf_counter()
    guess = init if isinstance(init, Guess) else None
    init = guess.weights if guess is not None else init
    concrete("solve", problem=problem, init=init, key=key)
    check_closures("solve", problem)
    if callable(progress):
        answers("solve", "progress", progress, "step", "objective", "stationarity", "seconds")
    if auto := isinstance(solver, str) and solver == "auto":
        solver = first(problem)
    solver = by_name(solver) if isinstance(solver, str) else solver
    weights = ends.begun(problem, init, key)
    max_steps = solver.default_max_steps if max_steps is None else max_steps
    if max_steps < 0:
        raise ValueError(f"solve: `max_steps` must be >= 0; found {max_steps}.")
    check_stream(problem, solver)
    if not auto:  # which has asked
        admit(problem, solver)
        solver.ready()
    if isinstance(init, Solution):
        solver = solver.continued(init)
    along = None if guess is None else guess.along(problem)
    if along is not None:
        solver = solver.guessed(along)
    check_constraints("solve", problem, weights, along)
    original, problem = problem, ends.held_at_a_time(problem, solver, chunk, keep)
    watch = watching(problem, solver, callback, validation, patience, every, checkpoint)
    keeper = ends.keeping(problem, solver, weights, key, checkpoint, resume)
    follow = followed(solver.name) if progress is True else nullcontext(progress or None)
    run = partial(_run_traced, keeper=keeper, watch=watch) if solver.traceable else _run_host
    finish = _finished
    if problem.stream is not None and not summed(problem, solver):
        run, finish = partial(run_streamed, watch=watch), finished_stream
    # OpenBLAS's spinning threads hinder XLA's: a Cholesky factor of order 1000 takes 0.9 s, not 0.02.
    with one_blas_thread(), ends.explained(problem, weights), follow as show:
        meter = _Meter(show)
        solver = solver.measuring(ends.units_of(problem, weights, solver))
        state, steps, result, compile_seconds = run(problem, solver, weights, key, max_steps, meter)
    if watch is not None and not bool(result == RESULTS.nonfinite):
        watch.end(solver, problem, state, meter.row)
    best = state if watch is None else watch.kept(state)
    problem, original = (solver.settled(p, best) for p in (problem, original))
    solution = finish(problem, solver, state, (steps, result, compile_seconds), meter, watch)
    solution = ends.trimmed(solution, original if chunk is None else problem, keep)
    del state, best, run  # a transcribed program takes a while to let go of: it is the call's time
    spent = compile_seconds + meter.seconds
    solution.stats["other_seconds"] = time.perf_counter() - clock - spent
    if throw and not bool(solution.result == RESULTS.successful):  # the end may be judged otherwise
        words = " ".join([RESULTS[solution.result], *filter(None, [solution.stats.get("message")])])
        raise RuntimeError(f"{solver.name}: {words}\n{solution}")
    return solution


def _finished(problem, solver, state, ended: tuple[int, RESULTS, float], meter, watch) -> Solution:
    """What the last state gives. States, costates and stationarity are computed afresh."""
    steps, result, compile_seconds = ended
    outcome = solver.postprocess(problem, state if watch is None else watch.kept(state))
    outcome = outcome if watch is None else watch.told(outcome)
    message = ends.words_of(problem, solver, state, outcome, result)
    nu, path = outcome.terminal_multiplier, outcome.path_multipliers
    stated = priced_by(problem, nu, path)
    final = totals if problem.chunked and not outcome.mesh else backpropagate
    value, states, costates, gradient = ends.compiled(final)(stated, outcome.weights)
    if stated is not problem:  # the price of the constraint is no part of J
        value = ends.compiled(ControlProblem.objective)(problem, outcome.weights)
    stationarity = ends.stationarity(problem, outcome.weights, gradient)
    result, message = outcome.settled(result, message, float(stationarity))
    doubt = outcome.doubt(problem, value) if bool(result == RESULTS.successful) else None
    if doubt is not None:
        result, message = RESULTS.open_loop_unstable, doubt
        value, states = outcome.objective, outcome.states
        costates, gradient = eqx.filter_jit(costate)(stated, outcome.weights, states)
        stationarity = ends.stationarity(problem, outcome.weights, gradient)
    rough = None
    if bool(result == RESULTS.successful):
        rough = (outcome.coarse(states) if outcome.mesh else None) or coarse(
            problem, outcome.weights
        )
    if rough is not None:
        result, message = RESULTS.too_coarse, rough
    evals = int(solver.info(state).num_evals)
    return Solution(
        weights=outcome.weights,
        _trajectory=states,
        _costate=costates,
        objective=value,
        result=result,
        stats={
            **stats_of(steps, evals, value, stationarity, compile_seconds, meter.seconds),
            **({} if message is None else {"message": message}),
            **({} if outcome.path is None else {"path": outcome.path}),
            **({} if watch is None else watch.stats()),
        },
        history=meter.history(),
        problem=problem,
        solver=solver.name,
        multipliers=outcome.multipliers,
        terminal_multiplier=nu,
        path_multipliers=path,
        weight_multipliers=outcome.weight_multipliers,
        feedback=outcome.feedback,
    )


class _Meter:
    """The clock, the history and the progress line."""

    def __init__(self, show: Progress | None):
        self.show = show
        self.seconds = 0.0
        self.rows: list[tuple[float, float, float]] = []
        self.steps = 0

    def add(self, seconds: float, objective: np.ndarray, stationarity: np.ndarray) -> None:
        """Record the steps of one chunk, spread evenly over its time."""
        count = len(objective)
        times = self.seconds + seconds * np.arange(1, count + 1) / max(count, 1)
        self.rows += zip(times.tolist(), objective.tolist(), stationarity.tolist(), strict=True)
        self.seconds += seconds
        self.steps += count
        if self.show is not None and count:
            self.show(self.steps, self.rows[-1][1], self.rows[-1][2], self.seconds)

    def start(self, objective: float, stationarity: float) -> None:
        self.rows.append((self.seconds, objective, stationarity))

    @property
    def row(self) -> tuple[int, float, float, float]:
        """The last step: its number, objective, stationarity and seconds."""
        seconds, objective, stationarity = self.rows[-1]
        return self.steps, objective, stationarity, seconds

    def snapshot(self, state: Any, chunk: int) -> Snapshot:
        """The run as it stands, apart from what comes after."""
        return Snapshot(state, self.steps, self.rows[:], self.seconds, chunk)

    def restore(self, kept: Snapshot) -> None:
        """Go on from a checkpoint."""
        self.rows = [tuple(row) for row in np.asarray(kept.rows).tolist()]
        self.steps, self.seconds = kept.steps, kept.seconds

    def history(self) -> History:
        columns = np.asarray(self.rows, float).reshape(-1, 3).T
        return History(seconds=columns[0], objective=columns[1], stationarity=columns[2])


def _run_traced(problem, solver, weights, key, max_steps, meter, keeper, watch):
    clock = time.perf_counter()
    kept = None
    if keeper is not None:
        kept = keeper.newest(eqx.filter_eval_shape(initial, solver, problem, weights, key))
    if kept is None:
        state, chunk = ready(initial, solver, problem, weights, key), 1
    else:
        state, chunk = kept.state, kept.chunk
        meter.restore(kept)
        if meter.steps > max_steps:
            raise ValueError(
                f"solve: the checkpoint is at step {meter.steps}, beyond `max_steps` = {max_steps}. "
                "Raise it."
            )
    # A chunk of no steps compiles the loop, and its cost is the compilation's.
    ready(advance, solver, problem, state, jnp.asarray(0))
    compile_seconds = time.perf_counter() - clock
    if kept is None:
        info = solver.info(state)
        meter.start(float(info.objective), float(info.stationarity))
    begun = meter.snapshot(state, chunk)
    if keeper is not None and kept is None:
        keeper.write(begun)
    with held() as stop:
        ended = _steps(problem, solver, begun, max_steps, meter, (keeper, watch), stop)
    return *ended, compile_seconds


def _steps(problem, solver, safe, max_steps, meter, beside, stop):
    """The loop: chunk after chunk, each followed by whatever the clock or a Ctrl-C asks for."""
    (keeper, watch), why = beside, None
    state, chunk, last = safe.state, safe.chunk, time.monotonic()
    try:
        while True:
            limit = min(chunk, max_steps - meter.steps)
            limit = limit if watch is None else min(limit, watch.left(meter.steps))
            clock = time.perf_counter()
            before = state
            state, count, done, result, rows = jax.block_until_ready(
                advance(solver, problem, before, jnp.asarray(limit))
            )
            rows, count = jax.device_get(rows), int(count)
            meter.add(time.perf_counter() - clock, rows[0][:count], rows[1][:count])
            # A step that failed is not kept: a resumed run meets it again, and says so again.
            failed = bool(done) and bool(result == RESULTS.nonfinite)
            if failed:  # the steps before it once more
                state = advance(solver, problem, before, jnp.asarray(max(count - 1, 0)))[0]
            if watch is not None and not failed and int(count):
                why = watch.look(solver, problem, state, meter.row)
            over = bool(done) or meter.steps >= max_steps or why is not None
            seconds = time.perf_counter() - clock
            fast = seconds < CHUNK_SECONDS / 2 or jax.process_count() > 1  # no clock of one's own
            grow = 2 if fast else (0.5 if seconds > 2 * CHUNK_SECONDS else 1)
            chunk = int(min(max(chunk * grow, 1), ROWS))
            if keeper is not None and not failed:
                safe = meter.snapshot(state, chunk)
                if over or time.monotonic() - last >= keeper.place.every:
                    keeper.keep(safe)
                    last = time.monotonic()
            if over and not stop.asked:
                early = RESULTS.max_steps_reached if why is None else RESULTS.stopped
                return state, meter.steps, result if bool(done) else early
            if stop.asked:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        if keeper is not None:
            keeper.keep(safe)
        raise


def _run_host(problem, solver: AbstractHostSolver, weights, key, max_steps, meter):
    clock = time.perf_counter()

    def report(step: int, objective: float, stationarity: float) -> None:
        now = time.perf_counter() - began
        meter.rows.append((now, objective, stationarity))
        meter.steps = step
        if meter.show is not None:
            meter.show(step, objective, stationarity, now)

    solver = solver.hosted(report, max_steps)
    state = solver.init(problem, weights, key)
    compile_seconds = time.perf_counter() - clock
    info = solver.info(state)
    meter.start(float(info.objective), float(info.stationarity))
    began = time.perf_counter()
    done, result = solver.terminate(problem, state)
    while not bool(done) and meter.steps < max_steps:
        before = meter.steps
        state = solver.step(problem, state)
        meter.steps = max(meter.steps, before + 1)
        done, result = solver.terminate(problem, state)
    meter.seconds = time.perf_counter() - began
    if not bool(done):
        result = RESULTS.max_steps_reached
    return state, meter.steps, result, compile_seconds

r"""Indirect shooting: the minimum principle as a two-point boundary-value problem.

    (x_{k+1}, p_{k+1}) = canonical step of (x_k, p_k)     x_0 given      p_K = (1/n) dPhi/dx(x_K)

single     unknown p_0; the residual is the condition at the end
multiple   unknown also (x, p) at the start of every later segment; the residual also the jumps
homotopy   a path of problems, from an easy one to this one: see `homotopy`

Newton on the residual, damped until it falls. The weights are shared, so all samples are coupled: the
dense matrix has order n d (2 segments - 1), fit for tens of samples. The answer is an extremal; that
it is a minimum is for `hj.verify` to say.

A `Flow` is stepped by its own integrator, its control constant (or a path through knots) on a piece; the
costate is the discrete one, and tends to p' = -dH/dx as the pieces shorten. Compiling its second
derivatives takes long: keep its `max_steps` small.

H. J. Pesch, A practical guide to the solution of real-life optimal control problems (1994).
"""

import dataclasses
import itertools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from hjcontrol._ground.arguments import admits
from hjcontrol._ground.results import RESULTS
from hjcontrol._ground.shown import Shown
from hjcontrol.control import (
    ControlProblem,
    Trajectory,
    backpropagate,
    terminal_costate,
    value_and_gradient,
)
from hjcontrol.control.capability import require
from hjcontrol.control.trajectory import by_runs, swapped
from hjcontrol.control.units import Units, plain
from hjcontrol.networks import Weights
from hjcontrol.solvers.canonical import stepped
from hjcontrol.solvers.homotopy import (
    Deformation,
    Level,
    checked,
    first_level,
    next_level,
    reported,
    terminal_weight,
)
from hjcontrol.solvers.solver import AbstractSolver, Ending, Info, Outcome

HALVINGS = 12


class Path(Shown):
    """Where the canonical system came through: weights and costates, guesses of the next pass."""

    weights: Weights
    later: tuple[Float[Array, "n length ..."], ...]  # p_{k+1}, by runs


class ShootingState(Shown):
    """Unknowns, the residual there, and how far the homotopy is."""

    start: Float[Array, "n ..."]  # p_0
    nodes: Float[Array, "2 nodes n ..."]  # (x, p) at the start of every later segment
    path: Path
    residual: Float[Array, ""]
    level: Level
    solved: Any  # the last level that was met: start, nodes, path
    failed: Bool[Array, ""]
    info: Info


@admits(segments=">= 1", tol=">= 0")
class Shooting(AbstractSolver):
    """Shooting on the costate.

    - `segments`: 1 is single shooting; at most the number of stages.
    - `homotopy`: `True` begins with no terminal cost and raises its weight to one; a function
      `homotopy(problem, eps)`, eps from 0 to 1, gives the problems of another path, the last of which is
      the problem. The levels that were met are in `solution.stats["path"]`.
    - `tol`: largest coordinate of the residual, states and costates in their units.
    - `units`: of gradient, costates and states; `hj.solve` measures them (see `control.units`).

    **Example:**

        >>> import hjcontrol as hj
        >>> hj.solvers.Shooting(segments=4).segments
        4
    """

    segments: int = eqx.field(static=True, default=1)
    homotopy: bool | Deformation = False
    tol: Float[Array, ""] = eqx.field(converter=jnp.asarray, default=1e-11)
    units: Units = Units(1.0, 1.0, 1.0)
    states: tuple[Array, ...] | None = None

    asks = "forward-over-reverse"
    sets = "free"
    duals = True
    ensemble = 50
    default_max_steps = 200

    def __check_init__(self):
        if not isinstance(self.homotopy, bool) and not callable(self.homotopy):
            raise ValueError(
                "Shooting: `homotopy` is True, False or a function; found "
                f"{self.homotopy!r}. Pass `homotopy(problem, eps)`, a ControlProblem for eps in [0, 1]."
            )

    @property
    def name(self) -> str:
        return "shooting"

    def at(self, problem: ControlProblem, eps: Any) -> ControlProblem:
        """The problem of a level of the homotopy; the problem itself without one."""
        if self.homotopy is False:
            return problem
        return (terminal_weight if self.homotopy is True else self.homotopy)(problem, eps)

    def check(self, problem: ControlProblem) -> None:
        return _check(self, problem)

    def guessed(self, states: tuple[Array, ...]) -> "Shooting":
        if self.segments == 1:
            raise ValueError(
                "shooting: with one segment there is no state to guess. Raise `segments`: a state is "
                "unknown at the start of each but the first."
            )
        return dataclasses.replace(self, states=states)

    def measuring(self, units: Units) -> "Shooting":
        return dataclasses.replace(self, units=Units(*map(plain, units)))

    def init(self, problem: ControlProblem, weights: Weights, key: Any) -> ShootingState:
        return _initial(self, problem, weights, key)

    def step(self, problem: ControlProblem, state: ShootingState) -> ShootingState:
        return _step(self, problem, state)

    def info(self, state: ShootingState) -> Info:
        return state.info

    def terminate(self, problem: ControlProblem, state: ShootingState) -> Ending:
        del problem
        met = (state.residual <= self.tol) & (state.level.eps >= 1)
        # An unstable chain may lose, in a rollout of the weights, what the segments resolve.
        holds = state.info.stationarity <= jnp.sqrt(self.tol) * self.units.gradient
        reached = RESULTS.where(holds, RESULTS.successful, RESULTS.stagnated)
        result = RESULTS.where(met, reached, RESULTS.boundary_unmet)
        return met | state.failed, result

    def found(self, problem: ControlProblem, state: ShootingState) -> Weights:
        del problem
        return state.path.weights

    def postprocess(self, problem: ControlProblem, state: ShootingState) -> Outcome:
        p = [state.start]
        for run in state.path.later:
            p += list(jnp.moveaxis(run, 1, 0))
        multipliers = Trajectory(by_runs(problem.chain, p[:-1]), p[-1])
        if self.homotopy is False:
            return Outcome(state.path.weights, multipliers)
        levels = reported(state.level)
        return Outcome(state.path.weights, multipliers, message=_stopped(state), path=levels)


def _initial(
    shooting: Shooting, problem: ControlProblem, weights: Weights, key: Any
) -> ShootingState:
    del key
    level = first_level(1.0 if shooting.homotopy is False else 0.0, problem.dtype)
    first = shooting.at(problem, level.eps)
    _, states, costates, _ = backpropagate(first, weights)
    states = states if shooting.states is None else shooting.states
    path = Path(weights, by_runs(problem.chain, list(costates)[1:]))
    starts = _starts(len(problem.chain), shooting.segments)[1:]
    x0 = problem.inputs
    both = [jnp.stack([states[k], costates[k]]) for k in starts]
    nodes = jnp.stack(both, 1) if both else jnp.zeros((2, 0, *x0.shape), x0.dtype)
    start = costates[0]
    info = _info(problem, weights, jnp.asarray(1))
    solved, unknown = ((start, nodes, path), jnp.asarray(jnp.inf, x0.dtype))  # the first step knows
    return ShootingState(start, nodes, path, unknown, level, solved, jnp.asarray(False), info)


def _step(shooting: Shooting, problem: ControlProblem, state: ShootingState) -> ShootingState:
    here = shooting.at(problem, state.level.eps)
    shape = (state.start.shape, state.nodes.shape)
    at = jnp.concatenate([state.start.ravel(), state.nodes.ravel()])
    first = state.start.size
    split = lambda z: (z[:first].reshape(shape[0]), z[first:].reshape(shape[1]))
    shoot = lambda z: _shoot(shooting, here, *split(z), state.path)
    jacobian, gap = jax.jacfwd(lambda z: (shoot(z)[0],) * 2, has_aux=True)(at)
    move = jnp.linalg.solve(jacobian, gap)
    merit = jnp.linalg.norm(gap)

    def proceed(carry: Any) -> Array:
        count, _, _, _, falls = carry
        return (count < HALVINGS) & ~falls

    def halve(carry: Any) -> Any:
        count, length, _, _, _ = carry
        found, path = shoot(at - length * move)
        falls = jnp.linalg.norm(found) <= (1 - 1e-4 * length) * merit
        return count + 1, jnp.where(falls, length, 0.5 * length), found, path, falls

    one = jnp.ones((), at.dtype)
    trial = (jnp.asarray(0), one, gap, state.path, jnp.asarray(False))
    count, length, found, path, falls = jax.lax.while_loop(proceed, halve, trial)
    choose = lambda a, b: jax.tree.map(lambda x, y: jnp.where(falls, x, y), a, b)
    gap, path = choose((found, path), (gap, state.path))
    start, nodes = split(jnp.where(falls, at - length * move, at))
    evals = state.info.num_evals + count + 1
    return _continued(shooting, problem, state, (start, nodes, path), gap, falls, evals)


def _check(shooting: Shooting, problem: ControlProblem) -> None:
    require(problem, "forward", "shooting")  # of the canonical step, beside forward over reverse
    shapes = jax.eval_shape(
        lambda key: tuple(problem.rollout(problem.init(key))), jax.random.key(0)
    )
    found = [getattr(s, "shape", type(s).__name__) for s in shapes]
    for k, shape in enumerate(found):
        if shape != found[0] or isinstance(shape, str):
            raise ValueError(
                "shooting: a costate passes a stage forward only if all states are single arrays "
                f"of one shape; x_0 is {found[0]}, x_{k} is {shape}. Lift the inputs and read "
                "out in the terminal cost, or use 'newton' or 'direct'."
            )
    if any(run.tied and run.length > 1 for run in problem.chain.runs):
        raise ValueError(
            "shooting: weights tied in time minimise no single stage's Hamiltonian; use 'newton'."
        )
    if shooting.segments > len(problem.chain):
        raise ValueError(
            f"shooting: `segments` = {shooting.segments} exceeds the {len(problem.chain)} stages."
        )
    if not isinstance(shooting.homotopy, bool):
        checked(problem, shooting.homotopy)


def _info(problem: ControlProblem, weights: Weights, evals: Any) -> Info:
    value, gradient = value_and_gradient(problem, weights)
    return Info(value, problem.control_set.stationarity(weights, gradient), evals)


def _shoot(
    shooting: Shooting, problem: ControlProblem, start: Any, nodes: Any, path: Path
) -> tuple[Float[Array, " unknowns"], Path]:
    """Residual of the unknowns, and the path on which they lead."""
    depth, shape = len(problem.chain), problem.inputs.shape
    starts = jnp.asarray(_starts(depth, shooting.segments)[1:], int)
    anew = jnp.zeros(depth, bool).at[starts].set(True)
    fresh = jnp.zeros((depth, 2, *shape), start.dtype).at[starts].set(jnp.moveaxis(nodes, 1, 0))

    def body(
        r: int, pair: Any, stage: Any, theta: Any, u: Any, again: Any, node: Any, guess: Any
    ) -> Any:
        jump = jnp.where(again, pair - node, 0.0)
        x, p = jnp.where(again, node, pair)
        x, p, theta = stepped(problem, stage, u, x, p, (theta, guess), shooting.units.costate)
        return jnp.stack([x, p]), (jump, theta, p)

    ends = [0, *itertools.accumulate(run.length for run in problem.chain.runs)]
    by_run = lambda a: tuple(a[i:j] for i, j in itertools.pairwise(ends))
    pair, outs = problem.chain.fold(
        body,
        jnp.stack([problem.inputs, start]),
        path.weights,
        *(by_run(anew), by_run(fresh), swapped(path.later)),
        given=problem.given_by_depth,
    )
    jumps, found, later = zip(*outs, strict=True)
    end = (pair[1] - terminal_costate(problem, pair[0])) / shooting.units.costate
    both = jnp.asarray([shooting.units.state, shooting.units.costate], pair.dtype)
    jump = jnp.concatenate(jumps)[starts]  # (segments - 1, 2, n, ...)
    jump = jump / both.reshape(1, 2, *[1] * (jump.ndim - 2))
    gap = jnp.concatenate([jump.ravel(), end.ravel()])
    return gap, Path(found, swapped(later))


def _continued(
    shooting: Shooting,
    problem: ControlProblem,
    state: Any,
    new: Any,
    gap: Any,
    falls: Any,
    evals: Any,
) -> ShootingState:
    """The next level once this one is met; back to the last one, and closer, if it is not."""
    start, nodes, path = new
    residual = jnp.max(jnp.abs(gap))
    met = residual <= shooting.tol
    info = _info(problem, path.weights, evals)
    if shooting.homotopy is False:
        failed = ~met & ~falls
        level = eqx.tree_at(lambda v: v.steps, state.level, state.level.steps + 1)
        return ShootingState(start, nodes, path, residual, level, new, failed, info)
    paid = shooting.at(problem, state.level.eps).objective(new[2].weights)
    level, leaves, failed = next_level(state.level, residual, paid, met, falls)
    choose = lambda when, a, b: jax.tree.map(lambda x, y: jnp.where(when, x, y), a, b)
    solved = choose(met, new, state.solved)
    kept = choose(leaves, solved, new)
    arrived = met & (state.level.eps >= 1)
    residual = jnp.where(leaves & ~arrived, jnp.inf, residual)
    info = choose(leaves & ~met, state.info, info)
    info = eqx.tree_at(lambda i: i.num_evals, info, evals)
    start, nodes, path = kept
    return ShootingState(start, nodes, path, residual, level, solved, failed, info)


def _stopped(state: ShootingState) -> str | None:
    """How far a homotopy came that did not arrive."""
    if not bool(state.failed):
        return None
    level = state.level
    if int(level.count) == 0:
        return (
            "The first problem of the homotopy, at eps = 0, was not solved. Let "
            "`homotopy(problem, 0)` be an easier one, or raise `segments`."
        )
    return (
        f"The homotopy met {int(level.count)} levels up to eps = {float(level.met):.6g} of 1, and none "
        "closer than 1e-4 beyond: there the path folds back, or ends. Take another path "
        "(`homotopy=` a function), or start from another method's solution."
    )


def _starts(depth: int, segments: int) -> list[int]:
    """First stage of each segment, as even as they come."""
    return [depth * j // segments for j in range(segments)]

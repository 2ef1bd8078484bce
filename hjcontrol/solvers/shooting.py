r"""Indirect shooting: the minimum principle as a two-point boundary-value problem.

    (x_{k+1}, p_{k+1}) = canonical step of (x_k, p_k)     x_0 given      p_K = (1/n) dPhi/dx(x_K)

single     unknown p_0; the residual is the condition at the end
multiple   unknown also (x, p) at the start of every later segment; the residual also the jumps
homotopy   Phi is weighed by eps, raised from 0 to 1; a level that Newton misses is approached closer

Newton on the residual, damped until it falls. The weights are shared, so all samples are coupled: the
dense matrix has order n d (2 segments - 1), fit for tens of samples. The answer is an extremal; that
it is a minimum is for `hj.verify` to say. Homotopy follows eps, not arc length: it stops at a fold.

H. J. Pesch, A practical guide to the solution of real-life optimal control problems (1994).
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from hjcontrol._ground.results import RESULTS
from hjcontrol.control import ControlProblem, Trajectory, backpropagate, terminal_costate
from hjcontrol.networks import Weights
from hjcontrol.solvers.canonical import stepped
from hjcontrol.solvers.method import AbstractMethod, Info, Outcome

HALVINGS = 12
CLOSEST = 1e-4  # smallest rise of eps that is tried


class Path(eqx.Module):
    """Where the canonical system came through: weights and costates, guesses of the next pass."""

    weights: Weights
    later: tuple[Float[Array, "n length ..."], ...]  # p_{k+1}, by runs


class ShootingState(eqx.Module):
    """Unknowns, the residual there, and how far the homotopy is."""

    start: Float[Array, "n ..."]  # p_0
    nodes: Float[Array, "2 nodes n ..."]  # (x, p) at the start of every later segment
    path: Path
    residual: Float[Array, ""]
    eps: Float[Array, ""]
    rise: Float[Array, ""]
    solved: Any  # the last level that was met: eps, start, nodes, path
    failed: Bool[Array, ""]
    info: Info


class Shooting(AbstractMethod):
    """Shooting on the costate.

    - `segments`: 1 is single shooting; at most the number of stages.
    - `homotopy`: begin with no terminal cost, and raise its weight to one.
    - `tol`: largest coordinate of the residual.
    """

    segments: int = eqx.field(static=True, default=1)
    homotopy: bool = eqx.field(static=True, default=False)
    tol: Float[Array, ""] = eqx.field(converter=jnp.asarray, default=1e-11)

    asks = "forward-over-reverse"
    sets = "free"
    duals = True
    ensemble = 50
    default_max_steps = 200

    def __check_init__(self):
        if int(self.segments) != self.segments or self.segments < 1:
            raise ValueError(
                f"Shooting: `segments` must be a positive integer; found {self.segments!r}."
            )

    @property
    def name(self) -> str:
        return "shooting"

    def check(self, problem: ControlProblem) -> None:
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
        if self.segments > len(problem.chain):
            raise ValueError(
                f"shooting: `segments` = {self.segments} exceeds the {len(problem.chain)} stages."
            )

    def init(self, problem: ControlProblem, weights: Weights, key: Any) -> ShootingState:
        del key
        value, states, costates, gradient = backpropagate(problem, weights)
        scale = 0.0 if self.homotopy else 1.0
        later = _by_runs(problem, [scale * p for p in list(costates)[1:]])
        path = Path(weights, later)
        starts = _starts(len(problem.chain), self.segments)[1:]
        x0 = problem.inputs
        both = [jnp.stack([states[k], scale * costates[k]]) for k in starts]
        nodes = jnp.stack(both, 1) if both else jnp.zeros((2, 0, *x0.shape), x0.dtype)
        eps = jnp.asarray(scale, x0.dtype)
        start = scale * costates[0]
        gap, _ = self._shoot(problem, start, nodes, path, eps)
        info = Info(value, problem.control_set.stationarity(weights, gradient), jnp.asarray(1))
        return ShootingState(
            start,
            nodes,
            path,
            jnp.max(jnp.abs(gap)),
            eps,
            jnp.asarray(0.25, x0.dtype),
            (eps, start, nodes, path),
            jnp.asarray(False),
            info,
        )

    def _shoot(
        self, problem: ControlProblem, start: Any, nodes: Any, path: Path, eps: Any
    ) -> tuple[Float[Array, " unknowns"], Path]:
        """Residual of the unknowns, and the path on which they lead."""
        depth, shape = len(problem.chain), problem.inputs.shape
        starts = jnp.asarray(_starts(depth, self.segments)[1:], int)
        anew = jnp.zeros(depth, bool).at[starts].set(True)
        fresh = jnp.zeros((depth, 2, *shape), start.dtype).at[starts].set(jnp.moveaxis(nodes, 1, 0))

        def body(pair: Any, stage: Any, theta: Any, u: Any, given: Any) -> Any:
            again, node, guess = given
            jump = jnp.where(again, pair - node, 0.0)
            x, p = jnp.where(again, node, pair)
            x, p, theta = stepped(problem, stage, u, x, p, (theta, guess))
            return jnp.stack([x, p]), (jump, theta, p)

        pair, jumps, found, later = jnp.stack([problem.inputs, start]), [], [], []
        k = 0
        parts = zip(
            problem.chain.runs, path.weights, path.later, problem.given_by_depth, strict=True
        )
        for run, theta, guess, u in parts:
            here = slice(k, k + run.length)
            given = (anew[here], fresh[here], jnp.moveaxis(guess, 1, 0))
            pair, (jump, thetas, ps) = run.scan(body, pair, theta, given, u)
            jumps.append(jump)
            found.append(thetas)
            later.append(jnp.moveaxis(ps, 0, 1))
            k += run.length
        end = pair[1] - eps * terminal_costate(problem, pair[0])
        gap = jnp.concatenate([jnp.concatenate(jumps)[starts].ravel(), end.ravel()])
        return gap, Path(tuple(found), tuple(later))

    def step(self, problem: ControlProblem, state: ShootingState) -> ShootingState:
        shape = (state.start.shape, state.nodes.shape)
        at = jnp.concatenate([state.start.ravel(), state.nodes.ravel()])
        first = state.start.size
        split = lambda z: (z[:first].reshape(shape[0]), z[first:].reshape(shape[1]))
        shoot = lambda z: self._shoot(problem, *split(z), state.path, state.eps)
        gap, _ = shoot(at)
        move = jnp.linalg.solve(jax.jacfwd(lambda z: shoot(z)[0])(at), gap)
        merit = jnp.linalg.norm(gap)

        def proceed(carry: Any) -> Array:
            count, _, _, falls = carry
            return (count < HALVINGS) & ~falls

        def halve(carry: Any) -> Any:
            count, length, _, _ = carry
            new = jnp.linalg.norm(shoot(at - length * move)[0])
            falls = new <= (1 - 1e-4 * length) * merit
            return count + 1, jnp.where(falls, length, 0.5 * length), new, falls

        one = jnp.ones((), at.dtype)
        count, length, _, falls = jax.lax.while_loop(
            proceed, halve, (jnp.asarray(0), one, merit, jnp.asarray(False))
        )
        new = jnp.where(falls, at - length * move, at)
        gap, path = shoot(new)
        start, nodes = split(new)
        path = jax.tree.map(lambda a, b: jnp.where(falls, a, b), path, state.path)
        evals = state.info.num_evals + count + 2
        return self._continued(problem, state, (start, nodes, path), gap, falls, evals)

    def _continued(
        self, problem: ControlProblem, state: Any, new: Any, gap: Any, falls: Any, evals: Any
    ) -> ShootingState:
        """The next level of eps once this one is met; back to the last one, and closer, if it is not."""
        residual = jnp.max(jnp.abs(gap))
        start, nodes, path = new
        met = residual <= self.tol
        rise = jnp.where(
            met, jnp.minimum(2 * state.rise, 1.0), jnp.where(falls, 1.0, 0.5) * state.rise
        )
        here = (state.eps, start, nodes, path)
        solved = jax.tree.map(lambda a, b: jnp.where(met, a, b), here, state.solved)
        leave = self.homotopy & (met | ~falls)
        base, rest = solved[0], solved[1:]
        eps = jnp.where(leave, jnp.minimum(base + rise, 1.0), state.eps)
        kept = jax.tree.map(lambda a, b: jnp.where(leave, a, b), rest, (start, nodes, path))
        arrived = met & (state.eps >= 1)
        residual = jnp.where(leave & ~arrived, jnp.inf, residual)
        failed = ~falls & ~met & ((rise < CLOSEST) | (not self.homotopy))
        value, _, _, gradient = backpropagate(problem, kept[2].weights)
        size = problem.control_set.stationarity(kept[2].weights, gradient)
        info = Info(value, size, evals)
        start, nodes, path = kept
        return ShootingState(start, nodes, path, residual, eps, rise, solved, failed, info)

    def info(self, state: ShootingState) -> Info:
        return state.info

    def terminate(
        self, problem: ControlProblem, state: ShootingState
    ) -> tuple[Bool[Array, ""], RESULTS]:
        del problem
        met = (state.residual <= self.tol) & (state.eps >= 1)
        # An unstable chain may lose, in a rollout of the weights, what the segments resolve.
        holds = state.info.stationarity <= jnp.sqrt(self.tol)
        reached = RESULTS.where(holds, RESULTS.successful, RESULTS.stagnated)
        result = RESULTS.where(met, reached, RESULTS.boundary_unmet)
        return met | state.failed, result

    def postprocess(self, problem: ControlProblem, state: ShootingState) -> Outcome:
        p = [state.start]
        for run in state.path.later:
            p += list(jnp.moveaxis(run, 1, 0))
        multipliers = Trajectory(_by_runs(problem, p[:-1]), p[-1])
        return Outcome(state.path.weights, multipliers)


def _starts(depth: int, segments: int) -> list[int]:
    """First stage of each segment, as even as they come."""
    return [depth * j // segments for j in range(segments)]


def _by_runs(problem: ControlProblem, each: list[Array]) -> tuple[Array, ...]:
    """One array a stage, stacked by runs: `(n, length, ...)` each."""
    runs, k = [], 0
    for run in problem.chain.runs:
        runs.append(jnp.stack(each[k : k + run.length], axis=1))
        k += run.length
    return tuple(runs)

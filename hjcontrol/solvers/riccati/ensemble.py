r"""The ensemble as one linear system with shared controls: all samples' states stacked, n d of them.

    x = (x^1, .., x^n),   u = theta_k:      A = blockdiag(A^i),   B = (B^1; ..; B^n),   Q = blockdiag(Q^i)

The plain reading of Riccati on an ensemble, at `O((n d)^3)` a stage and stage after stage: for small
systems (`small`), one sample above all. A matrix of all weights squares what unstable dynamics amplify;
this recursion does not, for its value functions are of the closed loop. `factored` gives the same steps
to larger ensembles.

Exact curvature takes `d2(p.F)` at the costate of the current weights (stagewise Newton, Dunn and
Bertsekas 1989), which makes the open-loop step Newton's. Textbook DDP puts the slope of the new value
function in its place; then it is not. Weights are in the order of `ravel_pytree`, a stage at a time.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float

from hjcontrol._ground.by_shape import once_per_shape
from hjcontrol._ground.shown import Shown
from hjcontrol.control import ControlProblem, Free, Trajectory, costate, sample_hamiltonian
from hjcontrol.control.feedback import Gains, closed_loop, flatten
from hjcontrol.control.trajectory import swapped
from hjcontrol.networks import AbstractStage, Weights, advance
from hjcontrol.solvers.riccati.boxed import within
from hjcontrol.solvers.riccati.lqr import Stage, before
from hjcontrol.solvers.riccati.stages import pack

STATES, WEIGHTS = 64, 256  # all samples' states together, and a stage's weights, at most


def small(problem: ControlProblem) -> bool:
    """Whether the stacked recursion suits the problem."""
    return _small(problem)


@once_per_shape
def _small(problem: ControlProblem) -> bool:
    weights, states, runs = eqx.filter_eval_shape(_rolled, problem)
    if not jax.tree.leaves(weights):
        return False
    widths = [_size(states.final)]
    for run, theta, xs in zip(runs, weights, states.runs, strict=True):
        if (run.tied and run.length > 1) or _size(theta) // run.sets > WEIGHTS:
            return False
        widths.append(_size(xs) // run.length)
    return max(widths) <= STATES


def _rolled(problem: ControlProblem) -> tuple[Any, Any, Any]:
    weights = problem.init(jax.random.key(0))
    return weights, problem.rollout(weights), problem.chain.runs


def _size(tree: Any) -> int:
    return sum(a.size for a in jax.tree.leaves(tree))


Room = tuple[Float[Array, "_ _"], ...]  # (stages, m) by run


class Stacked(Shown):
    """What a sweep is about: a rollout, its costates, and whether the dynamics' curvature counts. The
    stages' second-order models are made where a sweep meets them, and never held together."""

    problem: ControlProblem
    weights: Weights
    states: Trajectory
    costates: Trajectory
    exact: bool | Bool[Array, ""]

    def policy(self, mu: Float[Array, ""] | float = 0.0) -> "Policy":
        """The sweep from the last stage to the first, with `mu` added to every `Quu`."""
        problem, weights, states = self.problem, self.weights, self.states
        Q, q = self.terminal()
        probe = jnp.cos(jnp.arange(1.0, q.size + 1.0)).astype(q.dtype)
        zero = jnp.zeros((), q.dtype)

        def body(r: int, carry: Any, stage: AbstractStage, th: Any, u: Any, x: Any, c: Any, *room):
            p_next, value, D, reach, most = carry
            one = model(problem, stage, th, u, x, p_next, self.exact)
            fixed = one.R + one.B.T @ D @ one.B
            reach = one.A.T @ reach
            most = jnp.maximum(most, jnp.max(jnp.abs(reach)))
            eye = jnp.eye(one.R.shape[-1], dtype=one.R.dtype)
            damped = eqx.tree_at(lambda s: s.R, one, one.R + mu * eye)
            if room:
                low, high = room
                P, p, K, k, bend = within(low, high, damped, *value)
            else:
                P, p, K, k = before(damped, *value)
                bend = zero
            answered = one.R + one.B.T @ value[0] @ one.B
            sizes = tuple(jnp.sum(jnp.abs(jnp.diag(a))) for a in (fixed, answered))
            fall = -(one.r + one.B.T @ value[1]) @ k
            out = (P, K, k, jnp.stack([fall, *sizes, bend]))
            return (c, (P, p), one.Q + one.A.T @ D @ one.A, reach, most), out

        start = (self.costates.final, (Q, q), Q, probe, jnp.max(jnp.abs(probe)))
        along = (swapped(states.runs), swapped(self.costates.runs), *_room(problem, weights))
        (*_, most), outs = problem.chain.fold(
            body, start, weights, *along, given=problem.given_by_depth, reverse=True
        )
        P, K, k, sums = zip(*outs, strict=True)
        fall, fixed, answered, bend = jnp.sum(jnp.concatenate(sums), axis=0)
        count = _size(weights)
        curvature, scale = fixed / count, answered / count
        scale = jnp.where(jnp.isfinite(scale), scale, curvature)
        growth = most / jnp.max(jnp.abs(probe))
        bend = None if isinstance(problem.control_set, Free) else bend
        return Policy(self, K, k, P, fall, scale, curvature, growth, bend)

    def terminal(self) -> tuple[Float[Array, "N N"], Float[Array, " N"]]:
        """Hessian and slope of the terminal cost, all samples' states in one vector."""
        problem, final = self.problem, self.states.final
        unravel = ravel_pytree(jax.tree.map(lambda a: a[0], final))[1]
        cost = lambda x, y: problem.terminal_cost(unravel(x), y) / problem.num_samples
        flat = flatten(final)
        Q = jax.scipy.linalg.block_diag(*jax.vmap(jax.hessian(cost))(flat, problem.targets))
        return Q, jax.vmap(jax.grad(cost))(flat, problem.targets).reshape(-1)


class Policy(Shown):
    """What a sweep found: gains, open-loop terms and value functions by run, the slope of the model
    along its step, `-g.s`, the size of `Quu`, and the model's bend; `curvature`: mean |diag d2J/dtheta2|
    of the model, the other weights fixed; `growth`: how much of a change at some depth can arrive at the
    end."""

    model: Stacked
    K: Gains
    k: tuple[Float[Array, "_ _"], ...]
    P: tuple[Float[Array, "_ _ _"], ...]
    slope: Float[Array, ""]
    scale: Float[Array, ""]
    curvature: Float[Array, ""]
    growth: Float[Array, ""]
    bend: Float[Array, ""] | None = None  # k'Quu k within bounds; without them it is the slope

    def open_loop(self) -> tuple[Float[Array, "_ _"], ...]:
        """The step `s` in the weights, along the linear closed loop."""
        problem, weights, states = self.model.problem, self.model.weights, self.model.states

        def body(r: int, dx: Any, stage: AbstractStage, th: Any, u: Any, x: Any, K: Any, k: Any):
            s = K @ flatten(dx).reshape(-1) + k
            ahead = lambda x, th: jax.vmap(lambda a, u: advance(stage, a, th, u))(x, u)
            return jax.jvp(ahead, (x, th), (dx, ravel_pytree(th)[1](s)))[1], s

        start, given = jax.tree.map(jnp.zeros_like, problem.inputs), problem.given_by_depth
        along = (swapped(states.runs), self.K, self.k)
        return problem.chain.fold(body, start, weights, *along, given=given)[1]

    def foresight(self, mu: Float[Array, ""]) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """`-g.s` and `s'M s`, the damping taken off again."""
        length = lambda: sum((jnp.sum(u**2) for u in self.open_loop()), jnp.zeros_like(mu))
        damped = jax.lax.cond(mu > 0, lambda: mu * length(), lambda: jnp.zeros_like(mu))
        return self.slope, (self.slope if self.bend is None else self.bend) - damped

    def roll(
        self,
        problem: ControlProblem,
        weights: Weights,
        states: Trajectory,
        alpha: Any,
        closed: bool,
    ) -> tuple[tuple[Weights, Trajectory], Float[Array, ""]]:
        """Weights and states of the loop, and `J` along them."""
        K, k = self.K, self.k
        if not closed:
            K, k = tuple(jnp.zeros_like(a) for a in K), self.open_loop()
        moved, met, value = closed_loop(problem, weights, states, K, tuple(alpha * a for a in k))
        return (moved, met), value


def _room(problem: ControlProblem, weights: Weights) -> tuple[Room, ...]:
    """How far each stage's weights may move down and up; nothing where they may go anywhere."""
    if isinstance(problem.control_set, Free):
        return ()
    rows = lambda tree: jax.vmap(lambda a: ravel_pytree(a)[0])(tree)
    ends = problem.control_set.bounds(weights)
    return tuple(
        tuple(rows(a) - rows(th) for a, th in zip(end, weights, strict=True)) for end in ends
    )


def model(
    problem: ControlProblem, stage: AbstractStage, theta: Any, u: Any, x: Any, p: Any, exact: Any
) -> Stage:
    """One stage's move about a rollout. `p`: the costate behind it."""
    unravel = ravel_pytree(jax.tree.map(lambda a: a[0], x))[1]
    packed, unpack = ravel_pytree(theta)
    q_zero = jax.tree.map(jnp.zeros_like, p)

    def step(x: Array, t: Array, u: Any) -> Array:
        return ravel_pytree(advance(stage, unravel(x), unpack(t), u))[0]

    def local(x: Array, t: Array, u: Any, p: Any) -> Array:
        return jnp.asarray(
            sample_hamiltonian(problem, stage, unravel(x), p, unpack(t), u), packed.dtype
        )

    flat = flatten(x)
    A, B = jax.vmap(jax.jacfwd(step, argnums=(0, 1)), (0, None, 0))(flat, packed, u)
    bent = q_zero if exact is False else jax.tree.map(lambda a: exact * a, p)
    second = jax.vmap(jax.hessian(local, argnums=(0, 1)), (0, None, 0, 0))
    q, r = jax.vmap(jax.grad(local, argnums=(0, 1)), (0, None, 0, 0))(flat, packed, u, q_zero)
    (Q, S), (_, R) = second(flat, packed, u, bent)
    paid = lambda t: jnp.asarray(problem.weight_cost(unpack(t)), t.dtype)
    m = packed.size
    return Stage(
        jax.scipy.linalg.block_diag(*A),
        B.reshape(-1, m),
        jnp.zeros(B.shape[0] * B.shape[1], packed.dtype),
        jax.scipy.linalg.block_diag(*Q),
        S.reshape(-1, m),
        jnp.sum(R, axis=0) + jax.hessian(paid)(packed),
        q.reshape(-1),
        jnp.sum(r, axis=0) + jax.grad(paid)(packed),
    )


def step(
    problem: ControlProblem, weights: Weights, exact: bool | Bool[Array, ""]
) -> tuple[Float[Array, " M"], list[Array]]:
    """One sweep's open-loop step, packed in order of depth as `stages` packs it, and its `P_k`."""
    states = problem.rollout(weights)
    costates, _ = costate(problem, weights, states)
    found = Stacked(problem, weights, states, costates, exact).policy()
    return ordered(problem, weights, found.open_loop()), [P for run in found.P for P in run]


def ordered(problem: ControlProblem, weights: Weights, moves: Any) -> Float[Array, " M"]:
    """Moves of the weights, one entry a run, in the order that `stages` packs them."""
    parts = []
    for run, theta, own in zip(problem.chain.runs, weights, moves, strict=True):
        like = jax.tree.map(lambda a: a[0], theta)
        unravel = ravel_pytree(like)[1]
        parts.append(
            eqx.filter_vmap(lambda stage, a, f=unravel: pack(stage, f(a)))(run.stage, own).reshape(
                -1
            )
        )
    return jnp.concatenate(parts)

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


def _scan(body: Any, carry: Any, run: Any, reverse: bool = False) -> tuple[Any, Any]:
    """A scan over a run's stages; no loop for a lone one, whose two states may differ in size."""
    if jax.tree.leaves(run)[0].shape[0] > 1:
        return jax.lax.scan(body, carry, run, reverse=reverse)
    carry, out = body(carry, jax.tree.map(lambda a: a[0], run))
    return carry, jax.tree.map(lambda a: a[None], out)


Room = tuple[tuple[Float[Array, "_ _"], Float[Array, "_ _"]], ...]  # (stages, m) by run


class Stacked(Shown):
    """A rollout to second order: the stages of every run, and the terminal cost's `Q` and `q`."""

    runs: tuple[Stage, ...]
    Q: Float[Array, "N N"]
    q: Float[Array, " N"]
    curvature: Float[Array, ""]  # mean |diag d2J/dtheta2| of this model, the other weights fixed
    growth: Float[Array, ""]  # how much of a change at some depth can arrive at the end
    room: Room | None = None  # how far each stage's weights may move down and up; None: anywhere

    def policy(self, mu: Float[Array, ""] | float = 0.0) -> "Policy":
        """The sweep from the last stage to the first, with `mu` added to every `Quu`."""

        def body(carry: tuple[Array, Array], at: Any) -> tuple[tuple[Array, Array], Any]:
            stage, room = at
            eye = jnp.eye(stage.R.shape[-1], dtype=stage.R.dtype)
            damped = eqx.tree_at(lambda s: s.R, stage, stage.R + mu * eye)
            if room is None:
                P, p, K, k = before(damped, *carry)
                bend = jnp.zeros_like(self.curvature)
            else:
                low, high = room
                P, p, K, k, bend = within(low, high, damped, *carry)
            bent = stage.B.T @ carry[0] @ stage.B
            own = jnp.sum(jnp.abs(jnp.diag(stage.R + bent)))
            return (P, p), (P, K, k, -(stage.r + stage.B.T @ carry[1]) @ k, own, bend)

        value, outs = (self.Q, self.q), []
        rooms = (None,) * len(self.runs) if self.room is None else self.room
        for at in reversed(list(zip(self.runs, rooms, strict=True))):
            value, out = _scan(body, value, at, reverse=True)
            outs.insert(0, out)
        P, K, k, fall, own, bend = zip(*outs, strict=True)
        total = lambda parts: sum(map(jnp.sum, parts), jnp.zeros_like(self.curvature))
        scale = total(own) / sum(a.size for a in k)
        scale = jnp.where(jnp.isfinite(scale), scale, self.curvature)
        bend = None if self.room is None else total(bend)
        return Policy(self.runs, K, k, P, total(fall), scale, bend)


class Policy(Shown):
    """What a sweep found: gains, open-loop terms and value functions by run, the slope of the model
    along its step, `-g.s`, the size of `Quu`, and the model's bend."""

    runs: tuple[Stage, ...]
    K: Gains
    k: tuple[Float[Array, "_ _"], ...]
    P: tuple[Float[Array, "_ _ _"], ...]
    slope: Float[Array, ""]
    scale: Float[Array, ""]
    bend: Float[Array, ""] | None = None  # k'Quu k within bounds; without them it is the slope

    def open_loop(self) -> tuple[Float[Array, "_ _"], ...]:
        """The step `s` in the weights, along the linear closed loop."""

        def body(x: Array, at: tuple[Stage, Array, Array]) -> tuple[Array, Array]:
            stage, K, k = at
            u = K @ x + k
            return stage.A @ x + stage.B @ u, u

        x, found = jnp.zeros(self.runs[0].A.shape[-1], self.slope.dtype), []
        for at in zip(self.runs, self.K, self.k, strict=True):
            x, u = _scan(body, x, at)
            found.append(u)
        return tuple(found)

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


def stacked(
    problem: ControlProblem,
    weights: Weights,
    states: Trajectory,
    costates: Trajectory,
    exact: bool | Bool[Array, ""],
) -> Stacked:
    """The model about a rollout. `exact`: DDP, not Gauss-Newton."""
    one = jax.tree.map(lambda a: a[0], states.final)
    unravel, final = ravel_pytree(one)[1], flatten(states.final)
    cost = lambda x, y: problem.terminal_cost(unravel(x), y) / problem.num_samples
    Q = jax.scipy.linalg.block_diag(*jax.vmap(jax.hessian(cost))(final, problem.targets))
    q = jax.vmap(jax.grad(cost))(final, problem.targets).reshape(-1)
    probe = jnp.cos(jnp.arange(1.0, q.size + 1.0)).astype(q.dtype)

    def body(r: int, carry: Any, stage: AbstractStage, theta: Any, u: Any, x: Any, p: Any) -> Any:
        p_next, D, reach, most = carry
        one = model(problem, stage, theta, u, x, p_next, exact)
        own = jnp.sum(jnp.abs(jnp.diag(one.R + one.B.T @ D @ one.B)))
        reach = one.A.T @ reach
        most = jnp.maximum(most, jnp.max(jnp.abs(reach)))
        D = one.Q + one.A.T @ D @ one.A
        return (p, D, reach, most), (one, own)

    start = (costates.final, Q, probe, jnp.max(jnp.abs(probe)))
    along = (states.runs, costates.runs)
    (*_, most), outs = problem.fold(body, start, weights, *along, reverse=True)
    runs, own = zip(*outs, strict=True)
    total = sum(map(jnp.sum, own)) / _size(weights)
    growth = most / jnp.max(jnp.abs(probe))
    return Stacked(runs, Q, q, total, growth, _room(problem, weights))


def _room(problem: ControlProblem, weights: Weights) -> Room | None:
    if isinstance(problem.control_set, Free):
        return None
    low, high = problem.control_set.bounds(weights)
    rows = lambda tree: jax.vmap(lambda a: ravel_pytree(a)[0])(tree)
    pairs = zip(low, high, weights, strict=True)
    return tuple((rows(a) - rows(th), rows(b) - rows(th)) for a, b, th in pairs)


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
    found = stacked(problem, weights, states, costates, exact).policy()
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

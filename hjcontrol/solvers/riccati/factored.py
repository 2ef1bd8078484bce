r"""The Riccati sweep of an ensemble without an (n d)^2 matrix.

    P_k = blockdiag(D_k^i) - U_k M_{>=k}^{-1} U_k'           M  d2J/dtheta2 of the sweep's model, M x M

D_k^i     a sample's own cost-to-go, weights fixed                       d x d a sample
U_k       how the state at depth k bends dJ/dtheta of the stages behind  low rank, never formed
M_{>=k}   the trailing block of M: what the weights still to come will do about it

Eliminating the weights from the last stage to the first is a Cholesky factorisation of M in that
order, M = L L' with the last stage first: its leading blocks are the factors of all `M_{>=k}`, and its
diagonal block is Riccati's `Quu_k`. Feedback is a substitution in it:

    du_k = -[ M_{>=k}^{-1} (alpha g_{>=k} + U_k'dx_k) ]_k

With m weights, K stages, n samples: forming M costs O(n m^2) where weights enter by `W x + b`
(O(n d m^2) else) and factoring O(m^3 / 3); memory O(n d^2 K + m^2). The rank of U_k is the number of
weights behind depth k, so it grows with depth; a sweep on m > 10^4 weights is Newton-Krylov's.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float, Int

from hjcontrol._ground.shown import Shown
from hjcontrol.control import ControlProblem
from hjcontrol.control.trajectory import Trajectory, swapped
from hjcontrol.networks import AbstractStage, Weights, advance
from hjcontrol.solvers.riccati.stages import Run, unpack


def matrix(runs: tuple[Run, ...]) -> Float[Array, "M M"]:
    """The lower triangle of `M`, the last weight first, from the states' sensitivities; above it only
    what the diagonal blocks of stages have there."""
    rows, behind = [], 0
    for r, run in reversed(list(enumerate(runs))):

        def of_stage(_: None, at: tuple[Run, Array], r: int = r) -> tuple[None, Array]:
            T, own = _within(runs[r], *at)
            blocks = [own]
            for later in runs[r + 1 :]:
                T, found = _fold(later, lambda T, one, _, at=at: _behind(one, T, at[0]), T)
                blocks.append(found.reshape(-1, found.shape[-1]))
            return None, jnp.concatenate(blocks)

        _, found = _fold(run, lambda c, one, k, f=of_stage: f(c, (one, k)), None)
        behind += _size(run)
        rows.append(jnp.swapaxes(found, 1, 2).reshape(-1, behind)[::-1, ::-1])
    return jnp.concatenate([jnp.pad(a, ((0, 0), (0, behind - a.shape[1]))) for a in rows])


def _size(run: Run) -> int:
    return run.curvature.shape[0] * run.curvature.shape[1]


def _fold(run: Run, body: Callable[[Any, Run, Any], Any], carry: Any) -> tuple[Any, Any]:
    """`body(carry, stage, place)` over a run's stages; no loop for a lone one."""
    if run.A.shape[0] == 1:
        carry, out = body(carry, jax.tree.map(lambda a: a[0], run), jnp.asarray(0))
        return carry, out[None]
    places = jnp.arange(run.A.shape[0])
    return jax.lax.scan(lambda c, at: body(c, *at), carry, (run, places))


def _behind(one: Run, T: Array, source: Run) -> tuple[Array, Array]:
    """Block (stage, source) for a stage behind the source, `T` the sensitivity of its state to how
    the source's weights enter; and the sensitivity of the next state."""
    return one.A @ T, one.met(T, source)


def _within(run: Run, source: Run, k: Array) -> tuple[Array, Float[Array, "rows m"]]:
    """The same for the source's own run: nothing before it, its curvature at it."""
    if run.A.shape[0] == 1:
        return source.G, source.curvature
    m = run.curvature.shape[-1]

    def body(T: Array, one: Run, j: Array) -> tuple[Array, Array]:
        ahead, block = jax.lax.cond(
            j > k, lambda: _behind(one, T, source), lambda: (T, jnp.zeros((m, m), T.dtype))
        )
        at = j == k
        return jnp.where(at, source.G, ahead), jnp.where(at, source.curvature, block)

    T, blocks = _fold(run, body, jnp.zeros_like(source.G))
    return T, blocks.reshape(-1, m)


class Factored(Shown):
    """A rollout to second order, ready to be factored: `M` and the gradient."""

    runs: tuple[Run, ...]
    M: Float[Array, "M M"]
    gradient: Float[Array, " M"]

    def policy(self, mu: Float[Array, ""]) -> "Sweep":
        """The factor of `M + mu`."""
        damped = self.M + mu * jnp.eye(self.M.shape[0], dtype=self.M.dtype)
        L = jnp.linalg.cholesky(damped, symmetrize_input=False)
        return Sweep(self.runs, L, self.gradient, jnp.mean(jnp.abs(jnp.diag(self.M))))


class Sweep(Shown):
    """A factored sweep: `L L' = M + damping`, the last stage first; the gradient, in order of depth."""

    runs: tuple[Run, ...]
    L: Float[Array, "M M"]
    gradient: Float[Array, " M"]
    curvature: Float[Array, ""]  # mean |diag M|

    @property
    def scale(self) -> Float[Array, ""]:
        """The size of the curvature that damping is measured by."""
        return self.curvature

    @property
    def growth(self) -> Float[Array, ""]:
        """Not measured here: one."""
        return jnp.ones((), self.L.dtype)

    def open_loop(self) -> Float[Array, " M"]:
        """The step `-M^{-1} g`: Gauss-Newton's, or Newton's."""
        y = solve_triangular(self.L, self.gradient[::-1], lower=True)
        return -solve_triangular(self.L, y, lower=True, trans=1)[::-1]

    def foresight(self, mu: Float[Array, ""]) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """`-g.s` and `s'M s`, the damping taken off again."""
        s = self.open_loop()
        slope = -self.gradient @ s
        return slope, slope - mu * (s @ s)

    def roll(
        self,
        problem: ControlProblem,
        weights: Weights,
        states: Trajectory,
        alpha: Any,
        closed: bool,
    ) -> tuple[tuple[Weights, None], Float[Array, ""]]:
        """Weights of the loop, and `J` at them."""
        if closed:
            new = closed_loop(problem, weights, states.runs, self, alpha)
        else:
            new = steps_along(problem, weights, alpha * self.open_loop())
        return (new, None), problem.objective(new)

    def bent(self, r: int, k: Int[Array, ""], dx: Float[Array, "n d"]) -> Float[Array, " M"]:
        """`U_k'dx`: how the states' move before stage `k` of run `r` bends the gradient from there on,
        all weights fixed."""
        found = [jnp.zeros(_size(run), dx.dtype) for run in self.runs[:r]]

        def own(dx: Array, one: Run, j: Array) -> tuple[Array, Array]:
            on = j >= k
            moved = jnp.where(on, jnp.sum(one.pulled(dx), axis=0), 0.0)
            return (jnp.where(on, one.along(dx), dx), moved) if several else (one.along(dx), moved)

        def later(dx: Array, one: Run, _: Any) -> tuple[Array, Array]:
            return one.along(dx), jnp.sum(one.pulled(dx), axis=0)

        several = self.runs[r].A.shape[0] > 1
        for run in self.runs[r:]:
            dx, moved = _fold(run, own if run is self.runs[r] else later, dx)
            found.append(moved.reshape(-1))
        return jnp.concatenate(found)

    def at_stage(self, r: int, k: Int[Array, ""], slope: Float[Array, " M"]) -> Float[Array, " m"]:
        """The first stage's part of `-M_{>=k}^{-1} slope_{>=k}`."""
        m = self.runs[r].curvature.shape[-1]
        # In the reversed order all that is behind stage k comes first: substitution never looks on.
        y = solve_triangular(self.L, slope[::-1], lower=True)
        place = slope.size - sum(map(_size, self.runs[:r])) - (k + 1) * m
        block = jax.lax.dynamic_slice(self.L, (place, place), (m, m))
        own = jax.lax.dynamic_slice(y, (place,), (m,))
        return -solve_triangular(block, own, lower=True, trans=1)[::-1]


def closed_loop(
    problem: ControlProblem,
    weights: Weights,
    states: tuple[Any, ...],
    sweep: Sweep,
    alpha: Float[Array, ""],
) -> Weights:
    """New weights, stage after stage: each answers the states that the new ones before it lead to."""
    flatten = jax.vmap(lambda a: ravel_pytree(a)[0])

    def body(r: int, x: Any, stage: AbstractStage, th: Any, u: Any, old: Any, k: Any) -> Any:
        slope = alpha * sweep.gradient + sweep.bent(r, k, flatten(x) - flatten(old))
        step = unpack(stage, th, sweep.at_stage(r, k, slope))
        new = jax.tree.map(jnp.add, th, step)
        return jax.vmap(lambda x, u: advance(stage, x, new, u))(x, u), new

    places = tuple(jnp.arange(run.length) for run in problem.chain.runs)
    along, given = (swapped(states), places), problem.given_by_depth
    return problem.chain.fold(body, problem.inputs, weights, *along, given=given)[1]


def steps_along(problem: ControlProblem, weights: Weights, step: Float[Array, " M"]) -> Weights:
    """The weights moved by a packed step."""
    moved, place = [], 0
    for run, theta in zip(problem.chain.runs, weights, strict=True):
        size = sum(a.size for a in jax.tree.leaves(theta))
        own = step[place : place + size].reshape(run.length, -1)
        moved.append(eqx.filter_vmap(unpack)(run.stage, theta, own))
        place += size
    return jax.tree.map(jnp.add, weights, tuple(moved))

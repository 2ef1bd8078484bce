r"""The pairing witness: one identity a stage, tested along random directions.

    p_k . v      = dl_k . v / n + p_{k+1} . (dF_k/dx v)                   v per sample
    dJ/dtheta . w = dr . w + sum_i [ dl^i . w / n + p_{k+1}^i . (dF_k/dtheta w)^i ]
    p_K . v      = dPhi . v / n

Stages tied in time share one identity for their weights, summed over the run; it stands at the first.
Left: what is on trial. Right: forward mode of the primal with every custom rule inlined. Each identity
joins neighbouring stages only, so a wrong rule breaks its own stage's and no other's.

A disagreement is measured against the size of the *summands* on the right, not against `dJ/dtheta`:
at a solution the gradient is 1e-12 of cancelled terms, and roundoff divided by it would look like a
fault. For states the size is the root of the summands' squares, for weights the sum over samples.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key, PyTree

from hjcontrol.control import ControlProblem, Trajectory, inner
from hjcontrol.networks import AbstractStage, Run, Weights, advance
from hjcontrol.verification.directional import derivative, has_forward
from hjcontrol.verification.inlining import inlined
from hjcontrol.verification.probes import directions


class Local(NamedTuple):
    """One identity's relative disagreement, the error of its right side (0 in forward mode) on the
    same scale, the scale, and whether forward mode exists."""

    gap: Float[Array, "*stages"]
    error: Float[Array, "*stages"]
    scale: Float[Array, "*stages"]
    forward: Bool[Array, "*stages"]


class Pairing(NamedTuple):
    """`states`: K + 1 identities; `weights`: K."""

    states: Local
    weights: Local


def pair(
    problem: ControlProblem,
    weights: Weights,
    states: Trajectory,
    costates: Trajectory,
    gradient: Weights,
    key: Key[Array, ""],
    probes: int,
) -> Pairing:
    """Every stage's identities for given costates and gradient. Memory: one stage's tangents."""
    for_states, for_weights = jax.random.split(key)
    stages = [jax.tree.map(lambda a: a[:, 0], run) for run in states.runs]
    *vs, v_final = directions(for_states, [*stages, states.final], probes, ensemble=True)
    ws = directions(for_weights, weights, probes)
    final = pair_terminal(problem, states.final, costates.final, v_final)
    p, by_run, given = costates.final, [], problem.given_by_depth
    for r in reversed(range(len(problem.chain.runs))):
        run, v = problem.chain.runs[r], vs[r]
        xs, ps = (
            jax.tree.map(lambda a: jnp.moveaxis(a, 1, 0), t.runs[r]) for t in (states, costates)
        )
        w = jax.tree.map(lambda a: jnp.moveaxis(a, 1, 0), ws[r])

        def body(p_next: Any, stage: Any, theta: Any, u: Any, at: Any, v: Any = v) -> Any:
            (th, w), (x, p) = theta, at
            return p, push_stage(problem, stage, x, th, u, p_next, p, v, w)

        p, (found, pushed) = run.scan(body, p, (weights[r], w), (xs, ps), given[r], reverse=True)
        by_run.append((found, pair_weights(problem, run, weights[r], gradient[r], w, pushed)))
    joined, of_weights = jax.tree.map(lambda *a: jnp.concatenate(a), *reversed(by_run))
    end = jax.tree.map(lambda a, b: jnp.concatenate([a, b[None]]), joined, final)
    return Pairing(end, of_weights)


class Pushed(NamedTuple):
    """One stage's summands of `dJ/dtheta . w`, for each probe: their sum, size and doubt."""

    total: Float[Array, "*stages probes"]
    size: Float[Array, "*stages probes"]
    doubt: Float[Array, "*stages probes"]
    forward: Bool[Array, "*stages"]


def push_stage(
    problem: ControlProblem,
    stage: AbstractStage,
    x: PyTree,
    theta: PyTree,
    u: PyTree,
    p_next: PyTree,
    p: PyTree,
    v: PyTree,
    w: PyTree,
    differ: bool = False,
) -> tuple[Local, Pushed]:
    """A stage's identity for its state, and its share of the one for its weights.

    `differ`: take differences even where forward mode exists.
    """
    step = primal(problem, stage)
    of_state, of_weights = (lambda a: step(a, theta, u)), (lambda c: step(x, c, u))

    forward = not differ and has_forward(of_state, x)
    (cost, push), error = jax.vmap(lambda d: derivative(of_state, x, d, forward))(v)
    paired = jax.vmap(lambda d: per_sample(p, d))(v)
    pushed = cost + jax.vmap(lambda d: per_sample(p_next, d))(push)
    size = jnp.maximum(rms(paired), jnp.sqrt(jnp.mean(cost**2 + squares(p_next, push))))
    states = local(rms(paired - pushed), rms(slack(error, p_next)), size, forward)

    if not jax.tree.leaves(theta):
        nothing = jnp.zeros(paired.shape[0], size.dtype)
        return states, Pushed(nothing, nothing, nothing, jnp.asarray(True))
    forward = not differ and has_forward(of_weights, theta)
    (cost, push), error = jax.vmap(lambda d: derivative(of_weights, theta, d, forward))(w)
    total = jnp.sum(cost + jax.vmap(lambda d: per_sample(p_next, d))(push), axis=1)
    size = jnp.sum(jnp.sqrt(cost**2 + squares(p_next, push)), axis=1)
    doubt = jnp.sum(slack(error, p_next), axis=1)
    return states, Pushed(total, size, doubt, jnp.asarray(forward))


def pair_weights(
    problem: ControlProblem, run: Run, theta: PyTree, g: PyTree, w: PyTree, pushed: Pushed
) -> Local:
    """`dJ/dtheta . w`, one identity a set of weights: tied stages are summed, their cost paid once."""
    g = with_coupling(problem, run, theta, g, -1.0)
    total, size, doubt = run.gather((pushed.total, pushed.size, pushed.doubt))
    forward = jnp.all(pushed.forward, keepdims=True) if run.tied else pushed.forward
    shared = Pushed(total, size, doubt, forward)
    found = jax.vmap(lambda *a: close(problem, *a))(theta, g, w, shared)
    gap, error, scale = (run.place(a) for a in (found.gap, found.error, found.scale))
    return Local(gap, error, scale, jnp.broadcast_to(found.forward, run.length))


def with_coupling(
    problem: ControlProblem, run: Run, theta: PyTree, g: PyTree, sign: float = 1.0
) -> PyTree:
    """The gradient of a run's weights with what couples its stages added, or taken away."""
    if not problem.couples or run.tied or not jax.tree.leaves(theta):
        return g
    paid = jax.grad(inlined(problem.coupling))(theta)
    return jax.tree.map(lambda a, b: a + sign * b, g, paid)


def close(problem: ControlProblem, theta: PyTree, g: PyTree, w: PyTree, pushed: Pushed) -> Local:
    """The identity of one set of weights, from the summands of the stages that use it."""
    total, size, doubt, forward = pushed
    if not jax.tree.leaves(theta):
        return Local(jnp.sum(total), jnp.sum(doubt), jnp.sum(size), forward)
    cost = inlined(problem.weight_cost)
    known = has_forward(cost, theta)
    r, error = jax.vmap(lambda d: derivative(cost, theta, d, known))(w)
    paired = jax.vmap(lambda d: inner(g, d))(w)
    gap, size = rms(paired - total - r), rms(jnp.abs(r) + size)
    return local(gap, rms(doubt + error), size, jnp.logical_and(forward, known))


def pair_terminal(problem: ControlProblem, x: PyTree, p: PyTree, v: PyTree) -> Local:
    """`p_K . v = dPhi . v / n`."""
    cost = lambda a: jax.vmap(inlined(problem.terminal_cost))(a, problem.targets)
    forward = has_forward(cost, x)
    push, error = jax.vmap(lambda d: derivative(cost, x, d, forward))(v)
    paired = jax.vmap(lambda d: per_sample(p, d))(v)
    n = problem.num_samples
    size = jnp.maximum(rms(paired), rms(push) / n)
    return local(rms(paired - push / n), rms(error) / n, size, forward)


def primal(problem: ControlProblem, stage: AbstractStage) -> Any:
    """`(x, theta, u) -> (l/n, F)` of the ensemble, custom rules inlined: leaves `(n, ...)`."""

    def one(x: PyTree, theta: PyTree, u: PyTree) -> tuple[Array, PyTree]:
        cost = jnp.asarray(problem.state_cost(x, theta), problem.dtype)
        return cost / problem.num_samples, advance(stage, x, theta, u)

    return jax.vmap(inlined(one), in_axes=(0, None, 0))


def local(gap: Array, error: Array, scale: Array, forward: bool | Array) -> Local:
    """Relative to the scale; where nothing is summed there is nothing to disagree about."""
    tiny = jnp.finfo(scale.dtype).tiny
    relative = lambda a: jnp.where(a == 0, 0.0, a / jnp.maximum(scale, tiny))
    return Local(relative(gap), relative(error), scale, jnp.asarray(forward))


def per_sample(p: PyTree, v: PyTree) -> Float[Array, " n"]:
    """`p^i . v^i` for every sample."""
    dot = lambda a, b: jnp.sum((a * b).reshape(a.shape[0], -1), axis=1)
    return sum(jax.tree.leaves(jax.tree.map(dot, p, v)))


def squares(p: PyTree, push: PyTree) -> Float[Array, "probes n"]:
    """Sum over coordinates of the squared summands of `p . push`."""
    return jax.vmap(lambda d: per_sample(jax.tree.map(jnp.square, p), jax.tree.map(jnp.square, d)))(
        push
    )


def slack(error: tuple[Array, PyTree], p: PyTree) -> Float[Array, "probes n"]:
    """What the derivatives' error estimates, one scalar a leaf, come to after contraction with `p`."""
    of_cost, of_step = error
    reach = lambda q: jnp.sqrt(jnp.sum((q**2).reshape(q.shape[0], -1), axis=1))
    each = jax.tree.map(lambda e, q: e[:, None] * reach(q)[None, :], of_step, p)
    return of_cost[:, None] + sum(jax.tree.leaves(each))


def rms(a: Array) -> Float[Array, ""]:
    """Root mean square over samples and probes."""
    return jnp.sqrt(jnp.mean(a**2))

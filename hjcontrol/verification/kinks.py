r"""Before a stage is refuted: is it a kink, or a program that forward mode cannot read?

At a kink two subgradients are both right (`jax.nn.relu` says 0 at 0, its inlined `max` says 1/2). So a
stage on trial is asked again at a nearby point, states and weights moved by `JITTER` of their size:
its own rule, as reverse mode uses it, against

    forward    forward mode of the inlined primal       agree there: the disagreement was a `kink`
    values     Richardson differences of the primal     agree there: the rule is the derivative of the
                                                        values, and it is the inlined program (an
                                                        iteration, a table) whose tangent is not

A rule that is wrong disagrees with both at the nearby point too.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key, PyTree

from hjcontrol.control import ControlProblem, Trajectory, sample_hamiltonian
from hjcontrol.networks import AbstractStage, Run, Weights
from hjcontrol.verification.directional import differences
from hjcontrol.verification.inlining import inlined
from hjcontrol.verification.pairing import (
    Local,
    Pairing,
    close,
    local,
    pair_terminal,
    per_sample,
    push_stage,
    rms,
)
from hjcontrol.verification.probes import directions

JITTER = 1e-3


class Retrial(NamedTuple):
    """The same identities at a nearby point, the stage's own rule against forward mode, and values."""

    forward: Pairing
    values: Pairing


def retry(
    problem: ControlProblem,
    weights: Weights,
    states: Trajectory,
    costates: Trajectory,
    key: Key[Array, ""],
    probes: int,
) -> Retrial:
    """Every stage's rule on its own, near the states and weights given."""
    key, last = jax.random.split(key)
    ends = _terminal(problem, _jitter(last, states.final, True), last, probes)
    p, by_run, given = costates.final, [], problem.given_by_depth
    for r in reversed(range(len(problem.chain.runs))):
        run = problem.chain.runs[r]
        xs, ps = (
            jax.tree.map(lambda a: jnp.moveaxis(a, 1, 0), t.runs[r]) for t in (states, costates)
        )
        key, sub = jax.random.split(key)

        def body(p_next: Any, stage: Any, theta: Any, u: Any, slices: Any) -> tuple[Any, Any]:
            x, p, k = slices
            return p, _stage(problem, stage, x, theta, u, p_next, k, probes)

        each = (xs, ps, jax.random.split(sub, run.length))
        p, found = run.scan(body, p, weights[r], each, given[r], reverse=True)
        by_run.append(Retrial(*(_shared(run, tried) for tried in found)))
    joined = jax.tree.map(lambda *a: jnp.concatenate(a), *reversed(by_run))
    close = lambda found, end: found._replace(
        states=jax.tree.map(lambda a, b: jnp.concatenate([a, b[None]]), found.states, end)
    )
    return Retrial(close(joined.forward, ends[0]), close(joined.values, ends[1]))


def _shared(run: Run, found: Pairing) -> Pairing:
    """Tied stages stand or fall together: the worst of them, at the first."""
    if not run.tied:
        return found
    gap, error, scale, forward = found.weights
    gap, error, scale = (run.place(jnp.max(a, keepdims=True)) for a in (gap, error, scale))
    return found._replace(weights=Local(gap, error, scale, forward))


def _stage(
    problem: ControlProblem,
    stage: AbstractStage,
    x: PyTree,
    theta: PyTree,
    u: PyTree,
    p_next: PyTree,
    key: Key[Array, ""],
    probes: int,
) -> Retrial:
    a, b, c, d = jax.random.split(key, 4)
    x, theta = _jitter(a, x, True), _jitter(b, theta, False)

    def share(x: PyTree, theta: PyTree) -> Array:
        one = lambda a, q, u: sample_hamiltonian(problem, stage, a, q, theta, u)
        return jnp.sum(jax.vmap(one)(x, p_next, u)) + problem.weight_cost(theta)

    p, g = jax.grad(share, argnums=(0, 1))(x, theta)
    v, w = directions(c, x, probes, ensemble=True), directions(d, theta, probes)

    def ask(differ: bool) -> Pairing:
        found, pushed = push_stage(problem, stage, x, theta, u, p_next, p, v, w, differ)
        return Pairing(found, close(problem, theta, g, w, pushed))

    return Retrial(ask(False), ask(True))


def _terminal(
    problem: ControlProblem, x: PyTree, key: Key[Array, ""], probes: int
) -> tuple[Any, Any]:
    n = problem.num_samples
    slope = jax.vmap(jax.grad(problem.terminal_cost))(x, problem.targets)
    p = jax.tree.map(lambda a: a / n, slope)
    vs = directions(key, x, probes, ensemble=True)
    v = jax.tree.map(lambda a: a[0], vs)
    cost = lambda a: jax.vmap(inlined(problem.terminal_cost))(a, problem.targets)
    push, error = differences(cost, x, v)
    paired = per_sample(p, v)
    size = jnp.maximum(rms(paired), rms(push) / n)
    return (
        pair_terminal(problem, x, p, vs),
        local(rms(paired - push / n), error / n, size, False),
    )


def _jitter(key: Key[Array, ""], tree: PyTree, ensemble: bool) -> PyTree:
    def moved(a: Array, d: Array) -> Array:
        size = rms(a) if a.size else jnp.zeros((), a.dtype)
        return a + (JITTER * jnp.where(size > 0, size, 1.0)).astype(a.dtype) * d[0]

    return jax.tree.map(moved, tree, directions(key, tree, 1, ensemble))

r"""The costate equation, integrated on its own: the continuous witness for flows.

    x' = f(x, theta(t)),    p' = -dH/dx = -(df/dx)^T p,    dJ/dtheta = int (df/dtheta)^T p dt

Classical Runge-Kutta of order 4 with equal panels, the state forward on half panels and the costate
back along it: neither diffrax nor the flow's solver and adjoint are used, and its states start
at x_0, not at the flow's. f is differentiated as the inlined primal. Once with `PANELS` panels a piece
and once with twice as many: Richardson's extrapolation is returned, and the difference over 15 beside it
as the error. Other stages are discrete, and so is their adjoint. Limit: panels that are too long for a
stiff drift give an error estimate that is large or NaN, and then this route is left out.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from hjcontrol.control import ControlProblem, Trajectory
from hjcontrol.control.hamiltonians import inner
from hjcontrol.control.trajectory import swapped
from hjcontrol.networks import Flow, Weights
from hjcontrol.networks.given import Given
from hjcontrol.verification.ensemble import primal, with_coupling
from hjcontrol.verification.inlining import inlined

PANELS = 32


class Continuous(NamedTuple):
    """Costates and gradient, and for each an estimate of the error, shaped the same."""

    costates: Trajectory
    gradient: Weights
    costate_error: Trajectory
    gradient_error: Weights


def costate_equation(problem: ControlProblem, weights: Weights) -> Continuous:
    """Costates at the ends of the pieces, `(n, ...)` each, and the gradient."""
    coarse, fine = (
        jax.tree.map(lambda a, j=j: a[j], pair)
        for pair in [jax.lax.map(lambda c: _sweep(problem, weights, c), jnp.array([1, 2]))]
        for j in (0, 1)
    )
    away = jax.tree.map(lambda a, b: (b - a) / 15, coarse, fine)
    best = jax.tree.map(jnp.add, fine, away)
    return Continuous(*best, *away)


def _sweep(
    problem: ControlProblem, weights: Weights, finer: Int[Array, ""]
) -> tuple[Trajectory, Weights]:
    def ahead(r: int, x: Any, stage: Any, theta: Any, u: Any) -> tuple[Any, Any]:
        return _forward(problem, stage, x, theta, u, finer), x

    def back(r: int, p: Any, stage: Any, theta: Any, u: Any, x: Any) -> tuple[Any, Any]:
        p, g = _backward(problem, stage, x, theta, u, p, finer)
        return p, (p, g)

    given, fold = problem.given_by_depth, problem.chain.fold
    x, starts = fold(ahead, problem.inputs, weights, given=given)
    cost = jax.vmap(inlined(problem.terminal_cost))
    final = jax.grad(lambda a: jnp.sum(cost(a, problem.targets)) / problem.num_samples)(x)
    _, outs = fold(back, final, weights, starts, given=given, reverse=True)
    costates, slopes = zip(*outs, strict=True)
    gradient = []
    paying = lambda c: jnp.asarray(inlined(problem.weight_cost)(c), problem.dtype)
    for run, theta, g in zip(problem.chain.runs, weights, slopes, strict=True):
        paid = jax.vmap(jax.grad(paying))(theta)
        own = jax.tree.map(jnp.add, run.gather(g), paid)
        gradient.append(with_coupling(problem, run, theta, own))
    return Trajectory(swapped(costates), final), tuple(gradient)


def _forward(
    problem: ControlProblem, stage: Any, x: PyTree, theta: PyTree, u: PyTree, finer: Array
) -> PyTree:
    if not isinstance(stage, Flow):
        return primal(problem, stage)(x, theta, u)[1]
    return jax.tree.map(lambda a: a[2 * finer * _panels(stage)], _states(stage, x, theta, finer))


def _backward(
    problem: ControlProblem,
    stage: Any,
    x: PyTree,
    theta: PyTree,
    u: PyTree,
    p: PyTree,
    finer: Array,
) -> tuple[PyTree, PyTree]:
    """`dH/dx` and `dH/dtheta` of one stage, its running cost included."""

    def discrete(a: PyTree, c: PyTree) -> Float[Array, ""]:
        if isinstance(stage, Flow):
            paid = jax.vmap(
                inlined(lambda b, c, u: problem.state_cost(b, c, u) + jnp.zeros(())),
                (0, None, 0 if isinstance(u, Given) else None),
            )
            return jnp.sum(paid(a, c, u)) / problem.num_samples
        running, x_next = primal(problem, stage)(a, c, u)
        return jnp.sum(running) + inner(p, x_next)

    q, g = jax.grad(discrete, argnums=(0, 1))(x, theta)
    if not isinstance(stage, Flow):
        return q, g
    p, of_flow = _costates(stage, x, theta, p, finer)
    return jax.tree.map(jnp.add, p, q), jax.tree.map(jnp.add, of_flow, g)


def _panels(stage: Flow) -> int:
    """At least `PANELS`, and a whole number of them between two knots: the control has corners there."""
    pieces = 1 if stage.control == "constant" else stage.knots - 1
    return pieces * -(-PANELS // pieces)


def _rate(stage: Flow) -> Any:
    return jax.vmap(inlined(stage.velocity), in_axes=(None, 0, None))


def _states(stage: Flow, x: PyTree, theta: PyTree, finer: Int[Array, ""]) -> PyTree:
    """States at the half panels, `(4 panels + 1, n, ...)`, of which `2 finer panels + 1` are used."""
    f, count = _rate(stage), 2 * finer * _panels(stage)
    h = (stage.t1 - stage.t0) / count
    room = jax.tree.map(lambda a: jnp.zeros((4 * _panels(stage) + 1, *a.shape), a.dtype), x)
    keep = lambda xs, x, i: jax.tree.map(lambda s, a: s.at[i].set(a), xs, x)

    def body(i: Array, carry: Any) -> Any:
        x, xs = carry
        t = stage.t0 + i * h
        x = _runge_kutta(lambda c, y: f(_as(t + c * h, y), y, theta), x, h)
        return x, keep(xs, x, i + 1)

    return jax.lax.fori_loop(0, count, body, (x, keep(room, x, 0)))[1]


def _costates(
    stage: Flow, x: PyTree, theta: PyTree, p: PyTree, finer: Int[Array, ""]
) -> tuple[PyTree, PyTree]:
    f, xs = _rate(stage), _states(stage, x, theta, finer)
    count = finer * _panels(stage)
    h = (stage.t1 - stage.t0) / count

    def body(j: Array, carry: Any) -> Any:
        i = 2 * (count - j)
        t = stage.t1 - j * h

        def rate(c: float, carry: Any) -> Any:
            at = jax.tree.map(lambda a: a[i - round(2 * c)], xs)
            _, pull = jax.vjp(lambda a, th: f(_as(t - c * h, a), a, th), at, theta)
            return pull(carry[0])

        return _runge_kutta(rate, carry, h)

    return jax.lax.fori_loop(0, count, body, (p, jax.tree.map(jnp.zeros_like, theta)))


def _as(t: Array, like: PyTree) -> Array:
    return t.astype(jnp.result_type(*jax.tree.leaves(like)))


def _runge_kutta(rate: Any, y: PyTree, h: Array) -> PyTree:
    """One step of the classical method; `rate(c, y)` at the fraction `c` of the step."""
    move = lambda a, k: jax.tree.map(lambda u, v: u + _as(a * h, u) * v, y, k)
    k1 = rate(0.0, y)
    k2 = rate(0.5, move(0.5, k1))
    k3 = rate(0.5, move(0.5, k2))
    k4 = rate(1.0, move(1.0, k3))
    return move(1.0 / 6, jax.tree.map(lambda a, b, c, d: a + 2 * b + 2 * c + d, k1, k2, k3, k4))

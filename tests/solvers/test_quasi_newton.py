"""L-BFGS: step by step as optax's; in the metric of the curvature, the fewer steps it takes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from sklearn.datasets import load_digits

import hjcontrol as hj
from hjcontrol.networks import Dense, Residual, lift, readout
from hjcontrol.solvers import exact_region, newton, quasi_newton


def valley(x):
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def theirs(start, count):
    """The points of optax's own L-BFGS."""
    method = optax.lbfgs()
    ask = optax.value_and_grad_from_state(valley)

    def step(carry, _):
        x, state = carry
        value, gradient = ask(x, state=state)
        update, state = method.update(
            gradient, state, x, value=value, grad=gradient, value_fn=valley
        )
        x = optax.apply_updates(x, update)
        return (x, state), x

    return jax.lax.scan(step, (start, method.init(start)), None, length=count)[1]


def ours(start, count, metric=lambda v: v):
    def step(carry, _):
        x, value, gradient, memory = carry
        end = quasi_newton.stepped(valley, x, value, gradient, memory, metric)
        return (end.at, end.value, end.gradient, end.memory), end.at

    begun = (start, *jax.value_and_grad(valley)(start), quasi_newton.begun(start))
    return jax.lax.scan(step, begun, None, length=count)[1]


def test_the_points_are_those_of_optax():
    start = jnp.linspace(-1.0, 2.0, 30)
    a, b = (jax.jit(f, static_argnums=1)(start, 40) for f in (ours, theirs))
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-9)


def test_another_metric_gives_other_points():
    start = jnp.linspace(-1.0, 2.0, 30)
    metric = lambda v: v * jnp.linspace(0.5, 2.0, 30)
    assert float(jnp.max(jnp.abs(ours(start, 5, metric) - theirs(start, 5)))) > 1e-3


def test_a_quadratic_in_its_own_metric_takes_one_step():
    H = jnp.diag(jnp.logspace(0, 6, 20))
    cost = lambda x: 0.5 * x @ H @ x
    x = jnp.ones(20)
    exact = lambda v: v / jnp.diag(H)
    memory = quasi_newton.begun(x)
    for _ in range(2):  # the first step has no pair, and is no longer than one
        end = quasi_newton.stepped(cost, x, *jax.value_and_grad(cost)(x), memory, exact)
        x, memory = end.at, end.memory
    assert float(jnp.max(jnp.abs(x))) < 1e-12


def some_digits():
    """Digits with fewer samples: more weights than the whole Hessian is formed for."""
    features, labels = load_digits(return_X_y=True)
    x = (features - features.mean(axis=0)) / np.maximum(features.std(axis=0), 1e-6)
    stages = [lift(64, 12), *[Residual(Dense(12, 12), 0.25)] * 4, readout(12, 10)]
    return hj.ControlProblem(
        stages,
        x[:300],
        labels[:300],
        terminal=hj.control.softmax_cross_entropy,
        running=hj.control.Ridge(1e-3),
    )


def left_after(steps, problem, start):
    """The gradient that so many of Newton's cheap steps leave, as a share of the first one."""
    solver = hj.solvers.Newton(tol=0.0, switch=0.0)

    @jax.jit  # of a new function: what it reads of the module is read anew
    def run(start):
        state = solver.init(problem, start, None)
        step = lambda _, state: solver.step(problem, state)
        return jax.lax.fori_loop(0, steps, step, state).size / state.size

    return float(run(start))


def test_the_blocks_save_gradients(monkeypatch):
    """Without them (the twin) the gradient is five times as large after as many steps, at least."""
    problem = some_digits()
    start = problem.init(jax.random.key(0))
    assert ravel_pytree(start)[0].size > exact_region.FEW
    monkeypatch.setattr(newton, "CHEAP_STEPS", 10**6)
    with_blocks = left_after(350, problem, start)
    monkeypatch.setattr(newton, "BENT", 0.0)
    without = left_after(350, problem, start)
    print(with_blocks, without)
    assert 5 * with_blocks < without

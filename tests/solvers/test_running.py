"""`run` is pure: what it gives under jit, vmap and grad, against closed forms and differences."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hjcontrol as hj
from hjcontrol.control import Box, ControlProblem, Ridge, least_squares
from hjcontrol.networks import Dense, Residual, readout
from hjcontrol.solvers import Gradient, Newton, loop, run

KEY = jax.random.key(0)
X, Y = (jax.random.normal(jax.random.key(k), (12, 2)) for k in (1, 2))
XV, YV = (jax.random.normal(jax.random.key(k), (9, 2)) for k in (3, 4))
RIDGES = jnp.asarray([0.03, 0.3, 3.0])


def affine(ridge, x=X, y=Y, **options):
    return ControlProblem(
        [readout(2, 2)], x, y, terminal=least_squares, running=Ridge(ridge), **options
    )


def closed(ridge, x=X, y=Y, sample=None):
    """The ridge solution with weights of samples, by NumPy: rows `(W, b)`."""
    A = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    sample = np.ones(len(x)) if sample is None else sample
    S = A.T * sample / len(x)
    return np.linalg.solve(S @ A + ridge * np.eye(3), S @ np.asarray(y)).T


def rows(weights):
    return jnp.concatenate([weights[0].W, weights[0].b[..., None]], axis=-1)[..., 0, :, :]


START = affine(1.0).init(KEY)
NEWTON = Newton(tol=1e-12)
DESCENT = Gradient(
    optax.sgd(0.3), tol=1e-13
)  # compiles at once; these problems are well conditioned


@pytest.fixture(scope="module")
def over_ridges():
    return jax.jit(jax.vmap(lambda ridge: run(affine(ridge), NEWTON, START, 50)))(RIDGES)


def test_a_vmapped_run_is_the_closed_form_of_every_ridge(over_ridges):
    for k, ridge in enumerate(RIDGES):
        np.testing.assert_allclose(rows(over_ridges.weights)[k], closed(ridge), atol=1e-11)
    assert bool(jnp.all(over_ridges.result == hj.RESULTS.successful))
    assert float(over_ridges.stationarity.max()) < 1e-11


def test_the_ridges_told_apart(over_ridges):
    """The twin: one ridge's weights are not another's."""
    assert np.abs(rows(over_ridges.weights)[0] - closed(RIDGES[1])).max() > 1e-2


def deep(ridge, x=X, sample=None):
    stages = [Residual(Dense(2, 2), 0.5)] * 2
    sample = jnp.ones(x.shape[0]) if sample is None else sample
    weighted = lambda end, target: target[1] * least_squares(end, target[0])
    return ControlProblem(stages, x, (Y, sample), terminal=weighted, running=Ridge(ridge))


def held_out(weights):
    stages = [Residual(Dense(2, 2), 0.5)] * 2
    return ControlProblem(stages, XV, YV, terminal=least_squares).objective(weights)


FIRST = deep(1.0).init(KEY)


def validated(ridge, sample, x, start, limit):
    """The held-out cost of what a run ends with."""
    return held_out(run(deep(ridge, x, sample), DESCENT, start, limit).weights)


@pytest.fixture(scope="module")
def hypergradient():
    """Value and gradient of the held-out cost in the ridge, the samples' weights and all inputs."""
    return jax.jit(jax.value_and_grad(validated, argnums=(0, 1, 2)))


AT = (jnp.asarray(0.1), jnp.ones(12), X)


@pytest.mark.parametrize("argument", ["ridge", "sample", "data"])
def test_a_hypergradient_is_the_central_difference(hypergradient, argument):
    k = ["ridge", "sample", "data"].index(argument)
    way = jnp.cos(jnp.arange(AT[k].size, dtype=float)).reshape(AT[k].shape)
    slope = jnp.sum(hypergradient(*AT, FIRST, 3000)[1][k] * way)
    ends = []
    for h in (1e-4, -1e-4):
        moved = list(AT)
        moved[k] = AT[k] + h * way
        ends.append(hypergradient(*moved, FIRST, 3000)[0])
    np.testing.assert_allclose(slope, (ends[0] - ends[1]) / 2e-4, rtol=1e-6)
    assert abs(float(slope)) > 1e-4


def test_a_run_that_was_cut_short_has_no_derivative(hypergradient):
    value, slopes = hypergradient(*AT, FIRST, 1)
    assert bool(jnp.isfinite(value))
    assert bool(jnp.isnan(slopes[0]))


def test_over_seeds_each_ends_as_it_does_alone(hypergradient):
    seeds = jax.vmap(deep(1.0).init)(jax.random.split(KEY, 3))
    found = jax.jit(jax.vmap(lambda w: validated(*AT, w, 3000)))(seeds)
    for k in range(3):
        alone = hypergradient(*AT, jax.tree.map(lambda a, k=k: a[k], seeds), 3000)[0]
        np.testing.assert_allclose(found[k], alone, rtol=1e-10)


def test_weights_on_a_bound_stay_there():
    """The box stops some weights: the others move as if these were fixed, and these move with it."""

    def value(ridge, upper):
        problem = affine(ridge, control_set=Box(-1.0, upper))
        return run(problem, DESCENT, START, 3000)

    found = jax.jit(value)(0.1, 0.05)
    pressed = np.asarray(rows(found.weights)) == 0.05
    assert pressed.any()
    assert not pressed.all()
    total = lambda ridge, upper: jnp.sum(rows(value(ridge, upper).weights) ** 2)
    slopes = jax.jit(jax.grad(total, argnums=(0, 1)))(0.1, 0.05)
    asked = jax.jit(total)
    for k, h in ((0, 1e-5), (1, 1e-6)):
        up, down = ([0.1, 0.05] for _ in range(2))
        up[k] += h
        down[k] -= h
        np.testing.assert_allclose(slopes[k], (asked(*up) - asked(*down)) / (2 * h), rtol=1e-6)


def test_conjugate_gradients_agree_with_the_decomposition(monkeypatch, hypergradient):
    from hjcontrol.solvers import implicit

    first = hypergradient(*AT, FIRST, 3000)[1][0]
    monkeypatch.setattr(implicit, "DENSE", 0)
    found = jax.jit(jax.grad(lambda *at: validated(*at)))(*AT, FIRST, 3000)
    np.testing.assert_allclose(found, first, rtol=1e-8)


def test_gradient_runs_too_and_minibatches_take_their_key():
    solver = Gradient(optax.adam(1e-2), batch_size=4)
    found = jax.jit(lambda k: run(deep(0.1), solver, FIRST, 5, key=k))(KEY)
    assert bool(found.result == hj.RESULTS.max_steps_reached)
    alone = hj.solve(deep(0.1), solver, init=FIRST, key=KEY, max_steps=5)
    np.testing.assert_allclose(found.weights[0].W, alone.weights[0].W, rtol=1e-12)


def test_what_is_no_pure_function_is_refused():
    with pytest.raises(ValueError, match="run: direct runs outside JAX"):
        run(deep(0.1), "direct", FIRST)
    ball = affine(0.1, control_set=hj.control.L2Ball(1.0))
    solver = Gradient(optax.sgd(1e-2))
    with pytest.raises(ValueError, match="bounds of their own; found L2Ball"):
        jax.jvp(
            lambda x: run(eqx.tree_at(lambda p: p.inputs, ball, x), solver, START, 2).objective,
            (X,),
            (X,),
        )


def test_a_temperature_that_a_cost_closes_over_has_its_derivative():
    x = jnp.asarray([[1.0, -0.5], [0.3, 0.8], [-1.0, 0.2], [0.5, 0.5]])
    labels = jnp.asarray([0, 1, 0, 1])

    def size(eps):
        problem = hj.ControlProblem(
            (lambda theta, v: theta @ v, jnp.zeros((2, 2))),
            x,
            labels,
            terminal=lambda z, y: eps * hj.softmax_cross_entropy(z / eps, y),
            running=hj.Ridge(0.1),
        )
        found = hj.solvers.run(problem, hj.Newton(tol=1e-12), problem.init(jax.random.key(0)), 80)
        return sum(jnp.sum(a**2) for a in jax.tree.leaves(found.weights))

    h, value = 1e-4, jax.jit(size)
    by_difference = (value(0.7 + h) - value(0.7 - h)) / (2 * h)
    np.testing.assert_allclose(jax.jit(jax.grad(size))(0.7), by_difference, rtol=1e-6)
    assert abs(by_difference) > 0.1


def test_a_dear_step_is_taken_by_those_members_alone_whose_turn_it_is():
    told = []

    def dear(offset, state):
        jax.debug.callback(lambda a: told.append(float(a)), state)
        return state + offset

    when, states = jnp.array([True, False, True]), jnp.array([1.0, 2.0, 3.0])
    go = jax.jit(jax.vmap(lambda w, s: loop.in_turn(w, dear, 10.0, s)))
    np.testing.assert_array_equal(go(when, states), [11.0, 2.0, 13.0])
    jax.effects_barrier()
    assert sorted(told) == [1.0, 3.0]

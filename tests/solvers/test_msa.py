"""Successive approximations: stage minimisers, descent, what the plain method says, LQ exactness."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import hjcontrol as hj
from hjcontrol.networks import Dense, Residual, Tied, readout
from hjcontrol.solvers import MSA, ExtendedMSA
from hjcontrol.solvers.msa import point as msa_point
from hjcontrol.solvers.msa.quadratic import is_quadratic
from hjcontrol.solvers.msa.stage import StageMinimiser
from hjcontrol.solvers.msa.sweep import sweep

at = eqx.filter_jit(msa_point.at)  # one program, not sixty

LOWER, UPPER = np.asarray([-0.3, -0.3, -0.2]), np.asarray([0.25, 0.1, 0.25])
BOX = hj.control.Box(LOWER, UPPER)


class Biased(hj.networks.AbstractStage):
    """`A x + theta`: linear, and the bias is the control."""

    A: jax.Array

    def step(self, x, theta):
        return self.A @ x + theta

    def init(self, key):
        return jax.random.normal(key, (3,), self.A.dtype)


def linear_quadratic(ridge=2.0, **options):
    draw = np.random.default_rng(5).normal
    return hj.ControlProblem(
        [Biased(jnp.asarray(0.4 * draw(size=(3, 3)))) for _ in range(4)],
        jnp.asarray(draw(size=(6, 3))),
        jnp.asarray(draw(size=(6, 3))),
        terminal=hj.control.least_squares,
        running=hj.control.Ridge(ridge),
        **options,
    )


def sine(samples=12, depth=4, dtype=None):
    """The published toy, small: residual tanh layers, the outputs' sum against a sine."""
    x = jnp.linspace(-3.0, 3.0, samples, dtype=dtype)
    return hj.ControlProblem(
        [Residual(Dense(3, 3), 0.5)] * depth,
        jnp.tile(x[:, None], 3),
        jnp.sin(x),
        terminal=lambda x, y: (jnp.sum(x) - y) ** 2,
        running=hj.control.Ridge(1e-3),
    )


def flat(tree):
    return np.asarray(ravel_pytree(tree)[0])


@pytest.fixture(scope="module")
def lq_answer():
    """Controls and costates of the linear-quadratic problem by one dense solve."""
    problem = linear_quadratic()
    n, K, d = 6, 4, 3
    A = np.asarray(problem.chain.runs[0].stage.A)
    x0, y = np.asarray(problem.inputs), np.asarray(problem.targets)
    # x_K = P_0 x_0 + sum_k P_{k+1} theta_k, with P_k = A_{K-1} .. A_k
    P = [np.eye(d)]
    for k in reversed(range(K)):
        P.insert(0, P[0] @ A[k])
    L = np.concatenate(P[1:], axis=1)
    off = (x0 @ P[0].T - y).mean(0)
    theta = -np.linalg.solve(L.T @ L + 2.0 * np.eye(K * d), L.T @ off)
    final = (x0 @ P[0].T + L @ theta - y) / n
    return theta.reshape(K, d), [final @ P[k] for k in range(K + 1)]


@pytest.mark.parametrize("solver", [MSA(tol=1e-12), ExtendedMSA(tol=1e-12)], ids=["msa", "emsa"])
def test_linear_quadratic_answer_is_reached(solver, lq_answer):
    theta, costates = lq_answer
    solution = hj.solve(linear_quadratic(), solver, key=jax.random.key(0), max_steps=400)
    assert solution.result == hj.RESULTS.successful
    np.testing.assert_allclose(solution.weights[0], theta, atol=1e-11)
    for p, q in zip(solution.costate, costates, strict=True):
        np.testing.assert_allclose(p, q, atol=1e-11)


def test_plain_sweeps_diverge_where_ridge_is_small_and_say_so():
    problem = linear_quadratic(ridge=0.3)
    start = problem.init(jax.random.key(0))
    solution = hj.solve(problem, MSA(), init=start, max_steps=100)
    assert solution.result == hj.RESULTS.diverged
    assert "ExtendedMSA" in hj.RESULTS[solution.result]
    assert float(solution.objective) == pytest.approx(solution.history.objective.min(), rel=1e-12)
    extended = hj.solve(problem, ExtendedMSA(tol=1e-10), init=start, max_steps=1500)
    assert extended.result == hj.RESULTS.successful
    assert np.all(np.diff(extended.history.objective) <= 1e-14)


def test_bounded_minimum_is_that_of_every_grid_point():
    problem = linear_quadratic(ridge=0.5, control_set=BOX)
    weights = jax.tree.map(lambda a: 0.1 * a, problem.init(jax.random.key(0)))
    paths = at(problem, weights).paths
    rho = jnp.asarray(0.3)

    @jax.jit
    def answers(paths):
        found = [
            sweep(problem, weights, paths, rho, StageMinimiser(*how).on(BOX))[0][0]
            for how in (("auto", 1, True), ("projected_gradient", 60, False), ("lbfgsb", 40, False))
        ]
        return found

    closed, gradient, bounded = answers(paths)
    np.testing.assert_allclose(gradient, closed, atol=1e-9)
    np.testing.assert_allclose(bounded, closed, atol=1e-7)
    assert (np.asarray(closed) == LOWER).any() or (np.asarray(closed) == UPPER).any()
    # Brute force at the last stage: no point of a grid is better.
    states, costates = paths
    x, p, after = states[3], costates[4], states[4]
    axes = [np.linspace(*ends, 12) for ends in zip(LOWER, UPPER, strict=True)]
    grid = jnp.asarray(list(itertools.product(*axes)))

    def augmented(theta):
        gap = after - (x @ problem.chain[3].A.T + theta[None])
        return hj.control.hamiltonian(problem, 3, x, p, theta) + 0.5 * rho * jnp.sum(gap**2)

    near = closed[3][None] + jnp.concatenate([0.02 * jnp.eye(3), -0.02 * jnp.eye(3)])
    points = [closed[3][None], grid, BOX.project(near), near]
    values = jax.jit(jax.vmap(augmented))(jnp.concatenate(points))  # one program: a tie stays one
    inside, outside = values[1 : -len(near)], values[-len(near) :]
    assert float(values[0]) <= float(inside.min())
    assert float(outside.min()) < float(values[0])  # the twin: outside the box there is better


def test_free_minimum_is_the_inner_solvers():
    problem = hj.ControlProblem(
        [readout(3, 3)] * 2,
        jnp.asarray(np.random.default_rng(0).normal(size=(6, 3))),
        jnp.ones((6, 3)),
        terminal=hj.control.least_squares,
        running=hj.control.Ridge(0.3),
    )
    weights = problem.init(jax.random.key(0))
    paths = at(problem, weights).paths

    @jax.jit
    def both(paths):
        how = (StageMinimiser(), StageMinimiser("lbfgs", 80, closed=False))
        free = problem.control_set
        return [sweep(problem, weights, paths, jnp.asarray(0.5), m.on(free)) for m in how]

    (closed, fell), (inner, fell_inner) = both(paths)
    np.testing.assert_allclose(flat(closed), flat(inner), atol=1e-7)
    assert abs(float(fell - fell_inner)) < 1e-12
    assert float(fell) > 1e-2


def test_affine_stages_are_recognised_and_others_are_not():
    x, theta = jnp.ones(3), jnp.ones(12)
    affine = lambda t: jnp.sum((t[:9].reshape(3, 3) @ x + t[9:]) ** 2) + 0.1 * jnp.sum(t**2)
    assert is_quadratic(affine, theta)
    assert is_quadratic(jax.jit(affine), theta)
    assert not is_quadratic(lambda t: affine(jnp.tanh(t)), theta)
    assert not is_quadratic(lambda t: affine(t) + jnp.sum(t**4), theta)


@pytest.fixture(scope="module")
def descent():
    problem = sine()
    start = jax.tree.map(lambda a: 1.5 * a, problem.init(jax.random.key(1)))
    plain = hj.solve(problem, MSA(), init=start, max_steps=120)
    extended = hj.solve(problem, ExtendedMSA(), init=start, max_steps=120)
    return problem, plain, extended


def test_every_extended_sweep_descends_and_plain_ones_do_not(descent):
    _, plain, extended = descent
    assert plain.result in (hj.RESULTS.oscillating, hj.RESULTS.diverged)
    assert np.diff(plain.history.objective).max() > 1.0
    assert np.all(np.diff(extended.history.objective) <= 0)
    assert extended.history.objective[-1] < 0.1 * extended.history.objective[0]


def test_slope_of_the_augmented_hamiltonian_is_that_of_the_objective(descent):
    problem, _, extended = descent
    point = at(problem, extended.weights)
    slopes = []

    def record(objective, theta, run):
        return jax.grad(objective)(theta), jnp.asarray(0.0)

    slopes, _ = jax.jit(
        lambda paths: sweep(problem, extended.weights, paths, jnp.asarray(7.0), record)
    )(point.paths)
    np.testing.assert_allclose(flat(slopes), flat(point.gradient), atol=1e-13)


def test_tied_stages_share_one_minimisation():
    def problem(pieces):
        draw = np.random.default_rng(5).normal
        return hj.ControlProblem(
            pieces,
            jnp.asarray(draw(size=(6, 3))),
            jnp.asarray(draw(size=(6, 3))),
            terminal=hj.control.least_squares,
            running=hj.control.Ridge(0.5),
        )

    A = jnp.asarray(0.4 * np.random.default_rng(6).normal(size=(3, 3)))
    tied = problem([Tied(Biased(A), 4)])
    solution = hj.solve(tied, ExtendedMSA(tol=1e-11), key=jax.random.key(0), max_steps=400)
    assert solution.result == hj.RESULTS.successful
    value = lambda t: tied.objective((t[None],))
    zero = jnp.zeros(3)
    curved, slope = jax.jit(lambda t: (jax.hessian(value)(t), jax.grad(value)(t)))(zero)
    exact = -jnp.linalg.solve(curved, slope)
    np.testing.assert_allclose(solution.weights[0][0], exact, atol=1e-10)


def test_fixed_points_are_stationary_in_a_box():
    problem = linear_quadratic(ridge=0.5, control_set=BOX)
    solution = hj.solve(problem, ExtendedMSA(tol=1e-11), key=jax.random.key(0), max_steps=400)
    assert solution.result == hj.RESULTS.successful
    point = at(problem, solution.weights)
    again, fell = eqx.filter_jit(sweep)(
        problem, solution.weights, point.paths, jnp.asarray(0.2), StageMinimiser().on(BOX)
    )
    np.testing.assert_allclose(flat(again), flat(solution.weights), atol=1e-10)
    assert abs(float(fell)) < 1e-15


def test_minibatches_repeat_by_key():
    problem = linear_quadratic()
    solver = ExtendedMSA(batch_size=2)
    start = problem.init(jax.random.key(0))
    run = lambda seed: hj.solve(problem, solver, init=start, key=jax.random.key(seed), max_steps=6)
    first, second, third = run(1), run(1), run(2)
    np.testing.assert_array_equal(flat(first.weights), flat(second.weights))
    assert not np.array_equal(flat(first.weights), flat(third.weights))
    with pytest.raises(ValueError, match="minibatches need `key="):
        hj.solve(problem, solver, init=start)


def test_bad_options_are_refused_early():
    problem = linear_quadratic(control_set=BOX)
    start = problem.init(jax.random.key(0))
    for solver, words in (
        (MSA("lbfgs"), "projected_gradient"),
        (MSA(batch_size=7), "1 .. 6"),
    ):
        with pytest.raises(ValueError, match=words):
            hj.solve(problem, solver, init=start)
    with pytest.raises(ValueError, match="`rho` must be > 0; found -1"):
        ExtendedMSA(-1.0)
    with pytest.raises(ValueError, match="`steps` must be >= 1; found 0"):
        ExtendedMSA(steps=0)


@pytest.mark.any_precision
def test_single_precision_descends():
    problem = sine(dtype=jnp.float32)
    start = problem.init(jax.random.key(1))
    solution = hj.solve(problem, ExtendedMSA(), init=start, max_steps=30)
    assert all(a.dtype == jnp.float32 for a in jax.tree.leaves(solution.weights))
    h = solution.history.objective
    assert np.all(np.diff(h) <= 1e-5 * np.abs(h[:-1]))
    assert h[-1] < 0.5 * h[0]

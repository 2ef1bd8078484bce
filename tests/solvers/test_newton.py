"""Newton: closed forms, quadratic convergence, negative curvature, its preconditioner."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import hjcontrol as hj
from hjcontrol.control import backpropagate, curvature, gauss_newton_curvature
from hjcontrol.networks import Dense, Residual, readout
from hjcontrol.solvers import blocks
from hjcontrol.solvers.blocks import preconditioner
from hjcontrol.solvers.newton import Newton
from tests.solvers.problems import linear_regression, rings


@eqx.filter_jit
def columns(kind, problem, weights):
    product = kind(problem, weights)
    flat, unravel = ravel_pytree(weights)
    return jax.vmap(lambda v: ravel_pytree(product(unravel(v)))[0])(jnp.eye(flat.size))


def dense(kind, problem, weights):
    """The matrix of the linear map `kind(problem, weights)`."""
    return np.asarray(columns(kind, problem, weights)).T


def inverse_blocks(problem, weights):
    _, states, costates, _ = backpropagate(problem, weights)
    return preconditioner(problem, weights, states, costates)


def closed_form(problem, ridge):
    x = np.concatenate([problem.inputs, np.ones((problem.num_samples, 1))], axis=1)
    n = problem.num_samples
    return np.linalg.solve(x.T @ x / n + ridge * np.eye(x.shape[1]), x.T @ problem.targets / n).T


def test_linear_least_squares_in_one_newton_step():
    problem = linear_regression()
    solution = hj.solve(problem, Newton(tol=1e-12, switch=1.0), key=jax.random.key(0), throw=True)
    theta = solution.weights[0]
    found = np.concatenate([theta.W[0], theta.b[0][:, None]], axis=1)
    np.testing.assert_allclose(found, closed_form(problem, 0.1), atol=1e-12)
    # The block is the whole Hessian here, so the preconditioned solve is exact at once.
    assert solution.stats["num_steps"] <= 2


# Gauss-Newton converges linearly: where J goes blind (1e-8) nothing is left to damp its steps by.
@pytest.mark.parametrize(("kind", "tol"), [("exact", 1e-12), ("gauss_newton", 1e-7)])
def test_reaches_stationarity(kind, tol):
    solution = hj.solve(rings(), Newton(tol=tol, curvature=kind), key=jax.random.key(1))
    assert solution.result == hj.RESULTS.successful
    _, _, _, gradient = backpropagate(solution.problem, solution.weights)
    assert max(float(jnp.abs(g).max()) for g in jax.tree.leaves(gradient)) <= tol


def test_last_steps_converge_faster_than_linearly():
    solution = hj.solve(rings(), Newton(tol=1e-13), key=jax.random.key(1))
    tail = solution.history.stationarity[-3:]
    assert tail[-1] < 1e-2 * tail[-2]
    assert np.log(tail[-1] / tail[-2]) < 1.3 * np.log(tail[-2] / tail[-3])


def test_negative_curvature_is_followed_off_a_saddle():
    problem = rings()
    at_rest = jax.tree.map(jnp.zeros_like, problem.init(jax.random.key(0)))
    # A nudge of 1e-6: near the symmetric saddle, where plain Newton would be attracted.
    nudge = jax.tree.map(lambda a: 1e-6 * a, problem.init(jax.random.key(2)))
    start = jax.tree.map(jnp.add, at_rest, nudge)
    flat = dense(curvature, problem, start)
    assert np.linalg.eigvalsh(flat)[0] < -1e-3
    solution = hj.solve(problem, Newton(tol=1e-10, switch=1.0), init=start)
    assert solution.result == hj.RESULTS.successful
    assert float(solution.objective) < float(problem.objective(start)) - 0.1
    at_end = dense(curvature, problem, solution.weights)
    assert np.linalg.eigvalsh(at_end)[0] > -1e-9


def stage_indices(problem):
    """Positions in the flat weights of each stage's weights, in the block's own order."""
    weights = problem.init(jax.random.key(0))
    flat, unravel = ravel_pytree(weights)
    numbered = problem.chain.unstack(unravel(jnp.arange(flat.size, dtype=flat.dtype)))
    return [np.asarray(ravel_pytree(theta)[0], int) for theta in numbered]


@pytest.mark.parametrize("seed", [0, 1])
def test_blocks_are_the_diagonal_blocks_of_the_hessian(seed):
    problem = rings()
    solved = hj.solve(problem, Newton(tol=1e-8), key=jax.random.key(seed)).weights
    hessian = dense(curvature, problem, solved)
    inverse = dense(inverse_blocks, problem, solved)
    for place in stage_indices(problem):
        block = hessian[np.ix_(place, place)]
        product = inverse[np.ix_(place, place)] @ block
        np.testing.assert_allclose(product, np.eye(len(place)), atol=1e-7)


def test_general_stages_get_their_blocks_too():
    class Bilinear(eqx.Module):
        a: jax.Array

        def __call__(self, x):
            return x + 0.1 * jnp.sin(self.a * x[::-1])

    x = jax.random.normal(jax.random.key(0), (20, 3))
    problem = hj.ControlProblem(
        [Bilinear(jnp.ones(3)), Residual(Dense(3, 3), 0.3), readout(3, 1)],
        x,
        x[:, :1] ** 2,
        terminal=hj.control.least_squares,
        running=[hj.control.Ridge(1e-2), lambda x, theta: 0.01 * jnp.sum(x**2)],
    )
    solution = hj.solve(problem, Newton(tol=1e-12), key=jax.random.key(4))
    assert solution.result == hj.RESULTS.successful
    inverse = dense(inverse_blocks, problem, solution.weights)
    hessian = dense(curvature, problem, solution.weights)
    place = stage_indices(problem)[0]
    product = inverse[np.ix_(place, place)] @ hessian[np.ix_(place, place)]
    np.testing.assert_allclose(product, np.eye(3), atol=1e-8)


def test_large_blocks_fall_back_to_factors_and_newton_still_converges(monkeypatch):
    monkeypatch.setattr(blocks, "LARGEST", 10)  # width 5 is compiled here only
    solution = hj.solve(rings(width=5, ridge=5e-2), Newton(tol=1e-11), key=jax.random.key(0))
    assert solution.result == hj.RESULTS.successful


def test_gauss_newton_is_positive_and_equals_the_hessian_for_linear_dynamics():
    problem = linear_regression()
    weights = problem.init(jax.random.key(0))
    exact = dense(curvature, problem, weights)
    np.testing.assert_allclose(dense(gauss_newton_curvature, problem, weights), exact, atol=1e-13)
    nonlinear = rings()
    weights = nonlinear.init(jax.random.key(0))
    product = dense(gauss_newton_curvature, nonlinear, weights)
    assert np.linalg.eigvalsh(product)[0] > 0
    assert np.abs(product - dense(curvature, nonlinear, weights)).max() > 1e-3


def test_unreachable_tolerance_is_stagnation_not_success():
    solution = hj.solve(rings(), Newton(tol=0.0), key=jax.random.key(1), max_steps=2000)
    assert solution.result == hj.RESULTS.stagnated
    assert solution.stats["stationarity"] < 1e-12


def test_bounds_by_their_active_set():
    """A known active set, of bounds that differ by leaf, row and run: KKT with multipliers, and IPOPT
    at the same point."""
    rows = hj.control.Box(jnp.asarray([[-0.6], [-0.5], [-0.4], [-0.6]]), 0.8)
    own = hj.control.ByLeaf(W=rows, b=hj.control.Nonnegative())
    all_ = hj.control.Box(-0.6, 0.8)
    problem = rings(control_set=hj.control.ByRun((all_, own, all_)))
    theirs = hj.solve(problem, hj.solvers.Direct(tol=1e-10), key=jax.random.key(0), throw=True)
    near = jax.tree.map(
        lambda a: a + 1e-3 * jnp.sin(jnp.arange(a.size)).reshape(a.shape), theirs.weights
    )
    near = problem.control_set.project(near)
    ours = hj.solve(problem, Newton(tol=1e-11), init=near, throw=True)
    _, _, _, gradient = backpropagate(problem, ours.weights)
    w, g = (ravel_pytree(a)[0] for a in (ours.weights, gradient))
    np.testing.assert_allclose(ravel_pytree(theirs.weights)[0], w, atol=1e-8)
    lower, upper = (ravel_pytree(b)[0] for b in problem.control_set.bounds(ours.weights))
    assert sorted({*map(float, lower)}) == [-0.6, -0.5, -0.4, 0.0]
    low, high = w <= lower, w >= upper
    assert low.sum() + high.sum() > 3
    inside = ~(low | high)
    assert jnp.abs(g[inside]).max() <= 1e-11
    assert g[low].min(initial=1.0) > 0
    assert g[high].max(initial=-1.0) < 0
    normal = ravel_pytree(problem.control_set.normal(ours.weights, gradient))[0]
    np.testing.assert_allclose(normal[~inside], -g[~inside], atol=1e-15)
    claimed = ravel_pytree(theirs.weight_multipliers)[0]
    np.testing.assert_allclose(claimed, jnp.where(inside, 0.0, -g), atol=1e-8)
    # The twin: a weight moved off its bound is no longer stationary.
    moved = jax.tree.map(lambda a: jnp.where(a <= -0.6, -0.59, a), ours.weights)
    assert problem.control_set.stationarity(moved, gradient) > 1e-6


def test_sets_that_are_not_bounds_are_refused_with_a_remedy():
    problem = rings(control_set=hj.control.L2Ball(1.0))
    with pytest.raises(ValueError, match=r"newton: .*'bounds'; found a L2Ball.*gradient"):
        hj.solve(problem, Newton(), key=jax.random.key(0))


def test_unknown_curvature(unchecked):
    with pytest.raises(ValueError, match="'exact', 'gauss_newton'; found 'bfgs'"):
        Newton(curvature="bfgs")  # pyright: ignore[reportArgumentType]


def test_float32_stays_float32():
    problem = rings()
    single = hj.ControlProblem(
        problem.chain,
        problem.inputs.astype(jnp.float32),
        problem.targets,
        terminal=problem.terminal,
        running=problem.running,
    )
    solution = hj.solve(single, Newton(tol=1e-5), key=jax.random.key(0))
    assert solution.result == hj.RESULTS.successful
    assert {a.dtype.name for a in jax.tree.leaves(solution.weights)} == {"float32"}

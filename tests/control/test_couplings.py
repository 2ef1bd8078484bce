"""Costs that couple stages, constraints on the final states, steps that are weights."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import hjcontrol as hj
from hjcontrol.control import ByLeaf, Nonnegative, Ridge, Smoothing, TerminalConstraint, augmented
from hjcontrol.networks import Chain, Dense, FreeStep, StepWeights, without_idle_stages
from tests.solvers.problems import rings

STEPS = [(lambda x, theta: x + theta, jnp.zeros(2))] * 4
X = jnp.asarray([[0.3, -1.0], [0.3, -1.0]])


def steering(**options):
    """x_{k+1} = x_k + theta_k from one point (twice), no cost but the weights'."""
    return hj.ControlProblem(STEPS, X, terminal=lambda x: jnp.zeros(()), **options)


@pytest.fixture(scope="module")
def smoothed():
    problem = rings(depth=3, running=[Ridge(1e-2), Smoothing(0.3)])
    weights = problem.init(jax.random.key(1))
    return problem, hj.solve(problem, hj.solvers.Newton(tol=1e-11), init=weights, throw=True)


def test_smoothing_is_the_sum_of_squared_differences():
    problem = rings(running=Smoothing(0.3))
    weights = problem.init(jax.random.key(1))
    thetas = np.asarray([ravel_pytree(t)[0] for t in problem.chain.unstack(weights)[1:-1]])
    expected = 0.15 * np.sum(np.diff(thetas, axis=0) ** 2)
    np.testing.assert_allclose(
        eqx.filter_jit(problem.total_weight_cost)(weights), expected, rtol=1e-14
    )


def test_every_route_counts_the_coupling(smoothed):
    """Newton and IPOPT at one point; the costate recursion has the same gradient."""
    problem, ours = smoothed
    theirs = hj.solve(problem, hj.solvers.Direct(), init=ours.weights, throw=True)
    near, far = (ravel_pytree(s.weights)[0] for s in (ours, theirs))
    np.testing.assert_allclose(far, near, atol=1e-8)
    weights = problem.init(jax.random.key(2))
    _, gradient = jax.jit(lambda w: hj.control.costate(problem, w))(weights)
    both = [ravel_pytree(g)[0] for g in (gradient, jax.jit(jax.grad(problem.objective))(weights))]
    np.testing.assert_allclose(*both, atol=1e-14)
    # The twin: without the coupling the weights are not stationary.
    uncoupled = jax.jit(jax.grad(rings().objective))(ours.weights)
    assert jnp.abs(ravel_pytree(uncoupled)[0]).max() > 1e-4


def test_terminal_constraint_by_its_multipliers():
    """Least effort to a point: theta_k = (target - x_0)/4, and nu = -theta by stationarity in theta."""
    target = jnp.asarray([1.0, 0.5])
    constraint = TerminalConstraint(lambda x: x - target)
    problem = steering(running=Ridge(1.0), terminal_constraint=constraint)
    nu, solution = jnp.zeros((2, 2)), problem.init(jax.random.key(0))
    for _ in range(12):
        free = augmented(problem, nu, 20.0)
        solution = hj.solve(free, hj.solvers.Newton(tol=1e-12), init=solution, throw=True)
        g = constraint.values(problem, solution.trajectory.final)
        nu = constraint.updated(nu, g, 20.0)
    assert constraint.violation(g) < 1e-10
    theta = (target - X[0]) / 4
    np.testing.assert_allclose(solution.weights[0], jnp.broadcast_to(theta, (4, 2)), atol=1e-10)
    np.testing.assert_allclose(nu, jnp.broadcast_to(-theta, (2, 2)), atol=1e-9)
    np.testing.assert_allclose(solution.costate.final, nu / 2, atol=1e-9)
    with pytest.raises(ValueError, match=r"no constraint on the final states.*augmented"):
        hj.solve(problem, hj.solvers.Newton(), init=solution.weights)
    below = TerminalConstraint(lambda x: x, "<=")
    assert float(below.violation(jnp.asarray([[-1.0, 2.0]]))) == 2.0
    assert float(below.updated(jnp.zeros((1, 1)), jnp.asarray([[-1.0]]), 3.0)[0, 0]) == 0.0


def test_idle_stages_can_be_left_out():
    chain = Chain([FreeStep(Dense(3, 3), 0.5)] * 5, jnp.zeros(3))
    (w,) = chain.init(jax.random.key(0))
    w = StepWeights(w.h.at[jnp.asarray([1, 4])].set(0.0), w.theta)
    shorter, less = without_idle_stages(chain, (w,))
    x = jnp.asarray([0.3, -0.2, 1.0])
    assert (len(chain), len(shorter)) == (5, 3)
    np.testing.assert_array_equal(eqx.filter_jit(shorter)(less, x), eqx.filter_jit(chain)((w,), x))
    # The twin: a stage that still steps is no idle one.
    other = jax.tree.map(lambda a: a[1:], less)
    cut = without_idle_stages(chain, (StepWeights(w.h.at[0].set(0.0), w.theta),))
    np.testing.assert_array_equal(cut[1][0].h, other[0].h)
    assert np.abs(eqx.filter_jit(cut[0])(cut[1], x) - eqx.filter_jit(chain)((w,), x)).max() > 1e-3
    kept = ByLeaf(h=Nonnegative()).project((StepWeights(w.h - 1.0, w.theta),))[0]
    assert float(kept.h.max()) == 0.0
    with pytest.raises(ValueError, match="every stage has h = 0"):
        without_idle_stages(chain, (StepWeights(0 * w.h, w.theta),))


def test_bad_couplings_are_refused():
    with pytest.raises(ValueError, match="strength"):
        Smoothing(-1.0)
    with pytest.raises(ValueError, match="kind"):
        TerminalConstraint(lambda x: x, "<")
    with pytest.raises(ValueError, match="found none"):
        augmented(steering(), jnp.zeros((2, 2)), 1.0)
    problem = steering(terminal_constraint=TerminalConstraint(lambda x: x))
    with pytest.raises(ValueError, match=r"shape \(2, 2\); found \(2, 3\)"):
        augmented(problem, jnp.zeros((2, 3)), 1.0)
    with pytest.raises(ValueError, match="positive"):
        augmented(problem, jnp.zeros((2, 2)), 0.0)


def test_the_witness_counts_the_coupling():
    """Smoothed steering: all conditions hold; with another smoothing they do not at these weights."""
    paid = hj.control.StateCost(lambda x, theta: 0.5 * jnp.sum(x**2))
    problem = hj.ControlProblem(
        STEPS,
        X,
        terminal=lambda x: 2 * jnp.sum((x - jnp.asarray([1.0, 0.5])) ** 2),
        running=[Ridge(1.0), paid, Smoothing(0.5)],
    )
    solution = hj.solve(problem, hj.solvers.Newton(tol=1e-12), key=jax.random.key(0), throw=True)
    found = hj.verify(solution, optimality=True)
    assert found.verdict == "exact"
    assert found.optimality.verdict == "strict minimum"
    assert found.optimality["H minimum, sampled"].verdict == "yes"
    twin = eqx.tree_at(lambda p: p.running[2].strength, problem, jnp.asarray(0.1))
    twin = hj.verify(twin, solution.weights, optimality=True)
    assert "stationarity" in [c.name for c in twin.optimality.violated]
    assert twin.optimality["H minimum, sampled"].verdict == "no"

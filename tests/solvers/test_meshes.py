"""Meshes that are too coarse for their equation: free steps, collocation; and the scheme that is not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hjcontrol as hj
from hjcontrol.control import Box, ByLeaf, Nonnegative, TerminalConstraint, WeightCost
from hjcontrol.networks import Flow, FreeStep
from hjcontrol.solvers import Direct


def minimum_time(scheme: str, depth: int) -> hj.ControlProblem:
    """The double integrator from (1, 0) to rest at 0, |u| <= 1: T = 2."""
    drift = hj.networks.as_stage((lambda x, u: jnp.stack([x[1], u[0]]), jnp.zeros(1)))
    return hj.ControlProblem(
        [FreeStep(drift, 2.5 / depth, scheme=scheme)] * depth,
        jnp.array([[1.0, 0.0]]),
        terminal=lambda x: 0.0 * x[0],
        running=WeightCost(lambda theta: theta.h),
        control_set=ByLeaf(h=Nonnegative(), theta=Box(-1.0, 1.0)),
        terminal_constraint=TerminalConstraint(lambda x: x),
    )


def test_one_long_euler_step_is_no_minimum_time():
    found = hj.solve(minimum_time("euler", 6), Direct(), key=jax.random.key(0))
    assert float(found.objective) < 1.9  # less than the equation allows
    assert found.result == hj.RESULTS.too_coarse
    assert "two of half the length differ" in found.stats["message"]
    right = hj.solve(minimum_time("rk4", 6), Direct(), key=jax.random.key(0))
    assert right.result == hj.RESULTS.successful
    np.testing.assert_allclose(right.objective, 2.0, atol=1e-8)


def test_a_free_step_of_fourth_order():
    drift = hj.networks.as_stage(lambda x: -x)
    errors, estimates = [], []
    for h in (0.4, 0.2):
        stage = FreeStep(drift, h, scheme="rk4")
        theta = stage.init(jax.random.key(0))
        errors.append(abs(float(stage.step(jnp.ones(1), theta)[0]) - np.exp(-h)))
        estimates.append(float(stage.discretisation_error(jnp.ones(1), theta)))
    assert 4.8 < np.log2(errors[0] / errors[1]) < 5.2
    assert 0.9 < estimates[1] / errors[1] < 1.1
    slope = jax.grad(lambda h: stage.step(jnp.ones(1), theta._replace(h=h))[0])(theta.h)
    np.testing.assert_allclose(stage.rate(jnp.ones(1), theta)[0], slope, atol=1e-14)
    with pytest.raises(ValueError, match=r"'euler'.*'rk4'"):
        FreeStep(drift, 0.1, scheme="rk2")  # pyright: ignore[reportArgumentType]


def test_a_coarse_collocation_says_so():
    """A fast rotation on one element; diffrax follows it."""
    turn = jnp.array([[0.0, 9.0], [-9.0, 0.0]])
    flow = Flow.pieces((lambda x, u: turn @ x + u, jnp.zeros(2)), 1.0, 2)
    problem = hj.ControlProblem(
        flow,
        jnp.array([[1.0, 0.0]]),
        terminal=lambda x: jnp.sum(x**2),
        running=hj.control.Ridge(0.1),
    )
    start = problem.init(jax.random.key(0))
    rough = hj.solve(problem, Direct("legendre", degree=2, elements=1), init=start)
    assert rough.result == hj.RESULTS.too_coarse
    assert "the flow's own solver differ by" in rough.stats["message"]
    fine = hj.solve(problem, Direct("legendre", degree=5, elements=3), init=start)
    assert fine.result == hj.RESULTS.successful

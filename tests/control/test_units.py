"""The unit of a problem: measured, of the problem's own degree, and one where nothing is out of scale."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hjcontrol as hj
from hjcontrol.control import (
    Box,
    ControlProblem,
    backpropagate,
    least_squares,
)
from hjcontrol.control.units import STEP, WINDOW, measured, stationarity, unit
from tests.solvers.problems import linear_regression, rings


@pytest.mark.parametrize("size", [1e-2, 0.2, 1.0, 99.0])
@pytest.mark.parametrize("power", [-2, -1, 0, 1, 3])
def test_a_unit_is_equivariant_and_one_in_the_window(size, power):
    found = unit(jnp.asarray(size * 1.0001 * STEP**power))
    np.testing.assert_allclose(found, STEP**power, rtol=1e-12)
    assert float(unit(jnp.asarray(size * 1.0001))) == 1.0
    assert float(unit(jnp.asarray(0.9 * WINDOW))) != 1.0  # the twin: outside, it is another


@pytest.mark.parametrize("nothing", [0.0, jnp.inf, jnp.nan])
def test_nothing_to_measure_has_the_unit_one(nothing):
    assert float(unit(jnp.asarray(nothing))) == 1.0


def _scaled(c: float, x: float = 1.0) -> ControlProblem:
    """`linear_regression` with J times c, its inputs, and so its states, times x."""
    plain = linear_regression()
    cost = lambda a, y: c * least_squares(a, y)
    stages = [
        lambda a: x * a,
        (lambda a, th: a @ th / x, 0.1 * jnp.ones((3, 2))),
    ]
    return ControlProblem(stages, plain.inputs, plain.targets, terminal=cost)


@pytest.mark.parametrize("c", [1e-8, 1.0, 1e8])
def test_the_unit_of_a_gradient_is_that_of_the_cost(c):
    problem = _scaled(c)
    found = measured(problem, problem.init(jax.random.key(0)))
    np.testing.assert_allclose([found.gradient, found.costate, found.state], [c, c, 1], rtol=1e-6)


def test_states_have_a_unit_of_their_own():
    problem = _scaled(1.0, x=1e8)
    found = measured(problem, problem.init(jax.random.key(0)))
    assert float(found.state) == pytest.approx(1e8)


@pytest.mark.parametrize("problem", [linear_regression, rings])
def test_a_solution_has_the_unit_of_its_start(problem):
    """The gradient falls by ten orders and the unit does not: it is no measure of the gradient itself."""
    problem = problem()
    start = problem.init(jax.random.key(0))
    solution = hj.solve(problem, hj.solvers.Newton(), init=start)
    ask = eqx.filter_jit(backpropagate)
    here, there = (measured(problem, w, ask) for w in (start, solution.weights))
    assert float(here.gradient) == float(there.gradient) == 1.0
    assert float(unit(jnp.asarray(solution.stats["stationarity"]))) < 1e-7  # the twin


def test_a_projected_violation_is_in_the_unit_of_the_gradient():
    """Under a Box, theta - P(theta - g) mixes the units of theta and g: c g has not c times as much."""
    problem = _scaled(1.0)
    problem = eqx.tree_at(lambda p: p.control_set, problem, Box(-0.2, 0.2))
    weights = problem.init(jax.random.key(0))
    gradient = backpropagate(problem, weights)[3]
    times = lambda c: jax.tree.map(lambda g: c * g, gradient)
    for c in (1e-8, 1e8):
        one = stationarity(problem, weights, gradient, jnp.asarray(1.0))
        np.testing.assert_allclose(
            stationarity(problem, weights, times(c), jnp.asarray(c)), c * one, rtol=1e-7
        )
    mixed = problem.control_set.stationarity(weights, times(1e8))
    assert float(mixed) < 1.0  # the twin

"""Collocation of flows: diffrax's solution at the scheme's order, multipliers the costates."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hjcontrol as hj
from hjcontrol.networks import Flow
from hjcontrol.solvers import Direct

X = jnp.asarray([[-1.0, 0.2], [0.7, -0.4], [0.1, 1.0]])
Y = jnp.asarray([[0.5, 0.5], [1.2, 0.0], [0.0, -1.0]])
KEY = jax.random.key(1)


def swing(x, theta):
    return jnp.tanh(theta["A"] @ x + theta["b"])


@pytest.fixture(scope="module")
def problem():
    stages = Flow.pieces(
        (swing, {"A": jnp.eye(2), "b": jnp.zeros(2)}),
        2.0,
        3,
        solver=diffrax.Tsit5(),
        stepsize_controller=diffrax.ConstantStepSize(),
        dt0=0.01,
    )
    running = [hj.control.Ridge(0.1), hj.control.StateCost(lambda x, th: 0.1 * jnp.sum(x**2))]
    return hj.ControlProblem(stages, X, Y, terminal=hj.control.least_squares, running=running)


def stacked(trajectory):
    return np.stack([np.asarray(p) for p in trajectory])


def solved(problem, scheme, degree, elements):
    solution = hj.solve(problem, Direct(scheme, degree=degree, elements=elements), key=KEY)
    # The order shows on coarse meshes too, and these say that they are coarse.
    fine = solution.result == hj.RESULTS.successful
    assert fine or solution.result == hj.RESULTS.too_coarse, solution.stats
    return solution


def error(solution, scale=1.0):
    """Multipliers against the costates of diffrax's steps at the same weights."""
    found = scale * stacked(solution.multipliers)
    return np.abs(found - stacked(solution.costate)).max()


@pytest.mark.parametrize(("scheme", "order"), [("legendre", 4), ("radau", 3)])
def test_multipliers_tend_to_the_costates_at_the_scheme_s_order(scheme, order, problem):
    coarse, fine = (error(solved(problem, scheme, 2, e)) for e in (2, 4))
    assert order - 0.5 < np.log2(coarse / fine) < order + 0.9


@pytest.mark.parametrize("scheme", ["legendre", "radau"])
def test_fine_collocation_is_diffrax_at_tight_tolerance(scheme, problem):
    """And its twins, the sign flipped or the mean's 1/n left out, are far off."""
    solution = solved(problem, scheme, 6, 2)
    assert error(solution) <= 1e-9
    assert solution.stats["stationarity"] <= 1e-8
    assert error(solution, -1.0) > 1e-2
    assert error(solution, len(X)) > 1e-2


def test_what_a_flow_is_not_transcribed_by_is_refused(problem):
    with pytest.raises(ValueError, match="stages of discrete depth; found a Flow"):
        hj.solve(problem, Direct(), key=KEY)
    with pytest.raises(ValueError, match="`degree` must be >= 1, <= 9"):
        Direct("legendre", degree=0)
    bent = hj.ControlProblem(
        Flow.pieces((lambda x, th: th * x, jnp.zeros(2)), 1.0, 2, control="linear"),
        X,
        terminal=lambda x: jnp.sum(x**2),
    )
    with pytest.raises(ValueError, match="constant on a piece; found 'linear'"):
        hj.solve(bent, Direct("radau"), key=KEY)

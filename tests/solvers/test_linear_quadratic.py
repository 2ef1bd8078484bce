"""The linear-quadratic reference problem: every solver has one answer, and linear algebra knows it."""

import jax
import numpy as np
import optax
import pytest

import hjcontrol as hj
from hjcontrol.solvers import Direct, ExtendedMSA, Gradient, Newton, Riccati, Shooting
from tests.oracles import linear_quadratic as oracle

RIDGE, STATE = 0.3, 0.2
DATA = oracle.draw()

SOLVERS = {  # every method belongs here, with settings under which it goes on to roundoff
    "lbfgs": Gradient(optax.lbfgs(), tol=1e-11, label="lbfgs"),
    "newton": Newton(tol=1e-13),
    "gauss-newton": Newton(tol=1e-13, curvature="gauss_newton"),
    "direct": Direct(tol=1e-12),
    "riccati": Riccati(tol=1e-13),
    "ddp": Riccati(tol=1e-13, curvature="ddp"),
    "emsa": ExtendedMSA(tol=1e-11),  # plain MSA diverges here: see test_msa
    "shooting": Shooting(segments=5),
}


@pytest.fixture(scope="module")
def problem():
    return hj.control.linear_quadratic(*DATA, ridge=RIDGE, state=STATE)


@pytest.fixture(scope="module")
def answer():
    return oracle.solve(*DATA, RIDGE, STATE)


def stacked(trajectory):
    return np.stack([np.asarray(p) for p in trajectory])


@pytest.mark.parametrize("name", SOLVERS)
def test_every_solver_reaches_the_analytic_answer(name, problem, answer):
    b, p, cost = answer
    solution = hj.solve(problem, SOLVERS[name], key=jax.random.key(0))
    assert solution.result == hj.RESULTS.successful
    np.testing.assert_allclose(solution.weights[0], b, atol=1e-9)
    np.testing.assert_allclose(stacked(solution.costate), p, atol=1e-9)
    np.testing.assert_allclose(solution.objective, cost, atol=1e-12)
    if solution.multipliers is not None:
        np.testing.assert_allclose(stacked(solution.multipliers), p, atol=1e-9)


@pytest.mark.parametrize("curvature", ["gauss_newton", "ddp"])
def test_one_sweep_is_enough_for_riccati(curvature, problem, answer):
    found = hj.solve(problem, Riccati(curvature=curvature), key=jax.random.key(0), max_steps=1)
    np.testing.assert_allclose(found.weights[0], answer[0], atol=1e-12)


def test_another_problem_has_another_answer(answer):
    """The twin: without the states' cost the answer is another, by far more than the tolerance."""
    assert np.abs(oracle.solve(*DATA, RIDGE)[0] - answer[0]).max() > 1e-2


def test_shapes_that_do_not_fit_are_refused():
    A, B, x, y = DATA
    with pytest.raises(ValueError, match=r"`A` \(K, d, d\).*found \(5, 3, 3\), \(4, 3, 2\)"):
        hj.control.linear_quadratic(A, B[:4], x, y, ridge=1.0)
    with pytest.raises(ValueError, match="`targets` must be shaped like `inputs`"):
        hj.control.linear_quadratic(A, B, x, y[:3], ridge=1.0)
    with pytest.raises(ValueError, match="`B` must be an array of floats"):
        hj.networks.Driven(A[0], B[0].T)

"""Second order, the Hamiltonian's minimum, and what is printed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import hjcontrol as hj
from hjcontrol.control import Box, ControlProblem, Ridge, least_squares
from hjcontrol.networks import Dense, readout
from hjcontrol.verification import lanczos
from hjcontrol.verification.directional import differences


@pytest.mark.parametrize("m", [1, 5, 150])
def test_lanczos_finds_the_smallest_eigenvalue(m):
    draw = np.random.default_rng(0)
    Q, _ = np.linalg.qr(draw.normal(size=(m, m)))
    values = np.linspace(0.0, 5.0, m) ** 2
    values[0] = -3.0
    A = jnp.asarray(Q * values @ Q.T)
    found, bound = lanczos(lambda v: A @ v, jnp.zeros(m), jax.random.key(0))
    assert abs(found + 3.0) <= bound + 1e-12
    assert bound < 1e-6


def test_lanczos_survives_an_invariant_subspace():
    A = jnp.diag(jnp.asarray([2.0] * 5 + [1.0] * 5))
    found, bound = lanczos(lambda v: A @ v, jnp.zeros(10), jax.random.key(0))
    np.testing.assert_allclose(found, 1.0, rtol=1e-12)
    assert bound < 1e-12


@pytest.fixture(scope="module")
def problem():
    draw = np.random.default_rng(0)
    return ControlProblem(
        [Dense(3, 4), Dense(4, 4), readout(4, 1)],
        jnp.asarray(draw.normal(size=(8, 3))),
        jnp.asarray(draw.normal(size=(8, 1))),
        terminal=least_squares,
        running=Ridge(1e-2),
    )


def test_curvature_and_minimum_of_a_certificate(problem):
    weights = problem.init(jax.random.key(0))
    found = hj.verify(problem, weights, second_order=True, minimum=True)
    flat, unravel = ravel_pytree(weights)
    dense = jax.hessian(lambda t: problem.objective(unravel(t)))(flat)
    value, bound = found.curvature
    assert abs(value - np.linalg.eigvalsh(dense)[0]) <= bound + 1e-10
    assert found.minimum.shape == (3,)
    assert (found.minimum > 0).all()  # not a solution: every stage can do better
    assert len(str(found).splitlines()) <= 15


def test_the_readout_of_a_solution_minimises_its_hamiltonian(problem):
    """The readout's Hamiltonian is convex in its weights only through p . F + r: a quadratic with
    minimum where rho theta = -sum p x."""
    weights = problem.init(jax.random.key(0))
    _, _, costates, _ = hj.control.backpropagate(problem, weights)
    states = problem.rollout(weights)
    p, x = costates.final, states[2]
    best = weights[-1]._replace(W=-(p.T @ x)[None] / 1e-2, b=-jnp.sum(p, axis=0)[None] / 1e-2)
    value = lambda th: hj.control.hamiltonian(problem, 2, x, p, jax.tree.map(lambda a: a[0], th))
    gap = value(weights[-1]) - value(best)
    found = hj.verify(problem, weights, minimum=True).minimum[2]
    assert 0.9 * gap < found <= gap * (1 + 1e-12)


def test_stationarity_respects_the_control_set(problem):
    boxed = ControlProblem(
        problem.chain,
        problem.inputs,
        problem.targets,
        terminal=least_squares,
        control_set=Box(jnp.asarray(-1e-3), jnp.asarray(1e-3)),
    )
    weights = boxed.init(jax.random.key(0))
    found = hj.verify(boxed, weights)
    assert found.stationarity <= 2e-3
    assert found.feasibility == 0.0


@pytest.mark.parametrize("f", [jnp.tanh, jnp.exp, lambda x: jnp.sin(3 * x)])
def test_richardson_knows_its_error(f):
    x = jnp.linspace(-2, 2, 7)
    v = jnp.linspace(1, 2, 7)
    slope, error = differences(f, x, v)
    _, exact = jax.jvp(f, (x,), (v,))
    reached = jnp.sqrt(jnp.mean((slope - exact) ** 2))
    assert reached <= 10 * error
    assert error < 1e-8


def test_a_certificate_is_immutable(problem):
    found = hj.verify(problem, problem.init(jax.random.key(0)))
    with pytest.raises(AttributeError):
        found.tol = 1.0

"""Linear solves of which only the matrix is differentiated."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hjcontrol as hj

A = jnp.asarray([[2.0, 0.3], [0.1, 1.5]])
OF_JAX = {
    "inverse": jnp.linalg.inv,
    "solve": lambda A: jnp.linalg.solve(A, jnp.ones(2)),
    "power": lambda A: jnp.linalg.matrix_power(A, -1),
}


@pytest.mark.parametrize("name", OF_JAX)
def test_jax_s_own_is_no_fault(name):
    found = hj.verify(lambda A: jnp.sum(OF_JAX[name](A)), A)
    assert found, str(found)
    inverse = np.linalg.inv(np.asarray(A))
    if name != "solve":  # d sum(A^-1) = -A^-T 1 1^T A^-T
        expected = -inverse.T @ np.ones((2, 2)) @ inverse.T
        np.testing.assert_allclose(jax.tree.leaves(found.gradient)[0], expected, rtol=1e-12)


@pytest.mark.parametrize("shared", [True, False])
def test_a_wrong_adjoint_of_the_user_s_solve_of_a_matrix(shared):
    """Where the solve knows its matrix by another name there is no argument to try."""

    def fn(A):
        diagonal = jnp.diag(A)
        known = diagonal if shared else jnp.asarray([2.0, 1.5])
        product, solve = lambda x: diagonal * x, lambda product, b: b / known
        wrong = lambda product, b: b / 3.0
        return jnp.sum(jax.lax.custom_linear_solve(product, jnp.ones(2), solve, wrong))

    found = hj.verify(fn, A)
    assert found.verdict == ("refuted" if shared else "untested"), str(found)


@pytest.mark.parametrize("factor", [1.0, 1.1])
def test_a_fixed_point_that_raises_where_it_fails(factor):
    """By default optimistix guards what must not be differentiated."""
    optimistix = pytest.importorskip("optimistix")
    method = optimistix.FixedPointIteration(1e-10, 1e-10)

    @jax.custom_jvp
    def cosine(x):
        return jnp.cos(x)

    cosine.defjvp(lambda x, v: (jnp.cos(x[0]), -factor * v[0] * jnp.sin(x[0])))

    def fn(a):
        solved = optimistix.fixed_point(lambda y, a: cosine(a * y), method, jnp.ones(2), a)
        return jnp.sum(solved.value)

    found = hj.verify(fn, 0.7)
    assert bool(found) == (factor == 1), str(found)
    assert (found.verdict == "refuted") == (factor != 1)


def test_a_program_that_raises_nearby_is_still_told():
    """Conjugate gradients of a symmetric matrix; a matrix nearby is not symmetric."""
    lineax = pytest.importorskip("lineax")
    A = jnp.asarray([[2.0, 0.3, 0.1], [0.3, 1.5, 0.2], [0.1, 0.2, 1.0]])
    solver = lineax.CG(1e-10, 1e-10)

    def fn(A):
        operator = lineax.MatrixLinearOperator(A, lineax.positive_semidefinite_tag)
        return jnp.sum(lineax.linear_solve(operator, jnp.arange(1.0, 4), solver).value)

    found = hj.verify(fn, A)
    assert found.verdict == "no custom rule", str(found)
    np.testing.assert_allclose(jax.tree.leaves(found.gradient)[0], jax.grad(fn)(A), rtol=1e-12)

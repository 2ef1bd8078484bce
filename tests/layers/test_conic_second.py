"""Second derivatives of cone programs: differences of the first, or one line that refuses."""

import cvxpy as cp
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hjcontrol.layers import ProgramLayer
from hjcontrol.layers.conic.cones import spectrum
from tests.agreement import assert_agree


def test_second_derivatives_through_every_curved_cone():
    """A ball, its apex (the norm of what is 0), exponentials and a matrix, each bent or flat."""
    p, X = cp.Variable(4, name="p"), cp.Variable((2, 2), symmetric=True, name="X")
    z = cp.Parameter(4, name="z")
    cost = cp.sum_squares(p - z) + cp.exp(p[0]) + cp.norm(p[2:])
    cost = cost + cp.sum_squares(X - cp.bmat([[z[0], z[1]], [z[1], -1]]))
    layer = ProgramLayer(cp.Problem(cp.Minimize(cost), [cp.norm(p[:2]) <= 1, X >> 0]))
    z0 = jnp.array([0.8, -1.3, 0.1, 0.2])
    d, e, h = jnp.array([0.3, -1.0, 0.5, 0.2]), jnp.array([1.0, 0.4, -0.2, 0.7]), 1e-4

    def loss(z):
        found = layer.solve(z).variables
        return jnp.sum(jnp.cos(jnp.arange(4.0)) * found["p"]) + jnp.sum(found["X"] ** 2)

    slope = eqx.filter_jit(jax.grad(loss))
    twice = eqx.filter_jit(lambda z: jax.jvp(jax.grad(loss), (z,), (d,))[1])(z0)
    assert_agree(twice, (slope(z0 + h * d) - slope(z0 - h * d)) / (2 * h), 1e-7)
    assert np.max(np.abs(twice)) > 0.1
    again = eqx.filter_jit(jax.grad(lambda z: jax.grad(loss)(z) @ e))(z0)
    assert_agree(again @ d, twice @ e, 1e-12)


def test_equal_eigenvalues_have_a_first_derivative_and_no_second():
    push = jnp.asarray(np.random.default_rng(0).standard_normal((1, 2, 2)))
    push = push + jnp.swapaxes(push, 1, 2)
    turned = eqx.filter_jit(lambda M: jax.jvp(spectrum, (M,), (push,))[1])
    values, vectors = turned(jnp.diag(jnp.array([1.0, 2.0]))[None])
    assert_agree(values[0], jnp.diagonal(push[0]), 1e-14)
    assert_agree(abs(vectors[0, 0, 1]), abs(push[0, 0, 1]), 1e-14)
    with pytest.raises(RuntimeError, match="two eigenvalues of `s` or of `z` are equal"):
        turned(jnp.eye(2)[None])

"""One layer, four faces: each computes f its own way, conversions close, the square commutes."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hjcontrol as hj
from hjcontrol.hamilton_jacobi import pde_residual
from hjcontrol.layers import LSE
from hjcontrol.layers.squares import commuting_square

ATOMS, D, T = 6, 3, 0.7


@pytest.fixture
def layer(key):
    W, b = (
        jax.random.normal(key, (ATOMS, D)),
        jax.random.normal(jax.random.fold_in(key, 1), (ATOMS,)),
    )
    return lambda eps: LSE(W, b, eps)


@pytest.fixture
def points(key):
    return jax.random.normal(jax.random.fold_in(key, 2), (5, D))


@eqx.filter_jit
def values(layer, t, points, engine):
    """By every face, at every point."""
    return jax.vmap(lambda x: hj.faces(layer, t).values(x, engine))(points)


@pytest.mark.parametrize("eps", [1.0, 0.2, 0.05, 0.0])
def test_four_faces_give_one_value(layer, points, eps):
    found = values(layer(eps), T, points, "newton" if eps else "closed")
    scale = 1 + jnp.sum(points**2, axis=1) / (4 * T)
    np.testing.assert_array_less(jnp.abs(found.equation - found.network) / scale, 1e-14)
    np.testing.assert_array_less(jnp.abs(found.program - found.network), 1e-13)
    excess = found.network - found.max_plus
    assert jnp.all(excess >= 0)
    assert jnp.all(excess <= eps * np.log(ATOMS) + 1e-15)


def test_the_program_by_cvxpy(layer, points):
    found = hj.faces(layer(0.3), T).values(points[0], "cvxpy")
    assert abs(float(found.program - found.network)) < 1e-6


def test_a_wrong_gauge_is_seen(layer, points):
    """The twin: data read at another time are another layer."""
    faces = hj.faces(layer(0.3), T)
    wrong = hj.faces(faces.data(), 1.1 * T, 0.3)
    gap = lambda x: jnp.abs(wrong.network(x) - faces.network(x))
    error = jax.jit(jax.vmap(gap))(points)
    assert float(jnp.max(error)) > 1e-2


def test_conversions_close(layer):
    faces = hj.faces(layer(0.3), T)
    for other in (
        hj.faces((faces.network.W, faces.network.b), T, 0.3),
        hj.faces(faces.data(), T, 0.3),
        hj.faces(faces.max_affine, T, 0.3),
        hj.faces(faces.max_plus, T, 0.3),
        hj.faces(faces.legendre(jnp.zeros(D)), T),
    ):
        np.testing.assert_allclose(other.network.W, faces.network.W, rtol=1e-14, atol=1e-15)
        np.testing.assert_allclose(other.network.b, faces.network.b, rtol=1e-13, atol=1e-14)
        assert float(other.eps) == 0.3


def test_the_heat_face_solves_the_equation_and_the_raw_one_misses_it(layer, points):
    eps = 0.3
    faces = hj.faces(layer(eps), T)
    at = lambda x, n: pde_residual(lambda x, t: faces.solution(x, t, n), x, T, eps)
    heat, raw = jax.jit(lambda x: (at(x, "heat"), at(x, "raw")))(points[0])
    assert float(heat.relative) < 1e-13
    np.testing.assert_allclose(raw.residual, -D * eps / (2 * T), rtol=1e-12)


def test_the_gibbs_weights_are_certified_and_others_are_not(layer, points):
    faces = hj.faces(layer(0.3), T)
    assert faces.certify(points[0]).verdict == "optimal"
    uniform = jnp.full(ATOMS, 1 / ATOMS)
    assert hj.certify(faces.program(points[0]), uniform).verdict == "suboptimal"


def test_the_square_of_limits_commutes_with_normalised_sums():
    t, radius = 1.0, 2.0
    limit = lambda x: jnp.maximum(jnp.abs(x[0]) - 2, 0.0) ** 2 / 4  # g = |y|, |x| <= 4
    found = commuting_square(
        lambda y: jnp.abs(y[0]),
        jnp.linspace(-3.0, 3.0, 61)[:, None],
        t,
        eps=[0.5, 0.1, 0.02, 0.004],
        nodes=[8, 64, 512],
        radius=radius,
        lipschitz=1.0,
        limit=limit,
    )
    assert found.holds
    assert "within its bound" in str(found)
    path = jnp.diagonal(found.normalised)
    assert jnp.all(path[1:] < 0.5 * path[:-1])  # along a joint path
    assert float(found.normalised[-1, -1]) < 0.03
    # The raw sum at fixed eps runs away with log N.
    slope = (found.raw[0, -1] - found.raw[0, 0]) / np.log(512 / 8)
    np.testing.assert_allclose(slope, 0.5, rtol=0.1)


@pytest.mark.parametrize("eps", [1.0, 0.5, 0.2, 0.1])
def test_raw_sums_have_no_joint_limit(eps):
    """The counterexample: all scores 0, N = e^{1/eps}. The raw sum stays 1, the max-plus value is 0."""
    N = int(np.exp(1 / eps))
    layer = LSE(jnp.zeros((N, 1)), jnp.zeros(N), eps)
    found = jax.tree.map(lambda a: a[0], values(layer, 1.0, jnp.ones((1, 1)), "closed"))
    assert abs(float(found.network) - 1.0) < eps / N * 2
    assert float(found.max_plus) == 0.0


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (((jnp.ones((2, 1)), jnp.ones(2)), 1.0), "no temperature"),
        (((jnp.ones((2, 1)), jnp.ones(2)), 0.0, 1.0), "t. must be > 0"),
        (((jnp.ones((2, 1)), jnp.ones(2)), 1.0, -1.0), ">= 0"),
        (((jnp.ones((2, 1)), jnp.ones(3)), 1.0, 1.0), r"where atoms = 2"),
        (((jnp.full((2, 1), jnp.nan), jnp.ones(2)), 1.0, 1.0), "finite"),
        (("layer", 1.0, 1.0), "found str"),
    ],
)
def test_bad_input_is_named(arguments, words):
    with pytest.raises(ValueError, match=words):
        hj.faces(*arguments)

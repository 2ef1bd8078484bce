"""Layers that differ by a set: against cvxpy, SciPy, closed forms and differences."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import isotonic_regression

from hjcontrol.layers import (
    FURTHER,
    AffineSet,
    BinaryEntropy,
    Clip,
    HalfSpace,
    Sparsemax,
    Transport,
    Tsallis,
    argmax,
    birkhoff,
    build,
    isotonic,
    registry,
)


def _look(layer, z, dz):
    p = eqx.filter_jit(layer)(z)
    off = layer(z + 1e-3 * dz)
    along = jax.jvp(layer, (z,), (dz,))[1]
    apart = (layer(z + 1e-6 * dz) - layer(z - 1e-6 * dz)) / 2e-6
    return {
        "p": p,
        "envelope": (jax.grad(layer.value)(z), p),
        "gap": layer.gap(z, p),
        "slope": (along, apart),
        "own": layer.certify(z),
        "other": layer.certify(z, off),
    }


@pytest.mark.parametrize(
    "name", ["l1-ball", "half-space", "affine-set", "transport", "birkhoff", "quadratic-transport"]
)
def test_answer_value_derivative_and_certificate(name):
    if name == "quadratic-transport":
        half, third = jnp.full(2, 0.5), jnp.full(3, 1 / 3)
        layer, shape = Transport(6.0, half, third, Tsallis(2.0)), (2, 3)
    else:
        layer, shape = build(name), FURTHER[name].shape
    z, dz = (jnp.asarray(np.random.default_rng(k).standard_normal(shape)) for k in (3, 4))
    # In one program the solver of a cone program would stand ten times; call by call it is compiled once.
    look = _look if name == "quadratic-transport" else eqx.filter_jit(_look)
    found = look(layer, z, dz)
    np.testing.assert_allclose(*found["envelope"], atol=1e-13)
    np.testing.assert_allclose(*found["slope"], atol=1e-8)
    assert abs(float(found["gap"])) < 1e-14 * 100
    assert found["own"].verdict == "optimal"
    assert found["other"].verdict == "suboptimal"
    np.testing.assert_allclose(argmax(layer, z, "cvxpy"), found["p"], atol=3e-5)


def test_every_further_layer_is_listed_and_built():
    names = [row[0] for row in registry.table()]
    assert set(FURTHER) <= set(names)
    assert len(names) == len(set(names))
    for name, entry in FURTHER.items():
        assert jax.eval_shape(build(name), jnp.zeros(entry.shape)).shape == entry.shape


def test_nearly_integral_transport_keeps_its_small_entries():
    gains = -jnp.array([[0.0, 1.0], [1.0, 0.0]])

    def small(eps, gains):
        return Transport(eps, jnp.full(2, 0.5), jnp.full(2, 0.5))(gains)

    found = jax.jit(lambda eps, g: (small(eps, g), jax.grad(lambda g: small(eps, g)[0, 0])(g)))
    plan, slope = found(0.1, gains)
    np.testing.assert_allclose(plan[0], [0.4999773010656488, 2.26989343512172e-5], rtol=1e-10)
    np.testing.assert_allclose(slope[0, 0], 1.134895193398792e-4, rtol=1e-10)  # of gains: -cost
    for eps in (0.03, 0.003):  # T12 = 1.7e-15 and 7e-146
        plan, _ = found(eps, gains)
        want = 0.5 * np.exp(-1 / eps) / (1 + np.exp(-1 / eps))
        np.testing.assert_allclose(plan[0, 1], want, rtol=1e-12)
    assert np.isfinite(found(1e-3, gains)[1]).all()  # an integral plan, in floats


def test_marginals_have_derivatives():
    gains = jnp.asarray(np.random.default_rng(1).standard_normal((3, 4)))
    rows, columns = jnp.array([0.2, 0.5, 0.3]), jnp.array([0.1, 0.2, 0.3, 0.4])
    plan = jax.jit(lambda h: Transport(0.3, rows + h * jnp.array([0.1, -0.2, 0.1]), columns)(gains))
    slope = jax.jvp(plan, (0.0,), (1.0,))[1]
    np.testing.assert_allclose(slope, (plan(1e-5) - plan(-1e-5)) / 2e-5, atol=1e-9)


def test_repeated_equations_are_one():
    layer = AffineSet(1.0, jnp.array([[1.0, 1.0, 1.0], [2.0, 2.0, 2.0]]), jnp.array([1.0, 2.0]))
    z = jnp.array([1.0, 2.0, 3.0])
    np.testing.assert_allclose(layer(z), [-2 / 3, 1 / 3, 4 / 3], atol=1e-14)
    np.testing.assert_allclose(jax.jacobian(layer)(z), np.eye(3) - 1 / 3, atol=1e-14)


def test_bounds_of_each_coordinates_own():
    z, lo, hi = np.array([2.0, 0.1, -3.0]), np.array([-1.0, -2.0, -0.5]), np.array([0.5, 2.0, 1.0])
    layer = Clip(0.5, lo, hi)
    np.testing.assert_array_equal(layer(z), np.clip(z / 0.5, lo, hi))
    slope = jax.jacobian(lambda hi: Clip(0.5, lo, hi)(z))(jnp.asarray(hi))
    np.testing.assert_array_equal(slope, np.diag([1.0, 0.0, 0.0]))
    worth = jax.grad(lambda hi: Clip(0.5, lo, hi).value(z))(jnp.asarray(hi))
    np.testing.assert_allclose(worth, [2.0 - 0.5 * 0.5, 0.0, 0.0])
    assert layer.certify(z).verdict == "optimal"


def test_a_simplex_of_another_radius():
    z, r = np.random.default_rng(0).standard_normal(6), 2.5
    found = Sparsemax(0.7, radius=jnp.asarray(r))(z)
    np.testing.assert_allclose(found, r * Sparsemax(0.7 * r)(z), atol=1e-15)


@pytest.mark.parametrize("n", [1, 12])
def test_weighted_isotonic_regression(n):
    draw = np.random.default_rng(n)
    y, w, dy, dw = (f(n) for f in (draw.standard_normal, draw.random, draw.random, draw.random))
    w = w + 0.1
    fit = jax.jit(lambda h: isotonic(y + h * dy, w + 0.1 * h * dw))
    want = isotonic_regression(y, weights=w, increasing=False).x
    np.testing.assert_allclose(fit(0.0), want, atol=1e-14)
    slope = jax.jvp(fit, (0.0,), (1.0,))[1]
    np.testing.assert_allclose(slope, (fit(1e-6) - fit(-1e-6)) / 2e-6, atol=1e-8)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: HalfSpace(1.0, np.zeros(2), 1.0), "`a` must not be 0"),
        (lambda: HalfSpace(0.0, np.ones(2), 1.0), "`eps` must be > 0"),
        (lambda: AffineSet(1.0, np.zeros((1, 2)), np.ones(1)), "a row of `A` is 0"),
        (lambda: AffineSet(1.0, np.ones((2, 2)), np.array([1.0, 2.0])), "no point meets all"),
        (lambda: Transport(0.5, np.ones(2), np.ones(3)), "must have one sum; found 2 and 3"),
        (lambda: Transport(0.0, np.ones(2), np.ones(2)), "`eps` must be > 0"),
        (lambda: Transport(0.5, np.ones(2), np.ones(2), BinaryEntropy()), "`phi` must be Shannon"),
        (lambda: birkhoff(2, 0.5)(np.ones((2, 3))), "gains must have shape"),
        (lambda: birkhoff(0, 0.5), "an integer >= 1"),
        (lambda: Sparsemax(1.0, radius=-1.0), "`radius` must be > 0"),
        (lambda: isotonic(np.ones(3), np.ones(2)), "`weights` must be an array of floats of shape"),
        (lambda: isotonic(np.ones(3), np.zeros(3)), "must be > 0"),
        (lambda: Clip(1.0, np.ones(2), np.zeros(2)), "lo < hi"),
        (lambda: build("nothing"), "layers are softmax"),
    ],
)
def test_bad_input_is_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()

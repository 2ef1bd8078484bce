"""Cross-entropy without cancellation, against 60 digits.

loss_y(z) = log sum_j exp(z_j - z_y)      d loss/dz_y = -sum_{j != y} p_j, never p_y - 1
"""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

from hjcontrol.control import softmax_cross_entropy

loss = jax.jit(softmax_cross_entropy)
slope = jax.jit(jax.grad(softmax_cross_entropy))
curved = jax.jit(
    lambda z, y, v: jax.jvp(lambda z: jax.grad(softmax_cross_entropy)(z, y), (z,), (v,))[1]
)


def reference(z, y, v):
    """Loss, gradient and Hessian times `v`."""
    with mpmath.workdps(60):
        e = [mpmath.exp(mpmath.mpf(float(a)) - mpmath.mpf(float(z[y]))) for a in z]
        total = mpmath.fsum(e)
        p = [a / total for a in e]
        others = mpmath.fsum(p[:y] + p[y + 1 :])
        gradient = [-others if j == y else a for j, a in enumerate(p)]
        mean = mpmath.fdot(p, [mpmath.mpf(float(a)) for a in v])
        product = [a * (mpmath.mpf(float(b)) - mean) for a, b in zip(p, v, strict=True)]
        return [mpmath.log(total)], gradient, product


def relative(got, want):
    with mpmath.workdps(60):
        apart = mpmath.norm([mpmath.mpf(float(a)) - b for a, b in zip(got, want, strict=True)])
        return float(apart / mpmath.norm(want))


def worst(dtype, functions, count=150):
    generator = np.random.default_rng(0)
    found = np.zeros(3)
    for _ in range(count):
        z = (generator.normal(size=4) * generator.choice([0.1, 1.0, 10.0, 40.0])).astype(dtype)
        y, v = int(generator.integers(4)), generator.normal(size=4).astype(dtype)
        got = [np.ravel(f) for f in (functions[0](z, y), functions[1](z, y), functions[2](z, y, v))]
        for k, (a, b) in enumerate(zip(got, reference(z, y, v), strict=True)):
            if mpmath.norm(b) > 1e-30:  # smaller numbers leave float32's range
                found[k] = max(found[k], relative(a, b))
    return found


@pytest.mark.parametrize(("dtype", "limit"), [("float64", 1e-14), ("float32", 1e-5)])
def test_value_gradient_and_curvature_to_the_dtypes_accuracy(dtype, limit):
    assert (worst(dtype, (loss, slope, curved)) < limit).all()


def test_the_textbook_loss_and_its_gradient_do_not_pass():
    textbook = lambda z, y: jax.scipy.special.logsumexp(z) - z[y]
    twins = jax.jit(textbook), jax.jit(jax.grad(textbook)), curved
    assert (worst("float64", twins, 60)[:2] > 0.1).all()


def test_stated_values():
    value = lambda z, y, dtype=float: float(loss(np.array(z, dtype), y))
    assert value((18, 0), 0, np.float32) == pytest.approx(1.522997962873649e-8, 1e-6)
    assert value((23, 5, 2), 0, np.float32) == pytest.approx(1.5988234e-8, 1e-6)
    assert value((0, -700), 0) == pytest.approx(9.85967654375977e-305, 1e-13)
    tiny = 4.248354255291589e-18
    np.testing.assert_allclose(
        slope(np.array([40.0, 0.0, 0.0]), 0), [-2 * tiny, tiny, tiny], rtol=1e-14
    )
    hessian = jax.jit(jax.hessian(softmax_cross_entropy))(jnp.array([0.0, -40.0]), jnp.asarray(0))
    np.testing.assert_allclose(hessian, tiny * np.array([[1, -1], [-1, 1]]), rtol=1e-14)


@pytest.mark.any_precision
def test_masked_and_equal_logits():
    masked = np.array([0.0, -np.inf, 1.0])
    assert np.isfinite(slope(masked, 0)).all()
    assert slope(masked, 0)[1] == 0
    assert loss(masked, 1) == np.inf
    np.testing.assert_allclose(slope(masked, 1)[1], -1.0, rtol=1e-6)
    np.testing.assert_allclose(slope(np.zeros(3), 1), [1 / 3, -2 / 3, 1 / 3], rtol=1e-6)
    assert np.isnan(loss(np.array([np.nan, 0.0]), 1))
    assert loss(np.array([np.inf, 0.0]), 1) == np.inf

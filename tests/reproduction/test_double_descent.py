"""The width sweep finds a peak where there is one, and reports none where there is none."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hjcontrol.reproduction.questions import double_descent as dd

DRAW = np.random.default_rng(3)
X, P = DRAW.uniform(-1, 1, (30, 2)), DRAW.uniform(-1, 1, (100, 2))
truth = lambda Z: np.sin(3 * Z[:, 0]) * Z[:, 1]
Y = truth(X) + 0.3 * DRAW.normal(size=30)
WIDTHS = [3, 6, 10, 18, 26, 30, 34, 45, 80, 200]


def sweep(**options):
    fit = dd.minimum_norm(0.1, **options)
    return dd.width_sweep((X, Y), (P, truth(P)), WIDTHS, fit, key=jax.random.key(1), repeats=7)


def test_the_peak_is_at_the_threshold_and_curvature_peaks_with_it():
    found = sweep()
    assert 26 <= found.peak[0] <= 34
    assert found.peak[1] > 3
    assert found.threshold == 30
    assert 26 <= found.curvature_peak[0] <= 34
    assert found.together > 0.7
    assert found.finding.startswith("double descent")


def test_with_ridge_there_is_no_peak():
    """The twin: the same units and data, the minimum norm given up."""
    found = sweep(ridge=1e-2)
    assert found.peak[1] < 1.2
    assert found.finding.startswith("no double descent")
    assert found.threshold == -1
    assert (
        np.median(found.curvature, axis=1).max() < 0.1 * np.median(sweep().curvature, axis=1).max()
    )


def test_curvature_is_the_hessians_norm():
    fit = dd.minimum_norm(0.3)(X, Y, 8, jax.random.key(0))
    draw = np.random.default_rng(0)
    W, b, a = draw.normal(size=(8, 2)), draw.normal(size=8), draw.normal(size=8)
    model = dd.of_function(
        lambda x: jnp.asarray(a) @ jax.nn.softplus(jnp.asarray(W) @ x + jnp.asarray(b))
    )
    s = 1 / (1 + np.exp(-(P @ W.T + b[None])))
    H = np.einsum("nj,ja,jb->nab", a[None] * s * (1 - s), W, W)
    np.testing.assert_allclose(model.curvature(P), np.linalg.norm(H, 2, axis=(1, 2)), rtol=1e-10)
    h = 1e-4
    at = lambda dx, dy: fit.predict(P + np.array([[dx, dy]]))
    xx = (at(h, 0) - 2 * at(0, 0) + at(-h, 0)) / h**2
    yy = (at(0, h) - 2 * at(0, 0) + at(0, -h)) / h**2
    xy = (at(h, h) - at(h, -h) - at(-h, h) + at(-h, -h)) / (4 * h**2)
    exact = np.linalg.norm(np.stack([xx, xy, xy, yy], axis=1).reshape(-1, 2, 2), 2, axis=(1, 2))
    np.testing.assert_allclose(fit.curvature(P), exact, rtol=1e-4, atol=1e-5)


def swept(values, widths):
    fit = dd.minimum_norm(1.0)
    return dd.width_sweep((X, values), (P, P[:, 0]), widths, fit, key=jax.random.key(0))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: dd.minimum_norm(0.0), "eps > 0"),
        (lambda: swept(Y[:3], [1, 2]), "points"),
        (lambda: swept(Y, [2, 1]), "increasing"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()

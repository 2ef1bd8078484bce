r"""Laws of Hopf-Cole.

heat-normalised: residual 0 to roundoff       raw: residual -d eps/(2t) exactly       eps -> 0: Hopf-Lax
u_0 - eps log N <= u_raw <= u_0               normalised sums commute with N -> infinity, raw ones do not
"""

import functools

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

from hjcontrol.deformation import lse
from hjcontrol.hamilton_jacobi import (
    Anisotropic,
    InitialData,
    density,
    hopf_cole,
    hopf_cole_batch,
    hopf_cole_smooth,
    hopf_lax,
    pde_residual,
)
from tests.agreement import assert_agree

pytestmark = pytest.mark.slow

TEMPERATURES = [1e-3, 1e-2, 0.1, 1.0, 10.0]


def cloud(d, n, seed=0):
    one, two, three = jax.random.split(jax.random.key(seed), 3)
    data = InitialData(jax.random.normal(one, (n, d)), jax.random.normal(two, (n,)))
    return data, jax.random.normal(three, (4, d))


@functools.partial(jax.jit, static_argnames="normalisation")
def residuals(data, X, t, eps, normalisation):
    u = lambda x, s: hopf_cole(data, x, s, eps, normalisation=normalisation)
    return jax.vmap(lambda x: pde_residual(u, x, t, eps))(X)


# ------------------------------------------------------------------------------------ the equation


@pytest.mark.parametrize("d", [1, 3, 16, 64])
def test_the_equation_is_solved_to_roundoff_and_missed_by_the_raw_sum(d):
    """`relative` is |r| over the sum of the absolute terms. Fewer than 512 atoms: the rest masked."""
    data, X = cloud(d, 512)
    for n in (2, 64, 512):
        few = InitialData(data.atoms, jnp.where(jnp.arange(512) < n, data.values, jnp.inf))
        for eps in TEMPERATURES:
            for t in (0.1, 1.0):
                assert float(residuals(few, X, t, eps, "heat").relative.max()) <= 1e-13
                raw = residuals(few, X, t, eps, "raw")
                size = jnp.abs(raw.residual) / jnp.maximum(raw.relative, 1e-300)
                off = jnp.abs(raw.residual + d * eps / (2 * t))
                assert float(jnp.max(off / size)) <= 1e-13
                assert float(raw.relative.min()) > 1e-5  # so the raw sum fails


@pytest.mark.parametrize("n", [2, 64])
def test_masked_atoms_are_as_if_absent(n):
    data, X = cloud(3, 512)
    few = InitialData(data.atoms, jnp.where(jnp.arange(512) < n, data.values, jnp.inf))
    none = InitialData(data.atoms[:n], data.values[:n])
    at = jax.jit(jax.vmap(lambda D, x: hopf_cole(D, x, 0.7, 0.1), (None, 0)))
    assert_agree(at(few, X), at(none, X), 1e-14)


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("d", "eps", "t", "published"), [(1, 0.3, 1.0, -0.15), (3, 0.4, 0.7, -0.8571428571428571)]
)
def test_published_residuals(d, eps, t, published):
    """Section 2: constant in x. Adding d eps/(2t) gives roundoff."""
    data, X = cloud(d, 512)
    found = residuals(data, X, t, eps, "raw").residual
    assert_agree(found, jnp.full(4, published), 1e-12)
    assert_agree(found + d * eps / (2 * t), jnp.zeros(4), 1e-12)


def test_the_anisotropic_equation_is_solved_and_its_twin_is_not():
    A = jnp.array([[2.0, 0.5, 0.0], [0.5, 1.0, 0.2], [0.0, 0.2, 0.7]])
    data, X = cloud(3, 8)

    @jax.jit
    def relative(B, x):
        u = lambda a, s: hopf_cole(data, a, s, 0.3, H=Anisotropic(A))
        return pde_residual(u, x, 0.7, 0.3, H=Anisotropic(B), A=B).relative

    for x in X:
        assert float(relative(A, x)) <= 1e-14
        assert float(relative(A + 0.1 * jnp.eye(3), x)) > 1e-3


@pytest.mark.parametrize(
    "fault", ["half the square", "viscosity doubled", "gauge of d + 1", "wrong sign of u"]
)
def test_twins_a_wrong_solution_is_caught(fault):
    data, X = cloud(3, 64)
    eps, t = 0.3, 0.7

    def wrong(x, s):
        if fault == "half the square":
            return hopf_cole(data, x, 2 * s, eps)
        if fault == "viscosity doubled":
            return hopf_cole(data, x, s, 2 * eps)
        u = hopf_cole(data, x, s, eps)
        return -u if fault == "wrong sign of u" else u + eps / 2 * jnp.log(4 * jnp.pi * eps * s)

    found = jax.jit(lambda x: pde_residual(wrong, x, t, eps).relative)(X[0])
    assert float(found) > 1e-2


def test_agrees_with_forty_digits():
    data, X = cloud(3, 8)
    mpmath.mp.dps = 40
    for eps, t in ((1e-3, 0.2), (0.3, 1.0), (10.0, 5.0)):
        for x in np.asarray(X[:2]):
            total = mpmath.mpf(0)
            for y, g in zip(np.asarray(data.atoms), np.asarray(data.values), strict=True):
                square = sum(
                    (mpmath.mpf(a) - mpmath.mpf(b)) ** 2 for a, b in zip(x, y, strict=True)
                )
                total += mpmath.exp(-(mpmath.mpf(g) + square / (4 * t)) / eps)
            want = -eps * mpmath.log(total) + 1.5 * eps * mpmath.log(4 * mpmath.pi * eps * t)
            assert_agree(hopf_cole(data, jnp.asarray(x), t, eps), np.float64(want), 1e-14)


# ------------------------------------------------------------------------------------ limits


def test_sandwich_and_rate_in_eps():
    data, X = cloud(3, 64)
    at = jax.jit(jax.vmap(lambda x, e: hopf_cole(data, x, 0.7, e, normalisation="raw"), (0, None)))
    cold = at(X, 0.0)
    assert_agree(cold, jax.vmap(lambda x: hopf_lax(data, x, 0.7))(X), 1e-15)
    for eps in TEMPERATURES:
        gap = cold - at(X, eps)
        assert bool(jnp.all((gap >= 0) & (gap <= eps * np.log(64) * (1 + 1e-15))))
    # at a k-way tie the error is eps log k: order one in eps, with that constant
    tie = InitialData(jnp.array([[1.0], [-1.0], [5.0]]), jnp.array([0.0, 0.0, 0.0]))
    gaps = [-hopf_cole(tie, jnp.zeros(1), 1.0, e, normalisation="raw") + 0.25 for e in (1e-2, 1e-3)]
    assert_agree(gaps, [jnp.asarray(e * np.log(2)) for e in (1e-2, 1e-3)], 1e-14)


def test_published_softplus_against_relu():
    """Section 3: the published grid skips 0; with 0 the supremum is eps log 2."""
    at = jax.jit(lambda x, e: jnp.max(lse(jnp.stack([x, 0 * x], -1), e) - jnp.maximum(x, 0.0)))
    grid = jnp.linspace(-3.0, 3.0, 1000)
    for eps, published in ((1.0, 0.69165), (0.5, 0.34507), (0.1, 0.067824), (0.01, 5.542e-3)):
        assert float(at(grid, eps)) == pytest.approx(published, abs=1e-5)
        with_zero = grid.at[0].set(0.0)
        assert_agree(at(with_zero, eps), jnp.asarray(eps * np.log(2)), 1e-12)


def test_published_two_layers():
    """Section 5: two softplus layers against two ReLU layers."""
    x = jnp.linspace(-2.0, 2.0, 500)
    W, b, v = np.array([1.5, -1.0, 0.8]), np.array([0.3, 0.5, -0.4]), np.array([0.5, 0.5, 0.5])

    @jax.jit
    def net(eps):
        soft = lambda z: lse(jnp.stack([z, 0 * z], -1), eps)
        hidden = soft(x[:, None] * W[None, :] + b[None, :])
        return hidden @ v

    published = {0.5: 0.37492, 0.2: 0.13870, 0.1: 0.068866, 0.05: 0.034209, 0.01: 0.0064909}
    published[0.001] = 0.00034166
    for eps, rise in published.items():
        assert float(jnp.max(net(eps) - net(0.0))) == pytest.approx(rise, abs=1e-5)


def test_published_failure_and_its_correction():
    """Section 4: min over [0, 5] of |x - y|^2/4 is a squared distance, not ReLU; two atoms are."""
    y = jnp.linspace(0.0, 5.0, 1000)[:, None]
    X = jnp.linspace(-2.0, 2.0, 500)[:, None]
    relu = jnp.maximum(X[:, 0], 0.0)
    coded = hopf_cole_batch(InitialData(y, jnp.zeros(1000)), X, 1.0, 0.0)
    assert float(jnp.max(jnp.abs(coded - relu))) == pytest.approx(2.0, abs=1e-4)
    for t in (0.3, 1.0):
        two = InitialData(jnp.array([[0.0], [2 * t]]), jnp.array([0.0, -t]))
        u = hopf_cole_batch(two, X, t, 0.0)
        assert_agree(X[:, 0] ** 2 / (4 * t) - u, relu, 1e-14)


def test_normalised_sums_commute_with_the_number_of_atoms_and_raw_ones_do_not():
    """Section 6: |f_mean - sup| <= eps log N + (L + (R_x + R_Y)/(2t)) h on a grid of (eps, N)."""
    X = jnp.linspace(-1.0, 1.0, 21)[:, None]
    g = lambda y: jnp.abs(y)
    fine = jnp.linspace(-2.0, 2.0, 4001)[:, None]
    limit = hopf_cole_batch(InitialData(fine, g(fine[:, 0])), X, 1.0, 0.0)
    for n in (11, 101):
        y = jnp.linspace(-2.0, 2.0, n)[:, None]
        data, h = InitialData(y, g(y[:, 0])), 2 / (n - 1)
        for eps in (0.0, 1e-4, 1e-3, 1e-2, 1e-1):
            mean = hopf_cole_batch(data, X, 1.0, eps, normalisation="mean")
            bound = eps * np.log(n) + (1 + 1.5) * h + 1e-3
            assert float(jnp.max(jnp.abs(mean - limit))) <= bound
    # the counterexample: every score 0 and N = e^{1/eps} gives f = 1 at every eps
    for n in (10, 1000):
        eps = 1 / np.log(n)
        flat, x = InitialData(jnp.zeros((n, 1)), jnp.zeros(n)), jnp.zeros(1)
        assert_agree(hopf_cole(flat, x, 1.0, eps, normalisation="raw"), -jnp.ones(()), 1e-12)
        assert_agree(hopf_cole(flat, x, 1.0, eps, normalisation="mean"), jnp.zeros(()), 1e-12)


# ------------------------------------------------------------------------------------ densities


@pytest.mark.parametrize("eps", [1.0, 0.3, 0.1])
def test_the_normalised_limit_is_half_the_log_determinant(eps):
    """Section 6d: g = y^2/2, t = 1: (u - u_0)/eps = log(3)/2 at every eps, by two quadratures."""
    x = jnp.array([0.7])
    data = density(lambda y: y[0] ** 2 / 2, jnp.array([-12.0]), jnp.array([12.0]), 801)
    smooth = hopf_cole_smooth(lambda y: y[0] ** 2 / 2, x, 1.0, eps, order=60)
    for u in (hopf_cole(data, x, 1.0, eps), smooth):
        assert float((u - x[0] ** 2 / 6) / eps) == pytest.approx(np.log(3) / 2, abs=1e-8)


@pytest.mark.parametrize("rule", ["trapezoid", "midpoint", "gauss"])
def test_quadratures_agree_in_two_dimensions(rule):
    g = lambda y: jnp.sin(y[0]) * y[1] + jnp.sum(y**2) / 4
    x = jnp.array([0.3, -0.2])
    data = density(g, jnp.full(2, -9.0), jnp.full(2, 9.0), 120, rule=rule)
    wanted = hopf_cole_smooth(g, x, 0.5, 0.4, order=50)
    assert_agree(hopf_cole(data, x, 0.5, 0.4), wanted, 1e-10)
    raw = hopf_cole(data, x, 0.5, 0.4, normalisation="raw")
    assert abs(float(raw - wanted)) > 0.1  # twin: the gauge left out


def test_published_error_for_a_kink():
    """Section 6d: g = |y|: sup error .2919, .1769, .1047, .0607, between eps and eps log(1/eps)."""
    X = jnp.linspace(-3.0, 3.0, 61)[:, None]
    data = density(lambda y: jnp.abs(y[0]), jnp.array([-10.0]), jnp.array([10.0]), 8001)
    exact = jnp.where(jnp.abs(X[:, 0]) <= 2, X[:, 0] ** 2 / 4, jnp.abs(X[:, 0]) - 1)
    for eps, published in ((0.2, 0.2919), (0.1, 0.1769), (0.05, 0.1047), (0.025, 0.0607)):
        error = jnp.max(jnp.abs(hopf_cole_batch(data, X, 1.0, eps) - exact))
        assert float(error) == pytest.approx(published, abs=2e-4)


# ------------------------------------------------------------------------------------ batches


@pytest.mark.parametrize("eps", [0.0, 1e-2, 1.0])
def test_the_batch_is_the_single_point_with_all_its_derivatives(eps):
    data, X = cloud(3, 64)
    X = jnp.concatenate([X, 2 * X])

    @jax.jit
    def both(data, X, t, e):
        single = lambda D, X, t, e: jnp.sum(jax.vmap(lambda x: jnp.sin(hopf_cole(D, x, t, e)))(X))
        batch = lambda D, X, t, e: jnp.sum(jnp.sin(hopf_cole_batch(D, X, t, e, tile=(3, 10))))
        slopes = [jax.value_and_grad(f, (0, 1, 2, 3))(data, X, t, e) for f in (single, batch)]
        return slopes

    one, many = both(data, X, jnp.asarray(0.7), jnp.asarray(eps))
    assert_agree(one, many, 1e-11)


@pytest.mark.any_precision
def test_a_batch_far_from_the_origin_keeps_its_digits():
    data, X = cloud(3, 64)
    far = jnp.full(3, 1000.0, X.dtype)
    moved = InitialData(data.atoms + far[None, :], data.values)
    near = hopf_cole_batch(data, X, 0.7, 0.1)
    away = hopf_cole_batch(moved, X + far[None, :], 0.7, 0.1)
    assert_agree(near, away, 1e-3 if X.dtype == jnp.float32 else 1e-11)

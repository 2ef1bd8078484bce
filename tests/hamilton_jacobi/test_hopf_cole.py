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

TEMPERATURES = [1e-3, 1e-2, 0.1, 1.0, 10.0]


def cloud(d, n, seed=0):
    one, two, three = jax.random.split(jax.random.key(seed), 3)
    data = InitialData(jax.random.normal(one, (n, d)), jax.random.normal(two, (n,)))
    return data, jax.random.normal(three, (4, d))


TIMES = (0.1, 1.0)
# Every (atoms, eps, t) of the issue, and the two published ones: one program a dimension runs them all.
SWEEP = [(n, e, t) for n in (2, 64, 512) for e in TEMPERATURES for t in TIMES]
SWEEP += [(512, 0.3, 1.0), (512, 0.4, 0.7)]


@functools.cache
def residuals(d):
    """Residuals of both normalisations, `(case, point)`. Fewer than 512 atoms: the rest masked."""
    data, X = cloud(d, 512)
    n, eps, t = (jnp.asarray(a) for a in zip(*SWEEP, strict=True))

    def one(n, eps, t):
        few = InitialData(data.atoms, jnp.where(jnp.arange(512) < n, data.values, jnp.inf))
        u = lambda name: lambda x, s: hopf_cole(few, x, s, eps, normalisation=name)
        at = lambda name: jax.vmap(lambda x: pde_residual(u(name), x, t, eps))(X)
        return at("heat"), at("raw")

    found = jax.jit(lambda *a: jax.lax.map(lambda c: one(*c), a))(n, eps, t)
    return jax.tree.map(np.asarray, found)


# ------------------------------------------------------------------------------------ the equation


@pytest.mark.parametrize("d", [1, 3, 16, 64])
def test_the_equation_is_solved_to_roundoff_and_missed_by_the_raw_sum(d):
    """`relative` is |r| over the sum of the absolute terms."""
    heat, raw = residuals(d)
    assert heat.relative.shape == (len(SWEEP), 4)
    assert heat.relative.max() <= 1e-13
    size = np.abs(raw.residual) / np.maximum(raw.relative, 1e-300)
    gauge = np.array([d * eps / (2 * t) for _, eps, t in SWEEP])[:, None]
    assert (np.abs(raw.residual + gauge) / size).max() <= 1e-13
    assert raw.relative.min() > 1e-5  # so the raw sum fails


@pytest.mark.parametrize("n", [2, 64])
def test_masked_atoms_are_as_if_absent(n):
    data, X = cloud(3, 512)
    few = InitialData(data.atoms, jnp.where(jnp.arange(512) < n, data.values, jnp.inf))
    none = InitialData(data.atoms[:n], data.values[:n])
    at = jax.jit(jax.vmap(lambda D, x: hopf_cole(D, x, 0.7, 0.1), (None, 0)))
    assert_agree(at(few, X), at(none, X), 1e-14)


@pytest.mark.parametrize(("d", "case", "published"), [(1, -2, -0.15), (3, -1, -0.8571428571428571)])
def test_published_residuals(d, case, published):
    """Section 2: constant in x. Adding d eps/(2t) gives roundoff."""
    found, (_, eps, t) = residuals(d)[1].residual[case], SWEEP[case]
    assert_agree(found, np.full(4, published), 1e-12)
    assert_agree(found + d * eps / (2 * t), np.zeros(4), 1e-12)


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


FAULTS = {  # sign of u, factor of t, factor of eps, further gauges
    "none": (1.0, 1.0, 1.0, 0.0),
    "half the square": (1.0, 2.0, 1.0, 0.0),
    "viscosity doubled": (1.0, 1.0, 2.0, 0.0),
    "gauge of d + 1": (1.0, 1.0, 1.0, 1.0),
    "wrong sign of u": (-1.0, 1.0, 1.0, 0.0),
}


def test_twins_a_wrong_solution_is_caught():
    data, X = cloud(3, 64)
    eps, t = 0.3, 0.7

    def relative(sign, slow, hot, gauge):
        def u(x, s):
            extra = gauge * eps / 2 * jnp.log(4 * jnp.pi * eps * s)
            return sign * hopf_cole(data, x, slow * s, hot * eps) + extra

        return pde_residual(u, X[0], t, eps).relative

    found = jax.jit(jax.vmap(relative))(*jnp.asarray(list(FAULTS.values())).T)
    assert float(found[0]) <= 1e-14
    assert float(found[1:].min()) > 1e-2


def test_agrees_with_forty_digits():
    data, X = cloud(3, 8)
    mpmath.mp.dps = 40
    at = jax.jit(lambda x, t, eps: hopf_cole(data, x, t, eps))
    for eps, t in ((1e-3, 0.2), (0.3, 1.0), (10.0, 5.0)):
        for x in np.asarray(X[:2]):
            total = mpmath.mpf(0)
            for y, g in zip(np.asarray(data.atoms), np.asarray(data.values), strict=True):
                square = sum(
                    (mpmath.mpf(a) - mpmath.mpf(b)) ** 2 for a, b in zip(x, y, strict=True)
                )
                total += mpmath.exp(-(mpmath.mpf(g) + square / (4 * t)) / eps)
            want = -eps * mpmath.log(total) + 1.5 * eps * mpmath.log(4 * mpmath.pi * eps * t)
            assert_agree(at(jnp.asarray(x), t, eps), np.float64(want), 1e-14)


# ------------------------------------------------------------------------------------ limits


def test_sandwich_and_rate_in_eps():
    data, X = cloud(3, 64)
    at = jax.jit(jax.vmap(lambda x, e: hopf_cole(data, x, 0.7, e, normalisation="raw"), (0, None)))
    cold = at(X, 0.0)
    assert_agree(cold, jax.jit(jax.vmap(lambda x: hopf_lax(data, x, 0.7)))(X), 1e-15)
    for eps in TEMPERATURES:
        gap = cold - at(X, eps)
        assert bool(jnp.all((gap >= 0) & (gap <= eps * np.log(64) * (1 + 1e-15))))
    # at a k-way tie the error is eps log k: order one in eps, with that constant
    tie = InitialData(jnp.array([[1.0], [-1.0], [5.0]]), jnp.array([0.0, 0.0, 0.0]))
    at = jax.jit(jax.vmap(lambda e: hopf_cole(tie, jnp.zeros(1), 1.0, e, normalisation="raw")))
    small = jnp.array([1e-2, 1e-3])
    assert_agree(0.25 - at(small), small * np.log(2), 1e-14)


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
    both = jax.jit(lambda *a: [hopf_cole(*a, normalisation=n) for n in ("raw", "mean")])
    for n in (10, 1000):
        eps = 1 / np.log(n)
        flat = InitialData(jnp.zeros((1000, 1)), jnp.zeros(1000), (jnp.arange(1000) < n) * 1.0)
        raw, mean = both(flat, jnp.zeros(1), 1.0, eps)
        assert_agree(raw, -jnp.ones(()), 1e-12)
        assert_agree(mean, jnp.zeros(()), 1e-12)


# ------------------------------------------------------------------------------------ densities


def test_the_normalised_limit_is_half_the_log_determinant():
    """Section 6d: g = y^2/2, t = 1: (u - u_0)/eps = log(3)/2 at every eps, by two quadratures."""
    x, g = jnp.array([0.7]), lambda y: y[0] ** 2 / 2
    data = density(g, jnp.array([-12.0]), jnp.array([12.0]), 801)
    both = lambda e: [hopf_cole(data, x, 1.0, e), hopf_cole_smooth(g, x, 1.0, e, order=60)]
    eps = jnp.array([1.0, 0.3, 0.1])
    for u in jax.jit(jax.vmap(both))(eps):
        assert_agree((u - x[0] ** 2 / 6) / eps, jnp.full(3, np.log(3) / 2), 1e-8)


def test_quadratures_agree_in_two_dimensions():
    g = lambda y: jnp.sin(y[0]) * y[1] + jnp.sum(y**2) / 4
    x = jnp.array([0.3, -0.2])
    at = jax.jit(lambda D: [hopf_cole(D, x, 0.5, 0.4, normalisation=n) for n in ("heat", "raw")])
    wanted = jax.jit(lambda x: hopf_cole_smooth(g, x, 0.5, 0.4, order=50))(x)
    for rule in ("trapezoid", "midpoint", "gauss"):
        heat, raw = at(density(g, jnp.full(2, -9.0), jnp.full(2, 9.0), 120, rule=rule))
        assert_agree(heat, wanted, 1e-10)
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


def test_the_batch_is_the_single_point_with_all_its_derivatives():
    data, X = cloud(3, 64)
    X = jnp.concatenate([X, 2 * X])

    @jax.jit
    def both(data, X, t, e):
        single = lambda D, X, t, e: jnp.sum(jax.vmap(lambda x: jnp.sin(hopf_cole(D, x, t, e)))(X))
        batch = lambda D, X, t, e: jnp.sum(jnp.sin(hopf_cole_batch(D, X, t, e, tile=(3, 10))))
        return [jax.value_and_grad(f, (0, 1, 2, 3))(data, X, t, e) for f in (single, batch)]

    for eps in (0.0, 1e-2, 1.0):
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

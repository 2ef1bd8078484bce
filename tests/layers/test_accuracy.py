r"""Derivatives against multiprecision, norm-wise and per sample, wherever the true norm exceeds 1e-290.

eps in {1, .3, .1, 1e-2, 1e-3, 1e-4} and n in {2, 10, 100, 1000}: closed route 1e-12, implicit and
unrolled 1e-10, second derivatives 1e-12; attention, pools, the sigmoid and entmax near a vertex alike.
"""

import functools

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

from hjcontrol.layers import Attention, Entmax, Pool, Softmax, Softplus, Tanh, compare_gradients
from hjcontrol.layers.engines import KINDS
from tests.layers import multiprecision as mp

NEWTON = KINDS[Softmax.kind]
TEMPERATURES = (1.0, 0.3, 0.1, 1e-2, 1e-3, 1e-4)
SIZES = (2, 10, 100, 1000)
SAMPLES = {2: 8, 10: 6, 100: 3, 1000: 1}
LEAST = 1e-290
LIMITS = {"closed": 1e-12, "forward": 1e-12, "implicit": 1e-10, "unrolled": 1e-10}


def drawn(n, seed=0):
    rng = np.random.default_rng(seed)
    return [jnp.asarray(rng.standard_normal((SAMPLES[n], n))) for _ in range(3)]


softmax = lambda z, eps: Softmax(eps)(z)
pull = lambda f, z, g: jax.vjp(f, z)[1](g)[0]
push = lambda f, z, g: jax.jvp(f, (z,), (g,))[1]


def _everything(z, g, h, eps):
    """Every rule of one sample, first and (for few logits) second order; and two that cancel."""
    f = lambda z: softmax(z, eps)
    second = {
        "second, reverse": lambda: pull(lambda z: pull(f, z, g), z, h),
        "second, forward": lambda: push(lambda z: push(f, z, g), z, h),
        "uncentred": lambda: _without_centring(z, eps, g),
        "wrong entry": lambda: _wrong_entry(z, eps, g),
    }
    return {
        "closed": pull(f, z, g),
        "forward": push(f, z, g),
        "implicit": NEWTON.implicit(Softmax(eps), z, g),
        "unrolled": pull(lambda z: NEWTON.newton(Softmax(eps), z), z, g),
        **{name: rule() for name, rule in second.items() if z.size <= 10},
    }


@functools.cache
def found(n):
    """All temperatures and samples in one compilation."""
    batch = jax.vmap(_everything, (0, 0, 0, None))
    return jax.device_get(
        jax.jit(jax.vmap(batch, (None, None, None, 0)))(*drawn(n), jnp.asarray(TEMPERATURES))
    )


@functools.cache
def references(n):
    """For each temperature and sample the true gradient; computed once, used by every route."""
    z, g, _ = map(np.asarray, drawn(n))
    pairs = lambda eps: [mp.gibbs_tangent(a, eps, b) for a, b in zip(z, g, strict=True)]
    return {eps: pairs(eps) for eps in TEMPERATURES}


def worst(rows, wanted):
    """The largest relative error, over samples whose true norm exceeds 1e-290, and their number."""
    errors = [mp.error(a, b) for a, b in zip(np.asarray(rows), wanted, strict=True)]
    judged = [error for error, size in errors if size > LEAST]
    return max(judged, default=0.0), len(judged)


@pytest.mark.xdist_group("softmax accuracy")
@pytest.mark.parametrize("n", SIZES)
def test_softmax_gradient(n):
    for route, limit in LIMITS.items():
        judged = 0
        for k, eps in enumerate(TEMPERATURES):
            error, count = worst(found(n)[route][k], references(n)[eps])
            assert error <= limit, f"{route}, eps={eps}: {error:.1e}"
            judged += count
        assert judged >= 4 * SAMPLES[n]  # at 1e-4, and some at 1e-3, the true norm is below 1e-290


@pytest.mark.xdist_group("softmax accuracy")
@pytest.mark.parametrize("n", SIZES[:2])
def test_softmax_second_derivative(n):
    rows = [np.asarray(a) for a in drawn(n)]
    for k, eps in enumerate(TEMPERATURES):
        true = [mp.gibbs_second(a, eps, b, c) for a, b, c in zip(*rows, strict=True)]
        for rule in ("second, reverse", "second, forward"):
            error, _ = worst(found(n)[rule][k], true)
            assert error <= 1e-12, f"eps={eps}: {error:.1e}"


@pytest.mark.smoke
def test_the_issues_own_figure():
    z, eps = jnp.array([0.6, 0.58]), 0.01
    f = lambda z: softmax(z, eps)
    rules = jax.jit(
        lambda z: (jax.jacrev(f)(z), jax.jacfwd(f)(z), jax.hessian(Softmax(eps).value)(z))
    )
    jacobian, forward, hessian = rules(z)
    assert float(jacobian[0, 1]) == pytest.approx(-10.4994, abs=5e-5)
    assert float(forward[0, 1]) == float(jacobian[0, 1])
    np.testing.assert_allclose(hessian, jacobian, rtol=1e-14)


@pytest.mark.parametrize(("n", "eps", "at_least"), [(2, 0.1, 1e-7), (10, 0.01, 1e-3)])
def test_the_textbook_rule_fails_and_is_caught(n, eps, at_least):
    rng = np.random.default_rng(0)
    z, g = (jnp.asarray(rng.standard_normal((64, n))) for _ in range(2))
    jaxs = lambda z: jax.nn.softmax(z / eps)
    table = compare_gradients(Softmax(eps), z, g, others={"jax.nn": jaxs})
    caught = [i for i, v in enumerate(table.verdict) if str(v) == "refuted: jax.nn"]
    assert caught
    for route in ("closed", "implicit", "unrolled", "differences"):
        assert not any(route in str(v) for v in table.verdict)
    assert table.errors["differences"].max() <= 1.0  # within their own estimate
    assert max(table.errors["jax.nn"]) > at_least
    i = int(np.argmax(table.errors["jax.nn"]))
    true = mp.gibbs_tangent(np.asarray(z)[i], eps, np.asarray(g)[i])
    assert mp.error(np.asarray(table.gradients["jax.nn"])[i], true)[0] > at_least
    assert mp.error(np.asarray(table.gradients["closed"])[i], true)[0] <= 1e-12
    assert "refuted" in str(table)


# ------------------------------------------------------------------------------ the other families


def _sigmoid_derivatives(u):
    """First, second and third derivative of the sigmoid."""
    e = mpmath.exp(-abs(u))
    s, c = 1 / (1 + e), e / (1 + e)
    t = (s - c) * mpmath.sign(u)
    b = s * c
    return b, -b * t, b * (t**2 - 2 * b)


def test_sigmoid_and_tanh_derivatives():
    z = jnp.asarray([1e-9, 1e-3, 0.02, 0.4, 1.3, 6.0, -0.02, -1.3, -6.0])

    def orders(z, eps):
        rows = []
        for layer in (Softplus, Tanh):
            f = lambda z, layer=layer: layer(eps)(z)
            for _ in range(3):
                f = jax.grad(f)
                rows.append(f(z))
        return jnp.stack(rows)

    every = jax.jit(jax.vmap(jax.vmap(orders, (0, None)), (None, 0)))(z, jnp.asarray(TEMPERATURES))
    for eps, table in zip(TEMPERATURES, np.asarray(every), strict=True):
        for point, row in zip(np.asarray(z), table, strict=True):
            with mpmath.workdps(60):
                wanted = []
                for width in (1, 2):
                    u = mpmath.mpf(float(point)) * width / mpmath.mpf(float(eps))
                    terms = enumerate(_sigmoid_derivatives(u), start=1)
                    wanted += [t * width ** (k + 1) / mpmath.mpf(float(eps)) ** k for k, t in terms]
                for value, true in zip(row, wanted, strict=True):
                    if abs(true) > LEAST:
                        assert abs(value - true) <= 2e-12 * abs(true), (eps, point, float(true))


ALPHAS, SHARES = (1.25, 1.5, 2.0), (0.3, 1e-2, 1e-4)


def test_entmax_gradient_down_to_its_faces():
    """Two entries, the second approaching the face where it vanishes."""
    g, one = jnp.array([0.3, -1.2]), jnp.asarray(1.0)
    with mpmath.workdps(60):
        base = lambda p, a: mpmath.mpf(p) ** (a - 1) / (a - 1)
        away = lambda a, s: float(base(1 - s, mpmath.mpf(a)) - base(s, mpmath.mpf(a)))
        z = np.array([[[away(a, s), 0.0] for s in SHARES] for a in ALPHAS])
    rule = lambda alpha: jax.vmap(lambda z: pull(lambda z: Entmax(one, alpha)(z), z, g))
    got = jax.jit(lambda z: jnp.stack([rule(a)(row) for a, row in zip(ALPHAS, z, strict=True)]))(z)
    for alpha, points, rows in zip(ALPHAS, z, np.asarray(got), strict=True):
        for share, point, row in zip(SHARES, points, rows, strict=True):
            with mpmath.workdps(60):
                a, distance = mpmath.mpf(alpha), mpmath.mpf(point[0])
                off = lambda p, a=a, d=distance: base(1 - p, a) - base(p, a) - d
                p = mpmath.findroot(off, share)
                w = [(1 - p) ** (2 - a), p ** (2 - a)]
                reduced = w[0] * w[1] / (w[0] + w[1]) * (mpmath.mpf(0.3) + mpmath.mpf(1.2))
            # The base p^(alpha-1) is a difference of numbers of order one: its roundoff is the data's.
            condition = 1.0 / share ** (alpha - 1.0)
            assert abs(row[0] - reduced) <= 1e-14 * condition * abs(reduced)
            assert abs(row[1] + reduced) <= 1e-14 * condition * abs(reduced)


def test_attention_gradient():
    rng = np.random.default_rng(5)
    q, k, v = (jnp.asarray(rng.standard_normal(s)) for s in ((1, 4), (10, 4), (10, 3)))
    g = rng.standard_normal(3)
    f = lambda q, eps: Attention(eps)(q, k, v).output[0] @ g
    rule = jax.jit(lambda eps: (jax.vmap(lambda e: jax.grad(f)(q, e)[0])(eps), (q @ k.T)[0]))
    got, z = map(
        np.asarray, rule(jnp.asarray(TEMPERATURES))
    )  # z as rounded: what the layer acts on
    judged = 0
    for eps, row in zip(TEMPERATURES, got, strict=True):
        with mpmath.workdps(mp.DIGITS):
            c = [mpmath.fdot(map(mpmath.mpf, value), map(mpmath.mpf, g)) for value in np.asarray(v)]
            back = mp.gibbs_tangent_of(z, eps, c)
            keys = [[mpmath.mpf(float(x)) for x in column] for column in np.asarray(k).T]
            true = [mpmath.fdot(back, column) for column in keys]
        error, size = mp.error(row, true)
        judged += size > LEAST
        assert size <= LEAST or error <= 1e-12, f"eps={eps}: {error:.1e}"
    assert judged >= 4


def test_pool_second_derivative():
    rng = np.random.default_rng(2)
    x, g = (jnp.asarray(rng.standard_normal((2, 4))) for _ in range(2))
    f = lambda x, eps: jnp.sum(Pool(eps, (2, 2))(x))
    along = lambda eps: jax.jvp(jax.grad(lambda x: f(x, eps)), (x,), (g,))[1]
    got = np.asarray(jax.jit(jax.vmap(along))(jnp.asarray(TEMPERATURES)))
    x, g = np.asarray(x), np.asarray(g)
    for eps, slopes in zip(TEMPERATURES, got, strict=True):
        for block in (np.s_[:, :2], np.s_[:, 2:]):
            true = mp.gibbs_tangent(x[block].ravel(), eps, g[block].ravel())
            error, size = mp.error(slopes[block].ravel(), true)
            assert size <= LEAST or error <= 1e-12, f"eps={eps}: {error:.1e}"


# ------------------------------------------------------------------------------ twins that must fail


def _without_centring(z, eps, g):
    p = jax.nn.softmax(z / eps)
    return p * (g - p @ g) / eps


def _wrong_entry(z, eps, g):
    p = jax.nn.softmax(z / eps)
    g = g - g[jnp.argmin(p)]
    return p * (g - p @ g) / eps


@pytest.mark.xdist_group("softmax accuracy")
@pytest.mark.parametrize("wrong", ["uncentred", "wrong entry"])
def test_a_cancelling_rule_does_not_pass(wrong):
    cold = [(k, eps) for k, eps in enumerate(TEMPERATURES) if eps in (1e-2, 1e-3)]
    assert max(worst(found(10)[wrong][k], references(10)[e])[0] for k, e in cold) > 1e-6

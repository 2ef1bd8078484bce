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
from hjcontrol.layers import routes as routes_
from tests.layers import multiprecision as mp

pytestmark = pytest.mark.slow

TEMPERATURES = (1.0, 0.3, 0.1, 1e-2, 1e-3, 1e-4)
SIZES = (2, 10, 100, 1000)
SAMPLES = {2: 8, 10: 6, 100: 3, 1000: 1}
LEAST = 1e-290


def drawn(n, seed=0):
    rng = np.random.default_rng(seed)
    return [jnp.asarray(rng.standard_normal((SAMPLES[n], n))) for _ in range(3)]


def pulled(f):
    """The derivative of `f(z, eps)` in reverse mode, batched over samples."""
    one = lambda z, eps, g: jax.vjp(lambda z: f(z, eps), z)[1](g)[0]
    return jax.jit(jax.vmap(one, (0, None, 0)))


softmax = lambda z, eps: Softmax(eps)(z)
ROUTES = {
    "closed": (pulled(softmax), 1e-12),
    "forward": (
        jax.jit(
            jax.vmap(
                lambda z, eps, g: jax.jvp(lambda z: softmax(z, eps), (z,), (g,))[1], (0, None, 0)
            )
        ),
        1e-12,
    ),
    "implicit": (
        jax.jit(jax.vmap(lambda z, e, g: routes_.implicit(Softmax(e), z, g), (0, None, 0))),
        1e-10,
    ),
    "unrolled": (pulled(lambda z, eps: routes_.unrolled(Softmax(eps), z)), 1e-10),
}


@functools.cache
def references(n):
    """For each temperature and sample the true gradient; computed once, used by every route."""
    z, g, _ = drawn(n)
    return {
        eps: [
            mp.gibbs_tangent(a, eps, b) for a, b in zip(np.asarray(z), np.asarray(g), strict=True)
        ]
        for eps in TEMPERATURES
    }


def worst(rows, wanted):
    """The largest relative error, over samples whose true norm exceeds 1e-290, and their number."""
    found = [mp.error(a, b) for a, b in zip(np.asarray(rows), wanted, strict=True)]
    judged = [error for error, size in found if size > LEAST]
    return max(judged, default=0.0), len(judged)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("n", SIZES)
def test_softmax_gradient(n, route):
    rule, limit = ROUTES[route]
    z, g, _ = drawn(n)
    judged = 0
    for eps in TEMPERATURES:
        error, count = worst(rule(z, jnp.asarray(eps), g), references(n)[eps])
        assert error <= limit, f"eps={eps}: {error:.1e}"
        judged += count
    assert judged >= 4 * SAMPLES[n]  # at 1e-4, and some at 1e-3, the true norm is below 1e-290


@pytest.mark.parametrize("n", SIZES[:2])
def test_softmax_second_derivative(n):
    z, g, h = drawn(n)
    first = lambda z, eps, g: jax.vjp(lambda z: softmax(z, eps), z)[1](g)[0]
    forward = lambda z, eps, g: jax.jvp(lambda z: softmax(z, eps), (z,), (g,))[1]
    over = lambda f: jax.jit(jax.vmap(f, (0, None, 0, 0)))
    reverse = over(lambda z, e, g, h: jax.vjp(lambda z: first(z, e, g), z)[1](h)[0])
    ahead = over(lambda z, e, g, h: jax.jvp(lambda z: forward(z, e, g), (z,), (h,))[1])
    rows = [np.asarray(a) for a in (z, g, h)]
    for eps in TEMPERATURES:
        true = [mp.gibbs_second(a, eps, b, c) for a, b, c in zip(*rows, strict=True)]
        for rule in (reverse, ahead):
            error, _ = worst(rule(z, jnp.asarray(eps), g, h), true)
            assert error <= 1e-12, f"eps={eps}: {error:.1e}"


@pytest.mark.smoke
def test_the_issues_own_figure():
    z, eps = jnp.array([0.6, 0.58]), 0.01
    jacobian = jax.jacrev(lambda z: Softmax(eps)(z))(z)
    assert float(jacobian[0, 1]) == pytest.approx(-10.4994, abs=5e-5)
    assert float(jax.jacfwd(lambda z: Softmax(eps)(z))(z)[0, 1]) == float(jacobian[0, 1])
    hessian = jax.hessian(Softmax(eps).value)(z)
    np.testing.assert_allclose(hessian, jacobian, rtol=1e-14)


def test_central_differences_lie_within_their_own_error():
    for n, temperatures in ((2, (1.0, 0.01)), (10, (0.1,))):
        z, g, _ = drawn(n)
        for eps in temperatures:
            table = compare_gradients(Softmax(eps), z, g)
            assert table.agree, str(table)
            assert table.errors["differences"].max() <= 1.0


@pytest.mark.parametrize(("n", "eps", "at_least"), [(2, 0.1, 1e-7), (10, 0.01, 1e-3)])
def test_the_textbook_rule_fails_and_is_caught(n, eps, at_least):
    z = jnp.asarray(np.random.default_rng(0).standard_normal((64, n)))
    g = jnp.asarray(np.random.default_rng(1).standard_normal((64, n)))
    jaxs = lambda z: jax.nn.softmax(z / eps)
    table = compare_gradients(Softmax(eps), z, g, others={"jax.nn": jaxs})
    caught = [i for i, v in enumerate(table.verdict) if str(v) == "refuted: jax.nn"]
    assert caught
    assert not any("closed" in str(v) for v in table.verdict)
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


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("layer", [Softplus, Tanh])
def test_sigmoid_and_tanh_derivatives(layer, order):
    width = {Softplus: 1, Tanh: 2}[layer]
    f = lambda z, eps: layer(eps)(z)
    for _ in range(order):
        f = jax.grad(f)
    rule = jax.jit(jax.vmap(f, (0, None)))
    z = jnp.asarray([1e-9, 1e-3, 0.02, 0.4, 1.3, 6.0, -0.02, -1.3, -6.0])
    for eps in TEMPERATURES:
        got = np.asarray(rule(z, jnp.asarray(eps)))
        for value, point in zip(got, np.asarray(z), strict=True):
            with mpmath.workdps(60):
                u = mpmath.mpf(float(point)) * width / mpmath.mpf(float(eps))
                true = _sigmoid_derivatives(u)[order - 1] * width ** (order + 1)
                true = true / mpmath.mpf(float(eps)) ** order
                if abs(true) > LEAST:
                    assert abs(value - true) <= 2e-12 * abs(true), (eps, point, float(true))


@pytest.mark.parametrize("alpha", [1.25, 1.5, 2.0])
def test_entmax_gradient_down_to_its_faces(alpha):
    """Two entries, the second approaching the face where it vanishes."""
    rule = pulled(lambda z, eps: Entmax(eps, alpha)(z))
    g = jnp.array([[0.3, -1.2]])
    for share in (0.3, 1e-2, 1e-4):
        with mpmath.workdps(60):
            a = mpmath.mpf(alpha)
            base = lambda p: mpmath.mpf(p) ** (a - 1) / (a - 1)
            z = np.array([float(base(1 - share) - base(share)), 0.0])
            distance = mpmath.mpf(z[0])
            p = mpmath.findroot(lambda p: base(1 - p) - base(p) - distance, share)
            w = [(1 - p) ** (2 - a), p ** (2 - a)]
            reduced = w[0] * w[1] / (w[0] + w[1]) * (mpmath.mpf(0.3) + mpmath.mpf(1.2))
        got = np.asarray(rule(jnp.asarray(z)[None], jnp.asarray(1.0), g))[0]
        # The base p^(alpha-1) is a difference of numbers of order one: its roundoff is the data's.
        condition = 1.0 / share ** (alpha - 1.0)
        assert abs(got[0] - reduced) <= 1e-14 * condition * abs(reduced)
        assert abs(got[1] + reduced) <= 1e-14 * condition * abs(reduced)


def test_attention_gradient():
    rng = np.random.default_rng(5)
    q, k, v = (rng.standard_normal(s) for s in ((1, 4), (10, 4), (10, 3)))
    g = rng.standard_normal(3)
    for eps in (1.0, 0.1, 1e-2, 3e-3):
        f = lambda q, eps=eps: Attention(eps)(q, jnp.asarray(k), jnp.asarray(v)).output[0] @ g
        got = np.asarray(jax.jit(jax.grad(f))(jnp.asarray(q)))[0]
        z = np.asarray(jnp.asarray(q) @ jnp.asarray(k).T)[0]  # as rounded: what the layer acts on
        with mpmath.workdps(mp.DIGITS):
            c = [mpmath.fdot(map(mpmath.mpf, row), map(mpmath.mpf, g)) for row in v]
            pull = mp.gibbs_tangent_of(z, eps, c)
            true = [
                mpmath.fdot(pull, [mpmath.mpf(float(x)) for x in k[:, j]])
                for j in range(k.shape[1])
            ]
        error, size = mp.error(got, true)
        assert size > LEAST
        assert error <= 1e-12, f"eps={eps}: {error:.1e}"


def test_pool_second_derivative():
    x = np.random.default_rng(2).standard_normal((2, 4))
    g = np.random.default_rng(3).standard_normal((2, 4))
    for eps in (1.0, 0.1, 1e-2, 2e-3):
        f = lambda x, eps=eps: jnp.sum(Pool(eps, (2, 2))(x))
        along = lambda x: jax.jvp(jax.grad(f), (x,), (jnp.asarray(g),))[1]
        got = np.asarray(jax.jit(along)(jnp.asarray(x)))
        for block in (np.s_[:, :2], np.s_[:, 2:]):
            true = mp.gibbs_tangent(x[block].ravel(), eps, g[block].ravel())
            error, size = mp.error(got[block].ravel(), true)
            assert size <= LEAST or error <= 1e-12, f"eps={eps}: {error:.1e}"


# ------------------------------------------------------------------------------ twins that must fail


def _without_centring(z, eps, g):
    p = jax.nn.softmax(z / eps)
    return p * (g - p @ g) / eps


def _wrong_entry(z, eps, g):
    p = jax.nn.softmax(z / eps)
    g = g - g[jnp.argmin(p)]
    return p * (g - p @ g) / eps


@pytest.mark.parametrize("wrong", [_without_centring, _wrong_entry])
def test_a_cancelling_rule_does_not_pass(wrong):
    z, g, _ = drawn(10)
    rule = jax.jit(jax.vmap(wrong, (0, None, 0)))
    assert max(worst(rule(z, jnp.asarray(e), g), references(10)[e])[0] for e in (1e-2, 1e-3)) > 1e-6

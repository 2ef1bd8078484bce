r"""Laws of the eps-family.

max z <= lse(z, eps) <= max z + eps log N        d lse/dz = pi        d lse/d eps = H(pi)
d2 lse/dz2 = (diag pi - pi pi^T)/eps             lse(c z, c eps) = c lse(z, eps)
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from hypothesis import given
from hypothesis import strategies as st

from hjcontrol.deformation import entropy, gibbs, gibbs_entropy, lse, softmin
from tests.agreement import assert_agree, disagreement
from tests.oracles import soft_maximum

N = 5
EXTREMES = [-jnp.inf, -1e300, -1e18, -1.0, 0.0, 0.0, 1.0, 1e18, 1e300]
TEMPERATURES = [0.0, 1e-12, 1e-3, 1.0, 1e3, 1e12]

moderate = st.lists(st.floats(-30, 30), min_size=N, max_size=N).map(np.array)
wild = st.lists(
    st.one_of(st.sampled_from(EXTREMES), st.floats(-1e300, 1e300)), min_size=N, max_size=N
).map(np.array)
warm = st.floats(1e-3, 1e3)
temperature = st.one_of(st.sampled_from(TEMPERATURES), st.floats(1e-12, 1e12))

f = jax.jit(lse)
df = jax.jit(jax.grad(lse))
pi = jax.jit(gibbs)
heat = jax.jit(jax.grad(lse, argnums=1))
curve = jax.jit(jax.hessian(lse))
H = jax.jit(gibbs_entropy)
warming = jax.jit(jax.grad(gibbs_entropy, argnums=1))


# ------------------------------------------------------------------------------------ sandwiches


@given(wild, temperature)
def test_lies_between_the_maximum_and_the_maximum_plus_eps_log_n(z, eps):
    value, top = float(f(z, eps)), z.max()
    # XLA may take numbers below the smallest normal one for 0.
    slack = 4e-16 * (abs(top) if np.isfinite(top) else 0.0) + np.finfo(float).tiny
    assert top - slack <= value
    assert value <= top + eps * np.log(N) * (1 + 1e-15) + slack


@pytest.mark.parametrize("n", [1, 2, 7])
def test_the_upper_bound_is_attained_at_a_tie_of_all(n):
    for eps in TEMPERATURES:
        assert_agree(f(np.full(n, 0.75), eps), 0.75 + eps * np.log(n))


@given(moderate)
def test_the_limit_is_reached_at_the_rate_eps_log_ties(z):
    ties = (z == z.max()).sum()
    eps = 1e-9 * max(1.0, abs(z.max()))
    second = max(z[z < z.max()], default=-np.inf)
    if z.max() - second > 100 * eps:
        assert_agree(f(z, eps), jnp.asarray(z.max() + eps * np.log(ties)), 1e-14)
        assert_agree(pi(z, eps), pi(z, 0.0), 1e-14)
    assert_agree(f(z, 0.0), jnp.asarray(z.max()), 0.0)


# ------------------------------------------------------------------------------------ oracles


@given(wild, temperature)
def test_agrees_with_decimal_arithmetic(z, eps):
    want = soft_maximum.lse(list(z), eps)
    assert_agree(f(z, eps), jnp.asarray(want), 4e-15 * max(1.0, eps if eps < 1e200 else 1.0))


@given(moderate, warm)
def test_weights_and_entropy_agree_with_decimal_arithmetic(z, eps):
    assert_agree(pi(z, eps), jnp.asarray(soft_maximum.gibbs(list(z), eps)), 1e-13)
    assert_agree(H(z, eps), jnp.asarray(soft_maximum.entropy(list(z), eps)), 1e-12)


@given(moderate)
def test_agrees_with_scipy_at_eps_one(z):
    assert_agree(f(z, 1.0), jnp.asarray(scipy.special.logsumexp(z)), 1e-14)
    assert_agree(pi(z, 1.0), jnp.asarray(scipy.special.softmax(z)), 1e-14)


# ------------------------------------------------------------------------------------ derivatives


@given(moderate, st.one_of(st.just(0.0), warm))
def test_gradient_is_the_gibbs_state(z, eps):
    assert_agree(df(z, eps), pi(z, eps), 1e-13)


@given(moderate, st.one_of(st.just(0.0), warm))
def test_temperature_derivative_is_the_entropy(z, eps):
    assert_agree(heat(z, eps), H(z, eps), 1e-11)


@given(moderate, st.floats(0.1, 1e3))
def test_entropy_of_the_weights_is_the_gibbs_entropy(z, eps):
    assert_agree(entropy(pi(z, eps)), H(z, eps))
    energy = jnp.sum(pi(z, eps) * z)
    assert_agree((f(z, eps) - energy) / eps, H(z, eps), 1e-11)


@given(moderate, warm)
def test_hessian_is_the_covariance_over_eps(z, eps):
    p = pi(z, eps)
    assert_agree(eps * curve(z, eps), jnp.diag(p) - jnp.outer(p, p), 1e-12)


@given(moderate, warm)
def test_entropy_grows_with_temperature(z, eps):
    p = pi(z, eps)
    variance = float(jnp.sum(p * (z - jnp.sum(p * z)) ** 2))
    slope = float(warming(z, eps))
    assert slope >= -1e-12
    assert_agree(jnp.asarray(slope * eps**3), jnp.asarray(variance), 1e-9 * max(1.0, eps**2))


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_subgradient_at_zero_is_uniform_over_exact_ties(k):
    z = np.array([*[1.5] * k, *[1.5 - 1e-15] * (N - k)])
    uniform = np.array([*[1 / k] * k, *[0.0] * (N - k)])
    for weights in (pi(z, 0.0), df(z, 0.0)):
        assert_agree(weights, uniform, 1e-16)
    assert_agree(heat(z, 0.0), np.log(k), 1e-15)
    assert_agree(H(z, 0.0), np.log(k), 1e-15)


# ------------------------------------------------------------------------------------ symmetries


@given(moderate, st.one_of(st.just(0.0), warm), st.floats(-1e3, 1e3))
def test_shifting_every_logit_shifts_the_value(z, eps, c):
    assert_agree(f(z + c, eps), f(z, eps) + c, 1e-12)


@given(moderate, st.one_of(st.just(0.0), warm), st.floats(1e-2, 1e2))
def test_scaling_logits_and_temperature_scales_the_value(z, eps, c):
    assert_agree(f(c * z, c * eps), c * f(z, eps), 1e-12)
    assert_agree(pi(c * z, c * eps), pi(z, eps), 1e-11)


@given(moderate, st.one_of(st.just(0.0), warm), st.permutations(range(N)))
def test_order_does_not_matter(z, eps, order):
    assert_agree(f(z[order], eps), f(z, eps), 1e-14)
    assert_agree(pi(z[order], eps), pi(z, eps)[jnp.array(order)], 1e-14)


@pytest.mark.parametrize("split", [1, 2, 4])
def test_the_eps_sum_is_associative(split, key):
    z = np.asarray(jax.random.normal(key, (N,))) * 5
    for eps in (0.0, 0.03, 1.0, 40.0):
        parts = np.array([f(z[:split], eps), f(z[split:], eps)])
        assert_agree(f(parts, eps), f(z, eps), 1e-14)


@given(wild, temperature)
def test_softmin_is_the_mirror_image(q, eps):
    assert_agree(softmin(q, eps), -f(-q, eps), 0.0)


@pytest.mark.parametrize("axis", [0, 1, -1, -2])
def test_axis_is_a_batch_of_rows(axis, key):
    @jax.jit
    def both(z, eps):
        rows = jnp.moveaxis(z, axis, -1)
        by_axis = lse(z, eps, axis=axis), gibbs(z, eps, axis=axis), gibbs_entropy(z, eps, axis=axis)
        by_row = [jax.vmap(lambda r, law=law: law(r, eps))(rows) for law in (lse, gibbs, H)]
        return by_axis, (by_row[0], jnp.moveaxis(by_row[1], -1, axis), by_row[2])

    for eps in (0.0, 0.7):
        assert_agree(*both(jax.random.normal(key, (3, 4)), eps), 1e-15)


@pytest.mark.any_precision
@pytest.mark.smoke
def test_temperatures_sweep_under_vmap_and_jit_and_transforms_commute(key):
    z = jax.random.normal(key, (N,))
    eps = jnp.array([0.0, 1e-3, 1.0, 10.0])
    swept = jax.jit(jax.vmap(jax.grad(lse), (None, 0)))(z, eps)
    one_by_one = jnp.stack([df(z, e) for e in eps])
    assert_agree(swept, one_by_one, 1e-6 if z.dtype == jnp.float32 else 1e-14)


# ------------------------------------------------------------------------------------ extremes

ROWS = [
    [1e300, -1e300, 0.0, 1.0, 1e300],
    [-1e300, -1e300, -1e300, -1e300, -1e300],
    [1.7e308, -1.7e308, 0.0, 1.0, 2.0],
    [-jnp.inf, 0.0, -jnp.inf, 1.0, 1.0],
    [-jnp.inf, -jnp.inf, 3.0, -jnp.inf, -jnp.inf],
    [-jnp.inf] * N,
    [jnp.inf, 0.0, -jnp.inf, 1.0, 1e300],
    [jnp.inf, jnp.inf, 0.0, 0.0, 0.0],
    [0.0] * N,
    [1e-300, -1e-300, 0.0, 5e-324, 1.0],
]


@pytest.mark.any_precision
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_no_nan_anywhere(dtype):
    if dtype == "float64" and not jax.config.jax_enable_x64:
        pytest.skip("float64 needs 64-bit floats")
    with np.errstate(over="ignore"):
        narrow = np.array(ROWS).astype(dtype)
    big = np.finfo(dtype).max
    z = jnp.asarray(np.where(np.isinf(ROWS), narrow, np.clip(narrow, -big, big)))
    eps = jnp.asarray(TEMPERATURES, dtype)
    over = lambda g: jax.jit(jax.vmap(jax.vmap(g, (None, 0)), (0, None)))
    mixed = lambda z, e: jax.grad(lambda e: jnp.sum(gibbs(z, e)))(e)
    laws = {
        "value": lse,
        "softmin": softmin,
        "weights": gibbs,
        "entropy": gibbs_entropy,
        "gradient": jax.grad(lse),
        "gradient of softmin": jax.grad(softmin),
        "temperature": jax.grad(lse, argnums=1),
        "hessian": jax.hessian(lse),
        "jvp": lambda z, e: jax.jvp(lambda u: lse(u, e), (z,), (jnp.ones_like(z),))[1],
        "jacobian of weights": jax.jacobian(gibbs),
        "mixed": mixed,
        "gradient of entropy": jax.grad(gibbs_entropy),
        "second in temperature": jax.grad(jax.grad(lse, argnums=1), argnums=1),
    }
    for name, law in laws.items():
        out = over(law)(z, eps)
        assert out.dtype == dtype, name
        assert not jnp.isnan(out).any(), f"{name}: {np.argwhere(np.isnan(out))[:3]}"
        if name in ("gradient", "weights", "temperature", "jvp"):
            assert jnp.isfinite(out).all(), name


@pytest.mark.any_precision
@pytest.mark.parametrize("eps", TEMPERATURES)
def test_masked_entries_are_as_if_absent(eps):
    z = np.array([-np.inf, 0.5, -np.inf, 0.25, -np.inf])
    few = z[[1, 3]]
    assert_agree(f(z, eps), f(few, eps), 0.0)
    assert_agree(df(z, eps)[1::2], pi(few, eps), "float32")
    all_masked = np.full(N, -np.inf)
    assert f(all_masked, eps) == -np.inf
    assert jax.jit(softmin)(-all_masked, eps) == np.inf
    assert_agree(pi(all_masked, eps), np.zeros(N), 0.0)
    assert_agree(df(all_masked, eps), np.zeros(N), 0.0)
    assert f(np.array([np.inf, 1.0, 0.0, -np.inf, 1.0]), eps) == np.inf


@pytest.mark.any_precision
@pytest.mark.parametrize("eps", [0.0, 1.0])
def test_a_nan_is_not_hidden(eps):
    z = np.array([1.0, np.nan, -np.inf, 0.0, np.inf])
    assert np.isnan(f(z, eps))
    assert np.isnan(pi(z, eps)).all()


# ------------------------------------------------------------------------------------ precision


@pytest.mark.any_precision
@pytest.mark.parametrize("eps", [0.0, 1e-12, 0.3, np.float32(0.3), np.float64(0.3), 2])
def test_the_dtype_of_the_logits_decides(eps):
    def dtype_of(law, dtype):
        return jax.eval_shape(lambda z: law(z, eps), jax.ShapeDtypeStruct((2,), dtype)).dtype

    for law in (lse, softmin, gibbs, gibbs_entropy, jax.grad(lse)):
        assert dtype_of(law, jnp.float32) == jnp.float32
        if jax.config.jax_enable_x64:
            assert dtype_of(law, jnp.float64) == jnp.float64
    assert dtype_of(lse, int) == jnp.result_type(float)


@given(moderate, warm)
def test_float32_follows_float64(z, eps):
    z32 = jnp.asarray(z, jnp.float32)
    z64 = z32.astype(jnp.float64)
    e32 = jnp.float32(eps)
    assert_agree(f(z32, e32), f(z64, e32.astype(jnp.float64)).astype(jnp.float32), 1e-6 * (1 + eps))
    assert_agree(pi(z32, e32), pi(z64, e32.astype(jnp.float64)).astype(jnp.float32), 1e-4)


# ------------------------------------------------------------------------------------ errors


@pytest.mark.any_precision
@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("law", [lse, softmin, gibbs, gibbs_entropy])
def test_wrong_arguments_are_refused_at_once(law):
    z = np.array([1.0, 2.0])
    with pytest.raises(ValueError, match=r"`eps` must be >= 0; found -0\.5"):
        law(z, -0.5)
    with pytest.raises(ValueError, match=r"`eps` must be >= 0 and finite; found nan"):
        law(z, np.nan)
    with pytest.raises(ValueError, match=r"a real number.*vmap.*found float64\[2\]"):
        law(z, np.ones(2))
    with pytest.raises(ValueError, match="at least one axis"):
        law(1.0, 1.0)


def test_a_traced_negative_temperature_gives_nan():
    assert jnp.isnan(f(jnp.array([1.0, 2.0]), -1.0))
    assert jnp.isnan(pi(jnp.array([1.0, 2.0]), -1.0)).all()


# ------------------------------------------------------------------------------ twins that must fail


def _without_eps(z, eps):
    return jax.scipy.special.logsumexp(z / eps)


def _naive(z, eps):
    return eps * jnp.log(jnp.sum(jnp.exp(z / eps)))


@pytest.mark.parametrize("wrong", [_without_eps, _naive, lambda z, eps: lse(z, eps) + 1e-9])
def test_a_wrong_formula_does_not_pass_these_laws(wrong):
    z = np.array([700.0, 3.0, -2.0, 0.0, 1.0])
    apart = []
    for eps in (0.5, 2.0):
        want = jnp.asarray(soft_maximum.lse(list(z), eps))
        value = wrong(z, eps)
        apart.append(np.inf if not jnp.isfinite(value) else disagreement(value, want))
    assert max(apart) > 1e-12

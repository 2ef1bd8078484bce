"""No digit of a soft maximum is lost beside its maximum; what is not a list of real numbers is refused.

lse(z, 1) = log1p( sum_{j != m} exp z_j )   where the maximum is z_m = 0
"""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

from hjcontrol.deformation import eps_family, gibbs, gibbs_entropy, heat, lse, softmin

LAWS = [lse, softmin, gibbs, gibbs_entropy, heat]


def reference(z, eps=1.0):
    with mpmath.workdps(60):
        parts = [mpmath.exp(mpmath.mpf(float(v)) / mpmath.mpf(float(eps))) for v in z]
        return mpmath.mpf(float(eps)) * mpmath.log(mpmath.fsum(parts))


def relative(got, want):
    with mpmath.workdps(60):
        return float(abs((mpmath.mpf(float(got)) - want) / want))


def draws(dtype, count=60):
    generator = np.random.default_rng(3)
    for scale in (0.1, 1.0, 10.0, 40.0):
        for _ in range(count // 4):
            z = np.sort(generator.normal(size=4) * scale)[::-1]
            yield (z - z[0]).astype(dtype)


def test_the_small_entry_beside_a_zero_is_the_value():
    assert float(lse(np.array([0.0, -40.0]), 1.0)) == pytest.approx(4.248354255291589e-18, 1e-15)
    assert float(softmin(np.array([0.0, 40.0]), 1.0)) == pytest.approx(
        -4.248354255291589e-18, 1e-15
    )


@pytest.mark.parametrize(("dtype", "limit"), [("float64", 1e-15), ("float32", 3e-7)])
def test_relative_accuracy_at_a_maximum_of_zero(dtype, limit):
    value = jax.jit(jax.vmap(lambda z: lse(z, 1.0)))
    rows = np.stack([z for z in draws(dtype) if reference(z) > 1e-30])
    apart = [relative(a, reference(z)) for a, z in zip(value(rows), rows, strict=True)]
    assert max(apart) <= limit


def test_the_textbook_shift_does_not_pass():
    shifted = lambda z: z.max() + np.log(np.sum(np.exp(z - z.max())))
    rows = [z for z in draws("float64") if reference(z) > 1e-30]
    assert max(relative(shifted(z), reference(z)) for z in rows) > 0.1


@pytest.mark.parametrize("ties", [1, 3])
def test_derivatives_of_the_formula_itself(ties):
    """Without the rules of differentiation, as CasADi replays it: equal logits included."""
    z, eps = jnp.array([*[0.3] * ties, *[-0.7] * (4 - ties)]), jnp.asarray(0.5)
    bare = lambda z: eps_family._lse.__wrapped__(z, eps, -1)
    slope, curved = jax.jit(lambda z: (jax.grad(bare)(z), jax.hessian(bare)(z)))(z)
    p = gibbs(z, eps)
    np.testing.assert_allclose(slope, p, atol=1e-14)
    np.testing.assert_allclose(curved, (np.diag(p) - np.outer(p, p)) / eps, atol=1e-13)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int64])
@pytest.mark.parametrize("law", LAWS)
def test_integers_count_as_the_numbers_they_are(law, dtype):
    ends = np.iinfo(dtype)
    z = np.array([max(ends.min, -200), 3, min(ends.max, 255)], dtype)
    np.testing.assert_array_equal(law(z, 1.0), law(z.astype(float), 1.0))


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_many_equal_logits_of_half_precision(dtype):
    z = jnp.zeros(65_544, dtype)
    for law, want in ((lse, 11.0905), (softmin, -11.0905)):
        got = law(z, 1.0)
        assert got.dtype == dtype
        assert float(got) == pytest.approx(want, rel=float(jnp.finfo(dtype).eps))
    weight = gibbs(z, 1.0)
    assert weight.dtype == dtype
    assert float(weight[0]) == pytest.approx(1 / 65_544, rel=1e-2)
    assert jax.grad(lambda z: lse(z, 1.0))(z).dtype == dtype


@pytest.mark.any_precision
@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize(
    ("z", "axis", "words"),
    [
        (np.zeros(0), -1, r"at least one entry is needed along axis -1; found shape \(0,\)"),
        (np.zeros((3, 0)), 1, r"at least one entry is needed along axis 1; found shape \(3, 0\)"),
        (np.array([1.0 + 1.0j, 2.0]), -1, "must be an array of floats; found complex128"),
        (np.array([True, False]), -1, "must be an array of floats; found bool"),
        ("ab", -1, "must be an array of floats; found 'ab'"),
    ],
)
def test_what_is_no_list_of_real_numbers_is_refused(law, z, axis, words):
    with pytest.raises(ValueError, match=words):
        law(z, 1.0, axis=axis)


@pytest.mark.any_precision
@pytest.mark.parametrize("law", LAWS)
def test_no_sample_is_a_legal_number_of_samples(law):
    assert law(np.zeros((0, 3)), 1.0).shape[0] == 0

"""Laws of HJ-prox: right on average, an error bar that tells the truth, and its limits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hjcontrol.hamilton_jacobi import hj_prox, hopf_cole_smooth, prox_separable
from tests.agreement import assert_agree

T = 0.1
soft = lambda x: jnp.sign(x) * jnp.maximum(jnp.abs(x) - T, 0)
l1 = lambda y: jnp.sum(jnp.abs(y))
estimate = jax.jit(
    lambda f, x, delta, key, n: hj_prox(f, x, T, delta, key=key, samples=n), static_argnums=(0, 4)
)


def test_the_error_bar_is_honest(key):
    """A quadratic has a Gaussian posterior: the smoothed prox is exact, x/(1 + t), for every delta."""
    square = lambda y: jnp.sum(y**2) / 2
    x = jnp.array([1.0, -2.0, 0.5])
    once = lambda k: hj_prox(square, x, T, 0.3, key=k, samples=2000)
    many = jax.jit(lambda keys: jax.lax.map(once, keys))(jax.random.split(key, 200))
    score = (many.point - x[None, :] / (1 + T)) / many.standard_error
    assert 0.85 < float(jnp.std(score)) < 1.15
    assert abs(float(jnp.mean(score))) < 0.15
    twin = (
        many.point - x[None, :] / (1 + 2 * T)
    ) / many.standard_error  # the house's time instead of half
    assert abs(float(jnp.mean(twin[:, 1]))) > 3


def test_the_envelope_is_hopf_cole_with_half_the_time_and_the_same_temperature(key):
    f = lambda y: jnp.sum(jnp.cosh(y))
    x, delta = jnp.array([0.4, -0.3]), 0.2
    found = estimate(f, x, delta, key, 200_000)
    smooth = jax.jit(jax.value_and_grad(lambda a, t: hopf_cole_smooth(f, a, t, delta)))
    u, slope = smooth(x, T / 2)
    assert float(jnp.abs(found.envelope - u)) <= 2e-3
    gap = jnp.abs(found.point - (x - T * slope)) / found.standard_error
    assert float(jnp.max(gap)) <= 4
    wrong = smooth(x, T)[0]
    assert abs(float(found.envelope - wrong)) > 5e-3  # twin: the time of the wrong Hamiltonian


def test_the_bias_shrinks_with_delta_where_the_noise_does_not_hide_it(key):
    x = jnp.array([1.0])
    exact = jax.jit(lambda x: prox_separable(jnp.abs, x, T, 5.0))(x)
    assert_agree(exact, soft(x), 1e-15)
    tilted = jnp.array([0.02])  # within a kink's reach: the smoothed prox is not 0
    errors = [float(jnp.abs(estimate(l1, tilted, d, key, 200_000).point[0])) for d in (0.1, 0.01)]
    assert errors[1] < errors[0] / 2


@pytest.mark.parametrize("d", [1, 10, 100])
def test_effective_samples_tell_of_degeneracy(d, key):
    x = jax.random.normal(key, (d,))
    more = estimate(l1, x, 0.1, key, 20_000)
    assert 1 <= float(more.effective_samples) <= 20_000
    share = float(more.effective_samples) / 20_000
    assert (share > 0.3) == (d == 1)
    if d == 100:  # twenty times the samples do not help: what the effective number says
        assert share < 0.01
        few = estimate(l1, x, 0.1, key, 1000)
        assert 1 <= float(few.effective_samples) <= 1000
        error = [
            float(jnp.linalg.norm(p.point - soft(x)) / jnp.linalg.norm(soft(x)))
            for p in (few, more)
        ]
        assert error[1] > 0.02


def test_same_key_same_answer_and_chunks_do_not_matter(key):
    x = jnp.array([0.3, 0.1])
    one, two = (estimate(l1, x, 0.1, key, 10_000) for _ in range(2))
    assert_agree(one, two, 0.0)
    other = estimate(l1, x, 0.1, jax.random.key(1), 10_000)
    assert float(jnp.max(jnp.abs(one.point - other.point))) > 1e-6


def test_infinite_values_are_a_constraint(key):
    """The indicator of the half-line y >= 0: the mean of a half normal."""
    wall = lambda y: jnp.where(y[0] >= 0, 0.0, jnp.inf)
    found = estimate(wall, jnp.zeros(1), 0.2, key, 100_000)
    want = np.sqrt(0.2 * T) * np.sqrt(2 / np.pi)
    assert abs(float(found.point[0]) - want) <= 4 * float(found.standard_error[0])


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("t", "delta", "samples", "message"),
    [
        (0.0, 0.1, 10, "t. must be > 0"),
        (1.0, 0.0, 10, "delta. must be > 0"),
        (1.0, 0.1, 1, "2 samples"),
    ],
)
def test_bad_input_is_refused(t, delta, samples, message, key):
    with pytest.raises(ValueError, match=message):
        hj_prox(l1, jnp.ones(2), t, delta, key=key, samples=samples)

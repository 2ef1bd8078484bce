"""A rule is judged element by element: what is small beside the largest element, or one among thousands
in a loop, is as wrong as the rest. What is smaller than roundoff is not shown."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hjcontrol as hj


def ruled(fn, derivative):
    """`fn`, element by element, with a rule."""
    made = jax.custom_vjp(fn)
    made.defvjp(lambda x: (fn(x), x), lambda x, p: (p * derivative(x),))
    return made


def verdict(fn, *args, **options):
    """The verdict on a sum, each certificate true just where it is exact."""
    found = hj.verify(lambda *a: jnp.sum(fn(*a)), *args, **options)
    assert bool(found) == (found.verdict == "exact"), str(found)
    return found.verdict


def sigmoid(x):
    return 1 / (1 + jnp.exp(-x))


BOTH = pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])


@BOTH
@pytest.mark.parametrize("large", [1e6, 1e12])
def test_nothing_for_two_small_elements_beside_a_large_one(dtype, large):
    x = jnp.asarray([large, 1, 3], dtype)
    square = lambda x: x**2
    assert verdict(ruled(square, lambda x: jnp.where(x < 10, 0, 2 * x)), x) == "refuted"
    assert verdict(ruled(square, lambda x: x + x), x) == "exact"


@BOTH
def test_another_formula_may_round_where_the_derivative_does_not(dtype):
    """`y (1 - y)` has no right digit at 20 in float32, at 40 in float64."""
    x = jnp.asarray([-20, -5, 0, 5, 12, 14, 20, 30, 40], dtype)
    own = lambda x: sigmoid(x) * (1 - sigmoid(x))
    assert verdict(ruled(sigmoid, own), x) == "exact"
    assert verdict(ruled(sigmoid, lambda x: own(x) * jnp.where(x < -10, 3, 1)), x) == "refuted"


@BOTH
@pytest.mark.parametrize(("factor", "expected"), [(1.0, "exact"), (1.5, "refuted")])
def test_an_exponential_over_many_decades(dtype, factor, expected):
    x = jnp.linspace(-10, 10, 64, dtype=dtype)
    rule = lambda x: jnp.exp(x / 2) ** 2 * jnp.where(x < -5, factor, 1).astype(dtype)
    assert verdict(ruled(jnp.exp, rule), x) == expected


@BOTH
@pytest.mark.parametrize(("factor", "expected"), [(1.0, "exact"), (2.0, "refuted")])
def test_a_likelihood_with_one_small_deviation(dtype, factor, expected):
    def value(s, r):
        return jnp.sum(jnp.log(s) + (r / s) ** 2 / 2)

    made = jax.custom_vjp(value)

    def rule(kept, p):
        s, r = kept
        slope = (1 / s - r**2 / s**3) * jnp.where(s > 1, factor, 1)
        return p * slope, p * r / s**2

    made.defvjp(lambda s, r: (value(s, r), (s, r)), rule)
    s, r = jnp.asarray([1e-3, 2, 3, 4], dtype), jnp.asarray([1, 2, 1, 0.5], dtype)
    assert verdict(made, s, r, argnums=(0, 1)) == expected


def test_one_coordinate_among_fast_ones():
    speed = jnp.array([1.0, 1e14])
    wave = lambda x: jnp.sin(speed * x)
    wrong = lambda x: jnp.array([3.0, 1.0]) * speed * jnp.cos(speed * x)
    x = jnp.array([0.3, 0.7])
    assert verdict(ruled(wave, wrong), x) == "refuted"
    assert verdict(ruled(wave, lambda x: speed * jnp.cos(speed * x)), x) == "exact"


def test_a_derivative_below_its_roundoff_shows_nothing():
    wave = lambda x: jnp.sin(1e16 * x)
    found = hj.verify(lambda x: jnp.sum(ruled(wave, lambda x: 0 * x)(x)), jnp.array([0.3, 0.7]))
    assert found.verdict == "untested"
    assert "roundoff" in str(found)
    assert not found


def test_a_stage_of_a_list_with_a_small_element():
    square = lambda x: x**2
    wrong = ruled(square, lambda x: jnp.where(x < 10, 0, 2 * x))
    x, targets = jnp.array([[1e6, 1.0, 3.0], [2e6, 2.0, 5.0]]), jnp.zeros((2, 3))
    cost = lambda y, t: jnp.sum((y - t) / 1e6)
    stages = lambda fn: [lambda x: x * 1.0, fn]
    assert not hj.verify(stages(wrong), inputs=x, targets=targets, cost=cost)
    assert hj.verify(stages(ruled(square, lambda x: x + x)), inputs=x, targets=targets, cost=cost)


# ------------------------------------------------------------------ loops without a fixed length


def root(a):
    """The square root by Newton's iteration, to six digits."""

    def going(c):
        return (jnp.max(jnp.abs(c[0] * c[0] - a)) > 1e-6 * jnp.max(a)) & (c[1] < 50)

    return jax.lax.while_loop(going, lambda c: ((c[0] + a / c[0]) / 2, c[1] + 1), (a, 0))[0]


@pytest.mark.parametrize(("count", "factor"), [(4096, 1.015), (65536, 1.5), (4096, 1.0)])
def test_one_element_of_thousands_in_a_loop(count, factor):
    a = jnp.linspace(1, 2, count, dtype=jnp.float32)
    scale = jnp.asarray(np.where(np.arange(count) == 7, factor, 1), jnp.float32)
    found = verdict(ruled(root, lambda a: scale * 0.5 / root(a)), a)
    assert found == ("exact" if factor == 1 else "refuted")


@pytest.mark.parametrize("factor", [1.0, 1.001])
def test_a_loop_inside_a_scan(factor):
    scale = jnp.where(jnp.arange(64) == 3, factor, 1)
    rule = ruled(root, lambda a: scale * 0.5 / root(a))
    turn = lambda c, _: (rule(c) + 1, None)
    fn = lambda a: jnp.sum(jax.lax.scan(turn, a, None, length=3)[0])
    found = hj.verify(fn, jnp.linspace(1, 2, 64))
    assert bool(found) == (factor == 1), str(found)

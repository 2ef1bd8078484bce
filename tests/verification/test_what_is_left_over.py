"""What was not compared is not shown: disputes beyond those that are tried, loops whose derivative dies
away, results that are Python's numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hjcontrol as hj
from tests.verification.cases import rule as ruled

M = np.random.default_rng(0).normal(size=(100, 100))


@pytest.mark.parametrize("factor", [1.0, 3.0])
def test_a_loop_that_dies_away_excuses_no_rule(factor):
    def fn(x, n):
        return jax.lax.fori_loop(0, n, lambda i, y: y * x, jnp.ones_like(x))

    power = ruled(fn, lambda r, p: (factor * p * r[1] * fn(r[0], r[1] - 1), None))
    found = hj.verify(lambda x: jnp.sum(power(x, jnp.asarray(3))), jnp.array([0.1, 0.2]))
    assert found.verdict == ("exact" if factor == 1 else "refuted")
    assert bool(found) == (factor == 1)


def test_kinks_of_iterations_that_were_not_tried_are_not_shown():
    def rule(r, p):
        x, k = r
        slope = jnp.where(x == 0, 1.0, jnp.where(x > 0, jnp.where(k == 15, 1.001, 1.0), 0.0))
        return p * slope, None

    relu = ruled(lambda x, k: jnp.maximum(x, 0), rule)
    turn = lambda h, k: (relu(h, k), None)
    found = hj.verify(
        lambda x: jnp.sum(jax.lax.scan(turn, x, jnp.arange(20))[0]), jnp.array([0.0, 1.0, 2.0])
    )
    assert not found, str(found)


def test_kinks_of_elements_that_were_not_tried_are_not_shown():
    at = jnp.where(jnp.arange(100) == 57, 1.05, 1.0)
    slope = lambda x: jnp.where(x > 0, 1.0, jnp.where(x == 0, at, 0.0))
    fn = ruled(lambda x: M @ jnp.maximum(x, 0), lambda r, p: (slope(r[0]) * (M.T @ p),))
    found = hj.verify(lambda x: jnp.sum(jnp.cos(fn(x))), jnp.zeros(100))
    assert not found, str(found)


@pytest.mark.parametrize("factor", [1.0, 1.01])
def test_a_number_of_python_s_among_the_results(factor):
    sine = ruled(jnp.sin, lambda r, p: (factor * p * jnp.cos(r[0]),))
    found = hj.verify(lambda x: {"a": sine(x), "b": 2.0}, jnp.ones(3))
    assert found.verdict == ("exact" if factor == 1 else "refuted")


@pytest.mark.parametrize("finer", [3, [3], "tighter"])
def test_what_is_no_finer_program_is_refused(finer, unchecked):
    with pytest.raises(ValueError, match="`finer` must be a function or a list of functions"):
        hj.verify(lambda x: jnp.sum(x**2), jnp.ones(3), finer=finer)

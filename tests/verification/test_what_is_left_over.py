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


# ------------------------------------------------------------------ values that no costate enters


def best(wrong):
    """The largest entry, where it stands, and whether it is positive; `wrong`: what `fwd` gets wrong."""

    @jax.custom_vjp
    def largest(x):
        return jnp.max(x), jnp.argmax(x), jnp.max(x) > 0, jnp.mean(x)

    def forward(x):
        at = jnp.argmax(x)
        told = jnp.argmin(x) if wrong == "index" else at
        sign = (jnp.max(x) > 0) ^ (wrong == "sign")
        return (jnp.max(x), told, sign, jnp.mean(x) + (wrong == "mean")), (at, jnp.zeros_like(x))

    def backward(residuals, p):
        at, zero = residuals
        return (zero.at[at].set(p[0]) + p[3] / zero.size,)

    largest.defvjp(forward, backward)
    return largest


@pytest.mark.parametrize("wrong", ["", "index", "sign", "mean"])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_a_forward_pass_with_another_index_is_refuted(wrong, dtype):
    """Central differences of the values are the oracle: the gradient is that of another program."""
    x, t = (jnp.asarray(np.random.default_rng(s).normal(size=6), dtype) for s in (0, 1))

    def loss(x, t):
        value, at, sign, mean = best(wrong)(x)
        held = jax.lax.stop_gradient(mean)
        return value**2 + t[at] ** 2 + jnp.where(sign, 1.0, 2.0) * jnp.sum(x) * (1 + (held > 0.5))

    found = hj.verify(loss, x, t)
    assert found.verdict == ("refuted" if wrong else "exact")
    assert not wrong or "forward pass returns other values" in str(found)
    step = 1e-3 * jnp.eye(6, dtype=dtype)
    slope = jnp.asarray([(loss(x + h, t) - loss(x - h, t)) / 2e-3 for h in step])
    wide = lambda a: np.asarray(a, float)
    off = np.max(np.abs(wide(jax.grad(loss)(x, t)) - wide(slope)))
    assert wrong == "index" or (off > 0.1) == bool(wrong)


def test_an_output_that_is_not_read_may_differ():
    x = jnp.asarray([0.3, -1.2, 0.7])
    assert hj.verify(lambda x: best("index")(x)[0] ** 2, x).verdict == "exact"


@pytest.mark.parametrize(("apart", "verdict"), [(0.0, "exact"), (1e-3, "refuted")])
def test_an_index_that_roundoff_moves_is_no_other_value(apart, verdict):
    """A sum in two orders, which differ in the last digit: which one is larger is roundoff's. Twin: they
    differ by more, and the other index is another value."""
    first = lambda x: (x[0] + x[1]) + x[2]
    second = lambda x: x[0] + (x[1] + x[2]) + apart
    assert float(first(np.array([0.1, 0.2, 0.3]))) != float(second(np.array([0.1, 0.2, 0.3])))

    @jax.custom_vjp
    def two(x):
        return jnp.sum(x**2), jnp.argmax(jnp.stack([first(x), second(x)]))

    def forward(x):
        return (jnp.sum(x**2), jnp.argmin(jnp.stack([first(x), second(x)]))), x

    two.defvjp(forward, lambda x, p: (2 * p[0] * x,))

    def loss(x):
        value, at = two(x)
        return value * (1.0 + 0.0 * at)

    assert hj.verify(loss, jnp.array([0.1, 0.2, 0.3])).verdict == verdict

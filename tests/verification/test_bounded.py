"""Loops restated as scans: the same values, and reverse mode's derivative of them."""

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest

import hjcontrol as hj
from hjcontrol.verification.bounded import BYTES, bounded, lengths


def collatz(n, x):
    """Steps of Collatz from `n`, each of them a product with `x`."""
    even = lambda n: n // 2
    odd = lambda n: 3 * n + 1
    step = lambda c: (jax.lax.cond(c[0] % 2 == 0, even, odd, c[0]), c[1] * x)
    return jax.lax.while_loop(lambda c: c[0] > 1, step, (n, jnp.ones_like(x)))[1]


@pytest.mark.parametrize(("n", "steps"), [(1, 0), (6, 8), (27, 111)])
def test_steps_are_counted_and_the_derivative_is_that_of_a_power(n, steps):
    args = [jnp.asarray(n), jnp.array([0.99, 1.01])]
    closed = jax.make_jaxpr(collatz)(*args)
    assert lengths(closed, args) == (steps,)
    restated = bounded(closed, (steps,), args)
    value = lambda x: jnp.sum(jax.extend.core.jaxpr_as_fun(restated)(args[0], x)[0])
    np.testing.assert_allclose(value(args[1]), np.sum(np.asarray(args[1]) ** steps), rtol=1e-12)
    expected = steps * np.asarray(args[1]) ** (steps - 1.0)
    np.testing.assert_allclose(jax.grad(value)(args[1]), expected, rtol=1e-12)


def test_the_longest_of_a_loop_inside_a_scan_is_kept():
    fn = lambda ns, x: jax.lax.map(lambda n: collatz(n, x), ns)
    args = [jnp.asarray([1, 27, 6]), jnp.ones(2)]
    closed = jax.make_jaxpr(fn)(*args)
    assert lengths(closed, args) == (111,)
    restated = bounded(closed, (111,), args)
    assert not any(e.primitive.name == "while" for e in restated.jaxpr.eqns)


def test_too_many_steps_to_keep():
    size = BYTES // 8 // 50
    args = [jnp.asarray(27), jnp.ones(size)]
    assert lengths(jax.make_jaxpr(collatz)(*args), args) is None


@pytest.mark.parametrize("factor", [1.0, 3.0])
def test_a_loop_whose_derivative_is_not_finite_has_nothing_to_compare(factor):
    """|x|^(1/2) of zero, squared: the values and the rule are finite, the loop's derivative is not."""

    def value(x):
        root = lambda c: (c[0] + 1, jnp.sqrt(jnp.abs(c[1])) ** 2)
        return jax.lax.while_loop(lambda c: c[0] < 3, root, (0, x))[1]

    made = jax.custom_vjp(value)
    made.defvjp(lambda x: (value(x), x), lambda x, p: (factor * p,))
    found = hj.verify(lambda x: jnp.sum(made(x)), jnp.zeros(2))
    assert found.verdict == "untested", str(found)
    assert not found

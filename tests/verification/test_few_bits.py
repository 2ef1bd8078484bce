"""Places that compute in 16 bits: kinks, forward values and rounding rules, asked in 64."""

import jax
import jax.numpy as jnp
import optax
import pytest

import hjcontrol as hj
from tests.verification.cases import rule

BOTH = pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
SMOOTH = jnp.asarray([1.0, -2.0, 0.5])
OF_JAX = {
    "relu": jax.nn.relu,
    "softplus": jax.nn.softplus,
    "log_sigmoid": jax.nn.log_sigmoid,
    "tie": lambda x: jnp.logaddexp(x, x),
    "cross entropy": lambda x: optax.sigmoid_binary_cross_entropy(x, jnp.ones_like(x)),
}


@BOTH
@pytest.mark.parametrize("name", OF_JAX)
def test_a_kink_or_a_tie_at_zero_is_no_fault(name, dtype):
    found = hj.verify(lambda x: jnp.sum(OF_JAX[name](x)), jnp.asarray([0.0, 1.0, -1.0], dtype))
    assert found, str(found)


@BOTH
@pytest.mark.parametrize(("at_zero", "above", "holds"), [(0.3, 1, 1), (1.3, 1, 0), (0, 1.5, 0)])
def test_a_rule_at_a_kink_lies_between_the_slopes(at_zero, above, holds, dtype):
    slope = lambda x: jnp.where(x > 0, above, jnp.where(x == 0, at_zero, 0)).astype(dtype)
    relu = rule(lambda x: jnp.maximum(x, 0), lambda r, p: (p * slope(r[0]),))
    found = hj.verify(lambda x: jnp.sum(relu(x)), jnp.asarray([0.0, 1.0, -1.0], dtype))
    assert bool(found) == bool(holds), str(found)


@BOTH
@pytest.mark.parametrize("factor", [1.0, 1.05, 1.3])
def test_a_forward_pass_that_returns_other_values(factor, dtype):
    forward = lambda x: ((factor * jnp.tanh(x)).astype(dtype), x)
    made = rule(jnp.tanh, lambda x, p: (p / jnp.cosh(x) ** 2,), forward)
    found = hj.verify(lambda x: jnp.sum(made(x) ** 2), SMOOTH.astype(dtype))
    assert found.verdict == ("exact" if factor == 1 else "refuted"), str(found)


@BOTH
@pytest.mark.parametrize("shift", [0.0, 0.3])
def test_an_identity_of_few_bits_inside_single_precision(shift, dtype):
    same = rule(lambda x: x, lambda x, p: (p,), lambda x: (x + jnp.asarray(shift, x.dtype), x))
    fn = lambda x: jnp.sum(same(x.astype(dtype)).astype(jnp.float32) ** 2)
    found = hj.verify(fn, SMOOTH.astype(jnp.float32))
    assert found.verdict == ("exact" if shift == 0 else "refuted"), str(found)


def test_a_rule_whose_square_overflows_is_not_exact():
    back = lambda r, p: (p * r[0] / jnp.sqrt(1 + r[0] * r[0]),)
    made = rule(lambda x: jnp.hypot(jnp.ones_like(x), x), back)
    assert hj.verify(lambda x: jnp.sum(made(x)), jnp.asarray([1.0, 30.0], jnp.float16))
    found = hj.verify(lambda x: jnp.sum(made(x)), jnp.asarray([1.0, 300.0], jnp.float16))
    assert found.verdict == "consistent"
    assert not found

"""Costs in units that are far from one: the rule is judged at the costate that really arrives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hjcontrol as hj
from tests.verification.cases import rule, tanh

x = np.linspace(0.3, 1.7, 6)
slope = lambda x: 1 - jnp.tanh(x) ** 2


def squaring(r, p):
    """The costate's length is taken out of it, and put back."""
    length = jnp.sqrt(jnp.sum(p * p))
    return (p / jnp.where(length > 0, length, 1) * length * slope(r[0]),)


asking = lambda bound: lambda r, p: (jnp.where(jnp.abs(p) < bound, 0, p * slope(r[0])),)
by_tiny_steps = lambda r, p: ((p * 1e-150) * slope(r[0]) * 1e150,)
cubing = lambda r, p: (jnp.cbrt(p * p * p) * slope(r[0]),)

LOSING = {
    "squares": (squaring, 1e-200),
    "squares large": (squaring, 1e180),
    "asks": (asking(1e-100), 1e-150),
    "asks nearby": (asking(1e-30), 1e-40),
    "in steps": (by_tiny_steps, 1e-200),
    "cubes": (cubing, 1e-120),
}


def cost(f, unit):
    return lambda x: unit * jnp.sum(f(x) ** 2)


@pytest.mark.parametrize("name", LOSING)
def test_a_rule_that_loses_the_true_costate_is_refuted(name):
    bwd, unit = LOSING[name]
    f = rule(jnp.tanh, bwd, name="losing")
    found = hj.verify(cost(f, unit), x)
    assert found.verdict in ("refuted", "undefined"), found
    assert hj.verify(cost(f, 1.0), x).verdict == "exact"
    assert not np.allclose(found.gradient, jax.grad(cost(jnp.tanh, unit))(x), rtol=1e-3, atol=0)


@pytest.mark.parametrize("unit", [1e-290, 1e-250, 1e-200, 1e-120, 1e-60, 1e60, 1e120, 1e200, 1e290])
def test_a_right_rule_is_exact_in_any_unit_and_a_wrong_one_refuted(unit):
    assert hj.verify(cost(tanh(1.0), unit), x).verdict == "exact"
    assert hj.verify(cost(tanh(1.01), unit), x).verdict == "refuted"


@pytest.mark.parametrize("unit", [1e-42, 1e-36, 1e-30, 1e30])
def test_a_right_rule_in_single_precision(unit):
    single = jnp.asarray(x, jnp.float32)
    assert hj.verify(cost(tanh(1.0), jnp.float32(unit)), single).verdict == "exact"
    assert hj.verify(cost(tanh(1.01), jnp.float32(unit)), single).verdict == "refuted"


def test_where_the_derivative_underflows_too_the_rule_is_not_to_blame():
    """`exp(-300 x)`: its derivative times 1e-200 is no normal number for most elements."""
    decay = lambda x: jnp.exp(-300 * x)
    f = rule(decay, lambda r, p: (-300 * p * decay(r[0]),))
    assert hj.verify(lambda x: 1e-200 * jnp.sum(f(x)), x).verdict == "exact"


def test_the_iterations_of_a_scan_that_lose_it_are_tried_first():
    """The costate shrinks from step to step, and the rule asks for it at the last of twenty."""

    def run(f):
        step = lambda c, _: (1e-13 * f(c), None)
        return lambda x: jnp.sum(jax.lax.scan(step, x, length=20)[0])

    assert hj.verify(run(rule(jnp.tanh, asking(1e-230))), x).verdict == "refuted"
    assert hj.verify(run(tanh(1.0)), x).verdict == "exact"


@pytest.mark.parametrize(
    "kind", [jnp.bfloat16, jnp.float16, jnp.complex128], ids=lambda d: d.__name__
)
def test_costates_of_other_kinds(kind):
    """An unusual cost around values of few bits, and around complex ones."""
    unit = 1e-150 if kind is jnp.complex128 else 1.0
    at = jnp.asarray(x, kind)

    def run(f):
        return lambda x: unit * jnp.sum(jnp.abs(f(x)).astype(float) ** 2)

    assert hj.verify(run(tanh(1.0)), at).verdict == "exact"
    assert hj.verify(run(tanh(1.25)), at).verdict == "refuted"

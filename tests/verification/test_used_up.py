"""Rules that a derivative inside the function has used up are told, however they were traced."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hjcontrol as hj
from tests.verification.cases import tanh

x = np.linspace(0.3, 1.7, 6)
square = lambda a: jnp.sum(a**2)


def by_vjp():
    return tanh(1.01)


def by_jvp():
    @jax.custom_jvp
    def sine(x):
        return jnp.sin(x)

    sine.defjvp(lambda at, v: (jnp.sin(at[0]), 1.01 * jnp.cos(at[0]) * v[0]))
    return sine


def by_equinox():
    @eqx.filter_custom_vjp
    def sine(x):
        return jnp.sin(x)

    sine.def_fwd(lambda perturbed, x: (jnp.sin(x), None))
    sine.def_bwd(lambda residuals, p, perturbed, x: 1.01 * p * jnp.cos(x))
    return sine


def by_equinox_jvp():
    @eqx.filter_custom_jvp
    def sine(x):
        return jnp.sin(x)

    sine.def_jvp(lambda at, v: (jnp.sin(at[0]), 1.01 * v[0] * jnp.cos(at[0])))
    return sine


def by_custom_gradient():
    @jax.custom_gradient
    def sine(x):
        return jnp.sin(x), lambda p: 1.01 * p * jnp.cos(x)

    return sine


RULES = [by_vjp, by_jvp, by_equinox, by_equinox_jvp, by_custom_gradient]
in_a_scan = lambda f: lambda x: jax.lax.scan(lambda c, _: (f(c), None), x, length=2)[0]
WITHIN = {
    "plain": lambda f: f,
    "jit": jax.jit,
    "checkpoint": jax.checkpoint,
    "vmap": jax.vmap,
    "scan": in_a_scan,
}


def told(certificate):
    assert certificate.verdict == "untested"
    assert not certificate
    assert any("dissolved" in note for note in certificate.notes)


@pytest.mark.parametrize("before", [False, True], ids=["fresh", "traced before"])
@pytest.mark.parametrize("within", WITHIN)
@pytest.mark.parametrize("make", RULES)
def test_a_rule_used_up_inside_a_function_is_told(make, within, before):
    inner = WITHIN[within](make())
    gradient = jax.jit(jax.grad(lambda y: square(inner(y))))
    if before:
        gradient(x)
    told(hj.verify(lambda x: square(gradient(x)), x))
    told(hj.verify(lambda x: square(3 * gradient(x)), x))  # traced by the witness itself


@pytest.mark.parametrize("within", WITHIN)
@pytest.mark.parametrize("f", [jax.nn.relu, jax.nn.softmax, jnp.tanh], ids=lambda f: f.__name__)
def test_derivatives_of_jax_s_own_are_no_rules(f, within):
    inner = WITHIN[within](f) if f is not jax.nn.softmax or within != "vmap" else f
    gradient = jax.jit(jax.grad(lambda y: square(inner(y))))
    gradient(x)
    found = hj.verify(lambda x: square(gradient(x)), x)
    assert found
    assert not any("dissolved" in note for note in found.notes)


def test_a_rule_that_is_called_outside_of_the_derivative_too_is_tried_there():
    f = by_vjp()
    gradient = jax.jit(jax.grad(lambda y: square(jax.jit(f)(y))))
    gradient(x)
    found = hj.verify(lambda x: square(gradient(jnp.cos(x))) + square(f(x)), x)
    assert found.verdict == "refuted"


def test_a_derivative_inside_takes_nothing_from_a_right_rule_beside_it():
    right = tanh(1.0)
    gradient = jax.jit(jax.grad(lambda y: square(jnp.sin(y))))
    gradient(x)
    assert hj.verify(lambda x: square(gradient(x)) + square(right(x)), x).verdict == "exact"


def test_a_rule_of_the_same_name_elsewhere_does_not_hide_it():
    """Both are called `sine`, and this one is not seen to be differentiated, for it is jitted."""
    inner = jax.jit(by_custom_gradient())

    @jax.custom_jvp
    def sine(x):
        return jnp.sin(x)

    sine.defjvp(lambda at, v: (jnp.sin(at[0]), jnp.cos(at[0]) * v[0]))
    gradient = jax.jit(jax.grad(lambda y: square(inner(y))))
    told(hj.verify(lambda x: square(gradient(x)) + square(sine(x)), x))


def descent(f):
    gradient = jax.jit(jax.grad(lambda y: square(f(y))))
    gradient(x)
    return lambda x: x - 0.1 * gradient(x)


@pytest.mark.parametrize("make", [by_vjp, by_equinox])
def test_a_rule_used_up_inside_a_stage_is_told(make):
    inputs = np.stack([x, x[::-1]])
    found = hj.verify([descent(make()), jnp.sin], inputs=inputs, cost=square)
    told(found)
    assert hj.verify([descent(jnp.sin), jnp.sin], inputs=inputs, cost=square)

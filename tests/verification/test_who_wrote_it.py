"""Whose derivative is judged: primitives that are not JAX's, rules that a container calls."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

import hjcontrol as hj
from hjcontrol.verification.authorship import foreign
from hjcontrol.verification.program import called_with
from tests.verification.cases import rule, tanh

at = np.linspace(0.3, 1.7, 6)
off = pytest.mark.parametrize("factor", [1.0, 1.01])
total = lambda f: lambda x: jnp.sum(f(x) ** 2)


def primitive(name, values, jvp=None, transpose=None):
    """A primitive of the user's own, with its own derivative."""
    found = Primitive(name)
    found.def_impl(values)
    found.def_abstract_eval(lambda a: a)
    mlir.register_lowering(found, mlir.lower_fun(values, multiple_results=False))
    batching.defvectorized(found)
    if transpose is None:
        ad.defjvp(found, jvp)
    else:
        ad.deflinear2(found, transpose)
    return found.bind


def by_jvp(factor):
    return primitive("own_sine", jnp.sin, jvp=lambda v, x: factor * v * jnp.cos(x))


def by_transpose(factor):
    return primitive("thrice", lambda x: 3 * x, transpose=lambda p, x: [3 * factor * p])


def named_as_jax(factor):
    return primitive("sin", jnp.sin, jvp=lambda v, x: factor * v * jnp.cos(x))


def inside_a_scan(factor):
    f = by_jvp(factor)
    return lambda x: jax.lax.scan(lambda c, _: (f(c), None), x, length=2)[0]


def inside_jit_and_remat(factor):
    return jax.jit(jax.checkpoint(by_transpose(factor)))


def inside_a_map(factor):
    return jax.vmap(by_jvp(factor))


def complex_values(factor):
    f = primitive("square", lambda z: z * z, jvp=lambda v, z: 2 * factor * z * v)
    return lambda x: jnp.abs(f(x + 1j * x[::-1]))


def without_an_implementation(factor):
    """Only a lowering: the derivative alone is the user's."""
    found = Primitive("lowered")
    found.def_abstract_eval(lambda a: a)
    mlir.register_lowering(found, mlir.lower_fun(jnp.sin, multiple_results=False))
    ad.defjvp(found, lambda v, x: factor * v * jnp.cos(x))
    return jax.jit(found.bind)


PRIMITIVES = [
    by_jvp,
    by_transpose,
    named_as_jax,
    inside_a_scan,
    inside_jit_and_remat,
    inside_a_map,
    complex_values,
    without_an_implementation,
]


@off
@pytest.mark.parametrize("make", PRIMITIVES)
def test_a_foreign_primitive_is_judged_by_its_values(make, factor):
    found = hj.verify(total(make(factor)), at)
    assert found.verdict == ("consistent" if factor == 1 else "refuted")
    assert {row.kind for row in found.rows} == {"primitive"}


@off
def test_a_foreign_primitive_forward_only(factor):
    found = hj.verify(total(by_jvp(factor)), at, costate="random")
    assert found.verdict == ("consistent" if factor == 1 else "refuted")


@off
def test_a_rule_over_a_foreign_primitive_is_not_judged_by_its_derivative(factor):
    """The rule and the primitive's own derivative are off alike."""
    f = by_jvp(factor)
    outer = rule(lambda x: 2 * f(x), lambda r, p: (2 * factor * p * jnp.cos(r[0]),), name="outer")
    found = hj.verify(total(outer), at)
    assert found.verdict == ("consistent" if factor == 1 else "refuted")
    assert found.rows[0].rule == "outer"


@off
@pytest.mark.parametrize("make", [by_jvp, by_transpose])
def test_a_foreign_primitive_in_a_stage(make, factor):
    stages, inputs = [make(factor), jnp.sin], np.stack([at, at[::-1]])
    found = hj.verify(stages, inputs=inputs, cost=lambda y: jnp.sum(y**2))
    assert found.verdict == ("consistent" if factor == 1 else "refuted")


@off
def test_a_derivative_that_the_user_gave_to_a_primitive_of_jax(factor, monkeypatch):
    monkeypatch.setitem(
        ad.primitive_jvps,
        jax.lax.erf_inv_p,
        lambda x, v: (
            jax.lax.erf_inv(*x),
            factor * v[0] * jnp.exp(jax.lax.erf_inv(*x) ** 2) * np.sqrt(np.pi) / 2,
        ),
    )
    found = hj.verify(lambda x: jnp.sum(jax.lax.erf_inv(x / 2)), at)
    assert found.verdict == ("consistent" if factor == 1 else "refuted")


def test_no_primitive_of_jax_or_a_known_library_is_foreign():
    known = {*ad.primitive_jvps, *ad.primitive_transposes}
    ours = {"own_sine", "thrice", "sin", "square", "lowered"}
    assert len(known) > 100
    assert [p for p in known if foreign(p) and p.name not in ours] == []


# ------------------------------------------------------------------ rules in a library's container


def by_vjp_rule(factor):
    return tanh(factor, "own")


def by_jvp_rule(factor):
    @jax.custom_jvp
    def double(x):
        return jnp.sin(x)

    double.defjvp(lambda x, v: (jnp.sin(x[0]), factor * jnp.cos(x[0]) * v[0]))
    return double


def by_equinox(factor):
    @eqx.filter_custom_vjp
    def sine(x):
        return jnp.sin(x)

    sine.def_fwd(lambda perturbed, x: (jnp.sin(x), None))
    sine.def_bwd(lambda residuals, p, perturbed, x: factor * p * jnp.cos(x))
    return sine


def by_custom_gradient(factor):
    @jax.custom_gradient
    def sine(x):
        return jnp.sin(x), lambda p: factor * p * jnp.cos(x)

    return sine


def in_linen(f):
    linen = pytest.importorskip("flax.linen")
    net = linen.Sequential([f])
    return lambda x: net.apply({}, x)


def in_haiku(f):
    haiku = pytest.importorskip("haiku")
    net = haiku.transform(lambda x: haiku.Sequential([f])(x))
    return lambda x: net.apply({}, None, x)


@off
@pytest.mark.parametrize("container", [in_linen, in_haiku])
@pytest.mark.parametrize("make", [by_vjp_rule, by_jvp_rule, by_equinox, by_custom_gradient, by_jvp])
def test_a_users_rule_is_the_users_in_any_container(container, make, factor):
    """Off only where no costate of this cost arrives: the random one refutes it, if it is the user's."""
    net = container(make(np.where(at > 0.5, factor, 1.0)))
    right = "consistent" if make is by_jvp else "exact"
    found = hj.verify(lambda x: net(x)[0] ** 2, at)
    assert found.verdict == (right if factor == 1 else "refuted")


def test_a_rule_of_jax_in_a_container_is_the_container_s():
    def owners(f):
        call = called_with(lambda x: jnp.sum(in_linen(f)(x)), (at,), lambda path: True)
        return {place.library for place in call.program.places.values()}

    assert owners(jax.nn.relu) == {"flax"}
    assert owners(tanh(1.0)) == {""}

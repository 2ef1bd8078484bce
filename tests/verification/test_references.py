"""Rules whose values are kept in a mutable array: `jax.new_ref`, written, read, frozen, looped over."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hjcontrol as hj
from tests.verification.cases import sine

RIGHT, WRONG = 1.0, 3.0
X = jnp.asarray([0.3, 0.6, 0.9, 1.2])


def assigned(g, x):
    ref = jax.new_ref(jnp.zeros(4))
    ref[...] = g(x)
    return ref[...]


def frozen(g, x):
    ref = jax.new_ref(jnp.zeros(4))
    ref[1:] = g(x[1:])
    return jax.freeze(ref)


def added(g, x):
    ref = jax.new_ref(x)
    jax.ref.addupdate(ref, slice(None), g(x))
    return ref[...]


def swapped(g, x):
    ref = jax.new_ref(jnp.zeros(4))
    ref[...] = g(x)
    return jax.ref.swap(ref, slice(None), jnp.zeros(4))


def jitted(g, x):
    ref = jax.new_ref(jnp.zeros(4))

    @jax.jit
    def write(ref, x):
        ref[...] = g(x)

    write(ref, x)
    return ref[...]


def scanned(g, x):
    ref = jax.new_ref(jnp.zeros(4))

    def body(c, i):
        ref[i] = g(x[i]) + c
        return c / 2, None

    jax.lax.scan(body, 1.0, jnp.arange(4))
    return ref[...]


def read_before_it_is_written(g, x):
    ref = jax.new_ref(x)

    def body(i, c):
        ref[...] = g(ref[...])
        return c

    jax.lax.fori_loop(0, 2, body, 0)
    return ref[...]


def branched(g, x):
    ref = jax.new_ref(jnp.zeros(4))

    def write():
        ref[...] = g(x)

    jax.lax.cond(x[0] > 0, write, lambda: None)
    return ref[...]


def mapped(g, x):
    def one(x):
        ref = jax.new_ref(0.0)
        ref[...] = g(x)
        return ref[...]

    return jax.vmap(one)(x)


KEPT = (
    assigned,
    frozen,
    added,
    swapped,
    jitted,
    scanned,
    read_before_it_is_written,
    branched,
    mapped,
)


def cost(kept, factor):
    g = sine(factor)
    return lambda x: jnp.sum(kept(g, x) ** 2)


@pytest.mark.parametrize("kept", KEPT)
def test_a_rule_whose_values_are_written_into_a_ref_is_a_place(kept):
    right = hj.verify(cost(kept, RIGHT), X)
    assert right.verdict == "exact"
    assert right
    assert right.rows
    wrong = hj.verify(cost(kept, WRONG), X)
    assert wrong.verdict == "refuted"
    assert {row.rule.split(".")[-1] for row in wrong.rows} == {"sine"}


def test_the_gradient_beside_the_certificate_is_that_of_the_values():
    found = hj.verify(cost(assigned, RIGHT), X).gradient  # of sum sin^2
    np.testing.assert_allclose(found, np.sin(2 * np.asarray(X)), rtol=1e-14)


def in_a_while(g, x):
    ref = jax.new_ref(x)

    def body(i):
        ref[...] = g(ref[...])
        return i + 1

    jax.lax.while_loop(lambda i: i < 2, body, 0)
    return ref[...]


def test_in_a_while_loop_it_is_found_by_random_costates():
    assert hj.verify(cost(in_a_while, RIGHT), X, costate="random").verdict == "exact"
    assert hj.verify(cost(in_a_while, WRONG), X, costate="random").verdict == "refuted"
    with pytest.raises(ValueError, match=r"verify: .* no backward pass"):
        hj.verify(cost(in_a_while, RIGHT), X)


def made_in_a_scan(g, x):
    def body(c, _):
        ref = jax.new_ref(jnp.zeros(4))
        ref[...] = g(c)
        return ref[...], None

    return jax.lax.scan(body, x, None, length=2)[0]


def under_checkpoint(g, x):
    ref = jax.new_ref(jnp.zeros(4))

    @jax.checkpoint
    def write(x):
        ref[...] = g(x)
        return 0.0

    return write(x) + ref[...]


@pytest.mark.parametrize("kept", [made_in_a_scan, under_checkpoint])
def test_where_jax_loses_the_derivative_of_a_ref_nothing_is_certified(kept):
    """If a JAX to come differentiates them, its gradient must be that of the values."""
    right = hj.verify(cost(kept, RIGHT), X)
    eps = 1e-6
    there = cost(kept, RIGHT)
    slope = float((there(X + eps) - there(X - eps)) / (2 * eps))
    lost = abs(float(jnp.sum(jax.grad(there)(X))) - slope) > 1e-4
    assert right.verdict == ("untested" if lost else "exact")
    assert not hj.verify(cost(kept, WRONG), X)


def test_a_ref_inside_a_rule_is_part_of_its_primal():
    def kept(factor):
        @jax.custom_vjp
        def sine(x):
            return assigned(jnp.sin, x)

        sine.defvjp(lambda x: (sine(x), x), lambda x, p: (factor * p * jnp.cos(x),))
        return lambda x: jnp.sum(sine(x) ** 2)

    assert hj.verify(kept(RIGHT), X).verdict == "exact"
    assert hj.verify(kept(WRONG), X).verdict == "refuted"


@pytest.mark.parametrize("factor", [RIGHT, WRONG])
def test_a_rule_that_reads_a_ref_from_outside_is_untested(factor):
    @jax.custom_vjp
    def scaled(ref, x):
        return ref[...] * jnp.sin(x)

    def backward(kept, p):
        size, x = kept
        return None, factor * p * size * jnp.cos(x)

    scaled.defvjp(lambda ref, x: (ref[...] * jnp.sin(x), (ref[...], x)), backward)
    found = hj.verify(lambda x: jnp.sum(scaled(jax.new_ref(jnp.ones(4)), x)), X)
    assert found.verdict == "untested"
    assert "new_ref" in found.rows[0].reason


@pytest.mark.parametrize("under", [lambda f: f, jax.jit])
def test_what_is_logged_in_a_ref_of_the_users_cuts_nothing_and_is_as_it_was(under):
    log, calls = jax.new_ref(jnp.full(4, 7.0)), jax.new_ref(0)

    def logged(factor):
        g = sine(factor)

        def fn(x):
            y = g(x)
            log[...] = jax.lax.stop_gradient(y)
            calls[...] += 1
            return jnp.sum(y**2) * calls[...]

        return under(fn)

    right = hj.verify(logged(RIGHT), X)
    assert right.verdict == "exact"
    assert right.cost == pytest.approx(float(jnp.sum(jnp.sin(X) ** 2)))
    assert hj.verify(logged(WRONG), X).verdict == "refuted"
    assert calls[...] == 0
    assert np.all(log[...] == 7.0)


INPUTS = jnp.linspace(-1.0, 1.0, 12).reshape(3, 4)


def of_list(stages):
    return hj.verify(stages, inputs=INPUTS, cost=lambda y: jnp.sum(y**2))


@pytest.mark.parametrize("kept", [assigned, scanned])
def test_stages_that_keep_values_in_a_ref(kept):
    stages = lambda factor: [lambda x: kept(sine(factor), x), lambda x: 2 * x]
    assert of_list(stages(RIGHT)).verdict == "exact"
    assert of_list(stages(WRONG)).verdict == "refuted"


class Layer(eqx.Module):
    weight: jax.Array
    factor: float = eqx.field(static=True)
    freezes: bool = eqx.field(static=True)

    def __call__(self, x):
        kept = frozen if self.freezes else assigned
        return kept(sine(self.factor), self.weight * x)


@pytest.mark.parametrize("factor", [RIGHT, WRONG])
def test_equal_stages_with_refs_are_never_certified_for_jax_scans_them_wrongly(factor):
    layer = Layer(jnp.ones(4), factor, False)
    found = of_list([layer, layer])
    assert not found
    assert found.verdict == ("untested" if factor == RIGHT else "refuted")


def test_equal_stages_that_jax_cannot_scan_are_refused_in_words():
    layer = Layer(jnp.ones(4), RIGHT, True)
    with pytest.raises(ValueError, match=r"verify: .*new_ref"):
        of_list([layer, layer])

"""Arguments of `hj.verify` that say nothing, and errors of the user's, told in words."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import io_callback

import hjcontrol as hj
from tests.verification.cases import sine

X = jnp.asarray([0.2, 0.5, 0.8])


def total(act):
    return lambda x: jnp.sum(act(x) ** 2)


@pytest.mark.parametrize("argnums", [(0, 0), (0, -2), (1, 0, 1)])
def test_an_argument_is_not_differentiated_twice(argnums):
    fn = lambda x, y: jnp.sum(sine(1.0)(x) * y)
    with pytest.raises(ValueError, match=r"verify: `argnums` names an argument twice"):
        hj.verify(fn, X, X, argnums=argnums)
    assert hj.verify(fn, X, X, argnums=(0, 1)).verdict == "exact"


@pytest.mark.parametrize("item", ["cosine", "test_refusals.py:1", np.sin])
def test_a_declaration_that_fits_no_rule_is_refused_with_the_names_there_are(item):
    with pytest.raises(
        ValueError, match=r"verify: `deliberate` names .* sine at test_refusals\.py:"
    ):
        hj.verify(total(sine(3.0)), X, deliberate=[item])
    stages = [sine(3.0)]
    with pytest.raises(ValueError, match=r"verify: `deliberate` names .* sine at cases\.py:"):
        hj.verify(stages, inputs=X[None], cost=jnp.sum, deliberate=[item])


def test_a_declaration_may_name_a_rule_that_is_right_or_not_run():
    """It declares nothing away: the other rule is still refuted."""
    right, wrong = sine(1.0), sine(3.0)

    def fn(x):
        never = jax.lax.cond(x[0] > 9, wrong, jnp.zeros_like, x)
        return jnp.sum(right(x) + never)

    assert hj.verify(fn, X, deliberate=["sine"]).verdict == "untested"
    assert hj.verify(total(right), X, deliberate=[right]).verdict == "exact"
    named = lambda x: jnp.sum(sine(3.0)(x)) + jnp.sum(clipped(x))
    assert hj.verify(named, X, deliberate=[clipped]).verdict == "refuted"


@jax.custom_vjp
def clipped(x):
    return jnp.tanh(x)


clipped.defvjp(lambda x: (jnp.tanh(x), x), lambda x, p: (2 * p / jnp.cosh(x) ** 2,))


def test_shapes_without_values_are_refused():
    with pytest.raises(TypeError, match=r"verify: .* found a `jax\.ShapeDtypeStruct`"):
        hj.verify(total(sine(1.0)), jax.ShapeDtypeStruct((3,), jnp.float64))


def test_an_error_of_the_user_s_is_cut_between_words():
    @jax.custom_vjp
    def misshapen(x):
        return jnp.sin(x)

    misshapen.defvjp(lambda x: (jnp.sin(x), x), lambda x, p: (jnp.zeros(7),))
    with pytest.raises(
        ValueError, match=r"float64\[7\].*shapes do not match\. Compare `jax\.grad`"
    ):
        hj.verify(total(misshapen), X)

    def endless(x):
        raise RuntimeError("word " * 500)

    with pytest.raises(ValueError, match=r"word word \.\.\. Write it"):
        hj.verify(endless, X)


def counting(host, factor, read):
    """A rule whose primal asks a host function that gives more at every call."""
    calls = [0]

    def more(a):
        calls[0] += 1
        return np.asarray(a) * (1 + 0.1 * calls[0])

    @jax.custom_vjp
    def counting(x):
        asked = lambda a: host(more, jax.ShapeDtypeStruct(a.shape, a.dtype), a)
        return jnp.sin(x) * asked(jax.lax.stop_gradient(x)) if read else asked(jnp.sin(x))

    counting.defvjp(lambda x: (counting(x), x), lambda x, p: (factor * p * jnp.cos(x),))
    return counting


@pytest.mark.parametrize("host", [io_callback, jax.pure_callback])
@pytest.mark.parametrize("read", [True, False])
@pytest.mark.parametrize("factor", [1.0, 3.0])
def test_a_host_function_that_is_not_pure_is_untested(host, read, factor):
    found = hj.verify(total(counting(host, factor, read)), X)
    assert found.verdict == "untested"
    assert "change from run to run" in found.rows[0].reason


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_a_host_function_that_is_pure_is_judged_by_its_values(dtype):
    def hosted(factor):
        @jax.custom_vjp
        def hosted(x):
            shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
            return jax.pure_callback(lambda a: np.sin(np.asarray(a)), shape, x)

        hosted.defvjp(lambda x: (hosted(x), x), lambda x, p: (factor * p * jnp.cos(x),))
        return total(hosted)

    right = hj.verify(hosted(1.0), X.astype(dtype))
    assert right.verdict == "consistent"
    assert right.rows[0].gap < (1e-12 if dtype == jnp.float64 else 1e-5)
    assert hj.verify(hosted(1.05), X.astype(dtype)).verdict == "refuted"

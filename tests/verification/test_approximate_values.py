"""Values that are approximate: series, ties, solves whose own derivative is cut, smoothed functions."""

import jax
import jax.numpy as jnp
import pytest
from jax.scipy.special import log_ndtr

import hjcontrol as hj

A = jnp.asarray([[2.0, 0.3, 0.1], [0.3, 1.5, 0.2], [0.1, 0.2, 1.0]])


def test_a_rule_of_jax_s_that_is_nearer_to_the_function_than_its_series():
    x = jnp.asarray([-24.0, -3.0, 0.5])
    found = hj.verify(lambda x: jnp.sum(log_ndtr(x)), x)
    assert found, str(found)
    assert found.verdict == "consistent"
    assert 0 < found.worst.gap < 1e-8

    @jax.custom_vjp
    def own(x):
        return log_ndtr(x)

    own.defvjp(
        lambda x: (own(x), x), lambda x, p: ((1 + 1e-8) * p * jax.vmap(jax.grad(log_ndtr))(x),)
    )
    assert hj.verify(lambda x: jnp.sum(own(x)), x).verdict == "refuted"


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize(("factor", "fine"), [(1.0, True), (1.001, False)])
def test_a_solve_whose_own_derivative_is_cut(factor, fine, dtype):
    """The values decide, in 64 bits also where the program has fewer."""

    def fn(A, b):
        known = jax.lax.stop_gradient
        solve = lambda _, b: jnp.linalg.solve(known(A), b)
        adjoint = lambda _, p: factor * jnp.linalg.solve(known(A.T), p)
        x = jax.lax.custom_linear_solve(lambda x: A @ x, b, solve, adjoint)
        return jnp.sum(x**2 * jnp.arange(1, 4, dtype=dtype))

    found = hj.verify(fn, A.astype(dtype), jnp.asarray([1, 2, -1], dtype))
    assert bool(found) == fine, str(found)
    assert found.verdict == ("consistent" if fine else "refuted")


def test_a_smoothed_function_is_detached_and_may_be_allowed():
    optax = pytest.importorskip("optax")
    hard = lambda x: jax.nn.one_hot(jnp.argmax(x), x.shape[-1])
    soft = optax.perturbations.make_perturbed_fun(hard, num_samples=20, sigma=0.5)
    fn = lambda x: jnp.sum(soft(jax.random.key(0), x) * jnp.arange(3.0))
    found = hj.verify(fn, jnp.asarray([0.1, 0.4, 0.2]))
    assert found.verdict == "detached", str(found)
    assert not found
    found.raise_for_verdict(allow=("detached",))

"""`hj.testing.assert_verified`: what is not shown fails the test, with the table as its message."""

import jax
import jax.numpy as jnp
import pytest

import hjcontrol as hj
from hjcontrol.networks import Dense

X = jnp.linspace(-1.0, 1.0, 6).reshape(2, 3)


def tanh(factor):
    @jax.custom_vjp
    def rule(x):
        return jnp.tanh(x)

    rule.defvjp(lambda x: (jnp.tanh(x), x), lambda x, p: (factor * p * (1 - jnp.tanh(x) ** 2),))
    return rule


def loss(factor, head=1.0):
    return lambda x: head * jnp.sum(tanh(factor)(x) ** 2)


def test_a_right_rule_passes_and_its_twin_fails_with_the_table():
    assert hj.testing.assert_verified(loss(1.0), X).verdict == "exact"
    with pytest.raises(hj.VerificationError, match=r"(?s)refuted.*test_testing\.py") as error:
        hj.testing.assert_verified(loss(1.01), X)
    assert isinstance(error.value, AssertionError)
    assert str(error.value).startswith("Certificate: refuted")


def test_both_costates_are_tried():
    certificate = hj.testing.assert_verified(loss(1.0), X)
    assert certificate.rows[0].reach > 0  # the one that arrives
    with pytest.raises(hj.VerificationError):
        hj.testing.assert_verified(loss(1.01, head=0.0), X)  # the random one alone can see it
    forward = hj.testing.assert_verified(loss(1.0), X, costate="random")
    assert forward.rows[0].reach is None


def test_detached_is_allowed_unless_told():
    cut = lambda x: jnp.sum((x - jax.lax.stop_gradient(jnp.max(x))) ** 2)
    assert hj.testing.assert_verified(cut, X).verdict == "detached"
    with pytest.raises(hj.VerificationError, match="detached"):
        hj.testing.assert_verified(cut, X, allow=())


def test_the_tolerance_is_of_what_is_consistent_and_leaves_a_chain_its_own():
    near = jax.custom_vjp(lambda x: jnp.tanh(x).astype(jnp.float64))
    near.defvjp(
        lambda x: (jnp.tanh(x), x),
        lambda x, p: ((p * (1 - jnp.tanh(x) ** 2)).astype(jnp.bfloat16).astype(x.dtype),),
    )
    rounded = lambda x: jnp.sum(near(x) ** 2)
    assert hj.testing.assert_verified(rounded, X, tol=0.1).verdict == "consistent"
    with pytest.raises(hj.VerificationError, match="consistent"):
        hj.testing.assert_verified(rounded, X)
    problem = hj.ControlProblem([Dense(3, 2)], X, terminal=lambda z: jnp.sum(z**2))
    weights = problem.init(jax.random.key(0))
    found = hj.testing.assert_verified(problem, weights, tol=0.1)
    assert found.tol == hj.verify(problem, weights).tol


@pytest.mark.parametrize("tol", [0, -1.0, float("nan"), float("inf"), "1e-6", True])
@pytest.mark.usefixtures("unchecked")
def test_a_tolerance_that_is_none_is_refused(tol):
    with pytest.raises(ValueError, match="assert_verified: `tol` must be positive"):
        hj.testing.assert_verified(loss(1.0), X, tol=tol)


@pytest.mark.usefixtures("unchecked")
def test_a_verdict_that_does_not_exist_is_refused_before_anything_is_traced():
    for allow in ("detached", ("detatched",)):
        with pytest.raises(ValueError, match="allow: verdicts of"):
            hj.testing.assert_verified(None, allow=allow)

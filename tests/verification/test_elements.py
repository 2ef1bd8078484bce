"""Which element is wrong: the user's index where the rule reads the argument, else the rule's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hjcontrol as hj

X = jnp.linspace(0.1, 1.2, 12)


@jax.custom_vjp
def spoilt(x):
    return jnp.sin(x)


def _backward(x, p):
    right = p * jnp.cos(x)
    return (right.at[(1,) * x.ndim].multiply(3.0),)


spoilt.defvjp(lambda x: (jnp.sin(x), x), _backward)


def located(fn, x=X):
    row = hj.verify(fn, x).worst
    assert row.verdict == "refuted"
    assert row.index == (1,) * len(row.shape)
    return row.location


@pytest.mark.parametrize(
    "read",
    [
        lambda x: x,
        lambda x: x.reshape(12),
        lambda x: jax.jit(lambda x: x)(x),
    ],
    ids=["itself", "reshaped to its own shape", "jitted"],
)
def test_an_element_of_an_argument_that_is_read_as_it_is(read):
    assert located(lambda x: jnp.sum(spoilt(read(x)))) == "x[1]"


@pytest.mark.parametrize(
    "read",
    [
        lambda x: x[6:],
        lambda x: jax.jit(lambda x: x[6:])(x),
        lambda x: jax.lax.dynamic_slice(x, (6,), (3,)),
        lambda x: jnp.broadcast_to(x[3], (4,)),
    ],
    ids=["sliced", "sliced in jit", "sliced at a number", "broadcast"],
)
def test_an_element_of_an_argument_that_was_moved_is_the_rule_s_own(read):
    found = located(lambda x: jnp.sum(spoilt(read(x))))
    assert found == "x, element (1,) of the rule's input"


def test_a_transposed_argument_and_one_that_is_scanned():
    square = X[:9].reshape(3, 3)
    assert located(lambda x: jnp.sum(spoilt(x.T)), square) == (
        "x, element (1, 1) of the rule's input"
    )
    scanned = lambda x: jnp.sum(jax.lax.map(spoilt, x))
    assert located(scanned, square).endswith("x, element (1,) of the rule's input")


def test_a_row_that_is_read_by_its_number_has_the_rule_s_argument():
    rows = np.asarray([2, 0])
    assert located(lambda x: jnp.sum(spoilt(x[rows])), X.reshape(3, 4)) == "argument 0[1, 1]"

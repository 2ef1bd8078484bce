"""Kinks of several elements: each output may take a side of its own, and all of them together must be a
slope of the values."""

import jax
import jax.numpy as jnp
import pytest

import hjcontrol as hj
from tests.verification.cases import rule

X = jnp.array([0.3, -1.0, 2.0])


def shares(first, second):
    """The maximum of two, whose tie gives these shares."""

    def back(r, p):
        a, b = r
        at = lambda a, b, tie: jnp.where(a > b, 1.0, jnp.where(a == b, tie, 0.0))
        return p * at(a, b, first), p * at(b, a, second)

    return rule(jnp.maximum, back)


@pytest.mark.parametrize(
    ("first", "second", "holds"),
    [(0.5, 0.5, True), (1, 0, True), (0.3, 0.7, True), (1, 1, False), (1, 0.5, False)],
)
def test_the_shares_of_a_tie_add_up_to_one(first, second, holds):
    found = hj.verify(lambda x: jnp.sum(shares(first, second)(x, 1.0 * x)), X)
    assert bool(found) is holds, str(found)
    assert found.verdict == ("exact" if holds else "refuted")


@pytest.mark.parametrize(
    ("slope", "holds"),
    [
        (lambda x: x == x.max(), False),
        (lambda x: jnp.arange(x.size) == jnp.argmax(x), True),
        (lambda x: (x == x.max()) / jnp.sum(x == x.max()), True),
    ],
    ids=["all", "first", "shared"],
)
def test_the_largest_of_equal_entries(slope, holds):
    largest = rule(lambda x: x.max(), lambda r, p: (p * slope(r[0]),))
    assert bool(hj.verify(lambda s: largest(s * jnp.ones(3)), 2.0)) is holds


@pytest.mark.parametrize(("second", "holds"), [(-1.0, True), (1.0, False)])
def test_a_distance_of_equal_numbers(second, holds):
    sign = lambda a, b: jnp.where(a >= b, 1.0, -1.0)
    away = rule(
        lambda a, b: jnp.abs(a - b),
        lambda r, p: (p * sign(*r), second * p * jnp.where(r[0] == r[1], 1.0, sign(*r))),
    )
    found = hj.verify(lambda x: jnp.sum(away(x, 1.0 * x)), X)
    assert (found.verdict != "refuted") is holds, str(found)


@pytest.mark.parametrize(("at_zero", "holds"), [(0.0, True), (0.5, True), (0.9, False)])
def test_a_norm_at_zero_has_the_unit_ball(at_zero, holds):
    norm = rule(lambda x: jnp.sqrt(jnp.sum(x * x)), lambda r, p: (p * jnp.full(3, at_zero),))
    assert bool(hj.verify(norm, jnp.zeros(3))) is holds


@pytest.mark.parametrize(("factor", "holds"), [(1.0, True), (1.01, False)])
@pytest.mark.parametrize("zero", ["a row", "a column"])
def test_units_of_a_layer_with_nothing_in_take_sides_of_their_own(zero, factor, holds):
    def back(r, p):
        W, x = r
        d = p * (x @ W > 0)
        return x.T @ d, factor * d @ W.T

    layer = rule(lambda W, x: jnp.maximum(x @ W, 0), back)
    W, x = (jax.random.normal(jax.random.key(k), s) for k, s in enumerate([(4, 6), (3, 4)]))
    W, x = (W, x.at[1].set(0.0)) if zero == "a row" else (W.at[:, 2].set(0.0), x)
    found = hj.verify(lambda W, x: jnp.sum(jnp.sin(layer(W, x))), W, x, argnums=(0, 1))
    assert bool(found) is holds, str(found)

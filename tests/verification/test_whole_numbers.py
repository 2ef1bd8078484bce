"""Inputs that are whole numbers: tokens of a first stage, and indices that a place computes."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

import hjcontrol as hj
from hjcontrol.verification.arithmetic import noisy
from tests.verification.cases import sine

RIGHT, WRONG = 1.0, 3.0
TABLE = jnp.asarray([[0.3, -0.7], [1.1, 0.2], [-0.4, 0.9], [0.8, -1.3]])
TOKENS = jnp.asarray([[0, 1], [2, 3], [1, 1]])
LABELS = jnp.asarray([0, 3, 1])


class Embedding(eqx.Module):
    table: jax.Array
    act: Callable = eqx.field(static=True)

    def __call__(self, token):
        return self.act(self.table[token]).reshape(-1)


def of_list(act, tokens=TOKENS):
    stages = [Embedding(TABLE, act), jnp.tanh]
    return hj.verify(stages, inputs=tokens, cost=lambda y: jnp.sum((y - 0.3) ** 2))


@pytest.mark.parametrize("tokens", [TOKENS, LABELS, TOKENS.astype(jnp.uint8)])
def test_a_rule_behind_a_lookup_is_a_place_of_the_first_stage(tokens):
    right = of_list(sine(RIGHT), tokens)
    assert right.verdict == "exact"
    assert right
    wrong = of_list(sine(WRONG), tokens)
    assert wrong.verdict == "refuted"
    row = next(row for row in wrong.rows if row.verdict == "refuted")
    assert row.rule.split(".")[-1] == "sine"
    assert row.stage == 0


def test_a_library_s_relu_behind_a_lookup_is_exact_in_a_list_as_in_a_function():
    assert of_list(jax.nn.relu).verdict == "exact"

    def fn(model):
        return jnp.sum(jax.vmap(model)(TOKENS) ** 2)

    assert hj.verify(fn, Embedding(TABLE, jax.nn.relu)).verdict == "exact"


def test_a_first_stage_of_whole_numbers_has_the_user_s_name():
    assert "FromIntegers" not in str(of_list(sine(WRONG)))
    assert any(row.rule == "Embedding" for row in of_list(jnp.sin).rows)


def looked_up(factor):
    """A place that rounds an input of its own to an index."""

    @jax.custom_vjp
    def looked_up(table, at):
        return jnp.sin(table[jnp.floor(at + 1.0).astype(int)])

    def backward(kept, p):
        table, at = kept
        k = jnp.floor(at + 1.0).astype(int)
        return jnp.zeros_like(table).at[k].add(factor * p * jnp.cos(table[k])), jnp.zeros_like(at)

    looked_up.defvjp(lambda table, at: (looked_up(table, at), (table, at)), backward)
    at = jnp.asarray([0.0, 1.0, 2.0])
    return lambda table: jnp.sum(looked_up(table, at) ** 2)


def test_roundoff_moves_no_index_of_a_whole_number():
    """Otherwise the roundoff of a lookup is as large as its entries, and hides any rule."""
    assert hj.verify(looked_up(RIGHT), TABLE).verdict == "exact"
    assert hj.verify(looked_up(WRONG), TABLE).verdict == "refuted"


def test_roundoff_of_a_cast_between_floats_keeps_its_derivative():
    closed = jax.make_jaxpr(lambda x: x.astype(jnp.float32).astype(jnp.float64) ** 2)(3.0)
    slope = jax.grad(lambda x: noisy(closed, 1)(x)[0])(3.0)
    assert float(slope) == pytest.approx(6.0, rel=1e-5)

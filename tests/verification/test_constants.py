"""Constants of a program as a rule is handed them, and settings of the user's around it."""

import jax
import jax.numpy as jnp
import pytest
from jax.experimental.ode import odeint

import hjcontrol as hj
from tests.verification.cases import rule as ruled


def picked(factor):
    """One entry of a table, chosen by what is traced: its rule looks it up again."""
    at = lambda x: jnp.argmax(jnp.abs(x))
    return ruled(
        lambda x, table: x * table[at(x)], lambda r, p: (factor * p * r[1][at(r[0])], None)
    )


@pytest.mark.parametrize(("factor", "verdict"), [(1.0, "exact"), (1.01, "refuted")])
@pytest.mark.parametrize("costate", ["both", "random"])
def test_a_rule_that_indexes_a_constant_of_the_program(factor, verdict, costate):
    total = lambda x: jnp.sum(picked(factor)(x, jnp.asarray([0.5, 2.0, 1.5])) ** 2)
    found = hj.verify(total, jnp.asarray([0.3, -1.1, 0.7]), costate=costate)
    assert found.verdict == verdict


@pytest.mark.parametrize("factor", [1.0, 1.01])
def test_the_times_of_a_solve_of_jax_s_are_a_constant(factor):
    """Twin: the rule inside the dynamics off by 1 %, refuted by its own line."""
    sine = ruled(jnp.sin, lambda r, p: (factor * p * jnp.cos(r[0]),))
    W, y = jnp.asarray([[0.3, -0.5], [0.8, 0.1]]), jnp.asarray([0.4, -0.2])

    def final(W, y):
        times = jnp.asarray([0.0, 0.5, 1.0])
        return jnp.sum(odeint(lambda y, t, W: sine(W @ y), y, times, W) ** 2)

    found = hj.verify(final, W, y)
    assert found.verdict == ("consistent" if factor == 1 else "refuted")
    assert jnp.allclose(found.gradient[1], jax.jit(jax.grad(final, 1))(W, y), rtol=1e-12)


# ------------------------------------------------------------------ settings of the user's

SETTINGS = {
    "strict promotion": lambda: jax.numpy_dtype_promotion("strict"),
    "no transfers": lambda: jax.transfer_guard("disallow"),
}


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize(("factor", "verdict"), [(1.0, "exact"), (1.01, "refuted")])
def test_a_setting_for_the_user_s_own_code_is_none_for_ours(name, factor, verdict):
    sine = ruled(jnp.sin, lambda r, p: (factor * p * jnp.cos(r[0]),))
    x = jnp.asarray([[0.3, -1.1], [0.7, 0.2]])
    fn = lambda x: jnp.sum(jax.nn.softmax(sine(x)) ** 2)
    with SETTINGS[name]():
        found = hj.verify(fn, x)
    assert found.verdict == verdict

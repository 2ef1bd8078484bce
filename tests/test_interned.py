"""Functions made anew and alike are one: nothing is compiled again, and nothing stale is used."""

import gc
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hjcontrol as hj
from hjcontrol._ground.interned import interned

SCALE = 1.0
BOX = [1.0]


def by_number(c):
    return lambda z, y: c * jnp.sum((z - y) ** 2)


def by_function(inner):
    return lambda z, y: inner(z, y)


def by_default(c):
    return lambda z, y, c=c: c * jnp.sum((z - y) ** 2)


def by_array(a):
    return lambda z, y: jnp.sum(a * (z - y) ** 2)


def by_module(_):
    return lambda z, y: SCALE * jnp.sum((z - y) ** 2)


def counting(_):
    calls = 0

    def cost(z, y):
        nonlocal calls
        calls += 1
        return jnp.sum((z - y) ** 2)

    return cost


held = np.ones(2)


@pytest.mark.parametrize(
    ("make", "given", "other"),
    [
        (by_number, 1.0, 2.0),
        (by_number, 1, 1.0),
        (by_default, 1.0, 2.0),
        (lambda c: by_function(by_number(c)), 1.0, 2.0),
        (by_array, held, np.ones(2)),
        (by_array, jnp.ones(2), jnp.ones(2)),
    ],
    ids=["number", "type", "default", "inner", "numpy", "jax"],
)
def test_alike_is_the_same_code_with_equal_contents(make, given, other):
    first = interned(make(given))
    assert interned(make(given)) is first
    assert interned(make(other)) is not first


@pytest.mark.parametrize("make", [by_module, counting])
def test_what_may_change_stands_for_itself(make):
    first, second = make(0), make(0)
    assert interned(first) is first
    assert interned(second) is second


def test_contents_that_were_changed_are_no_longer_alike():
    first = interned(by_array(BOX))
    assert interned(by_array(BOX)) is first
    BOX[0] = 2.0
    assert interned(by_array(BOX)) is not first

    def rebound(c):
        cost = lambda z, y: c * jnp.sum((z - y) ** 2)
        met = interned(cost)
        c += 1.0
        return met

    assert rebound(7.0) is not rebound(7.0)


def test_a_rule_given_anew_to_the_same_function_is_seen():
    act = jax.custom_vjp(jnp.tanh)
    forward = lambda x: (jnp.tanh(x), x)
    of = lambda act: lambda x: act(x)
    act.defvjp(forward, lambda x, p: (p / jnp.cosh(x) ** 2,))
    first = interned(of(act))
    assert interned(of(act)) is first
    act.defvjp(forward, lambda x, p: (2 * p / jnp.cosh(x) ** 2,))
    assert interned(of(act)) is not first


def test_nothing_is_kept_alive():
    gone = weakref.ref(interned(by_number(3.25)))
    gc.collect()
    assert gone() is None


COMPILED = "/jax/core/compile/backend_compile_duration"


def test_a_sweep_that_states_its_problem_anew_compiles_once():
    x = np.linspace(-1, 1, 6)[:, None]

    def stated(ridge):
        stages = [(lambda x, w: x + 0.3 * jnp.tanh(w * x), jnp.zeros(1)) for _ in range(3)]
        cost = lambda z, y: jnp.sum((z - y) ** 2)
        return hj.ControlProblem(stages, x, 2 * x, terminal=cost, running=hj.Ridge(ridge))

    programs = []
    count = lambda event, seconds, **_: programs.append(seconds) if event == COMPILED else None
    jax.monitoring.register_event_duration_secs_listener(count)
    try:
        first = hj.solve(stated(1e-1), "newton")
        assert programs, "nothing was counted"
        programs.clear()
        second = hj.solve(stated(1e-2), "newton")
    finally:
        jax.monitoring.unregister_event_duration_listener(count)
    assert not programs
    assert len(first.problem.chain.runs) == 1
    assert first.objective > second.objective

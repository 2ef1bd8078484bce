"""What a function reads was rebound or changed between two calls: the second certificate is of the
function as it is now. Where nothing has changed, nothing is traced again."""

import dataclasses
import functools
import sys
import types
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hjcontrol as hj
from hjcontrol._ground.visible import visible
from tests.verification.cases import sine

X = np.linspace(0.3, 1.1, 4)
RIGHT = sine(1.0)
rule = RIGHT
table = {"rules": [RIGHT]}
matrix = np.ones(4)


def product(scale):
    """`scale sin`, its rule that of `sin`: right where `scale` is one."""
    made = jax.custom_vjp(lambda x: scale * jnp.sin(x))
    made.defvjp(lambda x: (scale * jnp.sin(x), x), lambda x, p: (p * jnp.cos(x),))
    return made


def by_global():
    def change(factor):
        global rule
        rule = sine(factor)

    return lambda x: jnp.sum(rule(x)), change


def by_global_of_a_helper():
    def change(factor):
        global rule
        rule = sine(factor)

    def helper(x):
        return sum(rule(a) for a in (x, x))

    return lambda x: jnp.sum(helper(x)), change


def by_global_of_a_mapped_helper():
    def change(factor):
        global rule
        rule = sine(factor)

    mapped = jax.vmap(lambda a: rule(a))
    return lambda x: jnp.sum(mapped(x)), change


def by_global_dict():
    def change(factor):
        table["rules"][0] = sine(factor)

    return lambda x: jnp.sum(table["rules"][0](x)), change


def by_second_defvjp():
    made = jax.custom_vjp(jnp.sin)

    def change(factor):
        made.defvjp(lambda x: (jnp.sin(x), x), lambda x, p: (factor * p * jnp.cos(x),))

    change(1.0)
    return lambda x: jnp.sum(made(x)), change


def by_second_defjvp():
    made = jax.custom_jvp(jnp.sin)

    def change(factor):
        made.defjvp(lambda x, t: (jnp.sin(x[0]), factor * t[0] * jnp.cos(x[0])))

    change(1.0)
    return lambda x: jnp.sum(made(x)), change


def by_second_rule_of_equinox():
    made = eqx.filter_custom_vjp(jnp.sin)

    def change(factor):
        made.def_fwd(lambda perturbed, x: (jnp.sin(x), x))
        made.def_bwd(lambda x, p, perturbed, x_: factor * p * jnp.cos(x))

    change(1.0)
    return lambda x: jnp.sum(made(x)), change


def by_closure():
    factor = 1.0

    def change(value):
        nonlocal factor
        factor = value

    return lambda x: jnp.sum(sine(factor)(x)), change


class Network:
    """A model with an attribute and a static method."""

    def __init__(self):
        self.rule = RIGHT

    def loss(self, x):
        return jnp.sum(self.rule(x))


def by_attribute_of_self():
    network = Network()
    return network.loss, lambda factor: setattr(network, "rule", sine(factor))


def by_attribute_of_a_class():
    class Settings:
        rule = RIGHT

    return lambda x: jnp.sum(Settings.rule(x)), lambda f: setattr(Settings, "rule", sine(f))


def by_method_of_a_base():
    class Base:
        call = staticmethod(RIGHT)

    class Model(Base):
        def loss(self, x):
            return jnp.sum(self.call(x))

    return Model().loss, lambda factor: setattr(Base, "call", staticmethod(sine(factor)))


def by_slot():
    class Slotted:
        __slots__ = ("rule", "unset")

    held = Slotted()
    held.rule = RIGHT
    return lambda x: jnp.sum(held.rule(x)), lambda factor: setattr(held, "rule", sine(factor))


def by_field():
    @dataclasses.dataclass
    class Held:
        factor: float = 1.0

    held = Held()
    return lambda x: jnp.sum(sine(held.factor)(x)), lambda factor: setattr(held, "factor", factor)


def by_partial():
    held = [RIGHT]
    loss = functools.partial(lambda held, x: jnp.sum(held[0](x)), held)
    return loss, lambda factor: held.__setitem__(0, sine(factor))


def by_default():
    def loss(x, *, factors=[1.0]):  # noqa: B006
        return jnp.sum(sine(factors[0])(x))

    return loss, lambda factor: setattr(loss, "__kwdefaults__", {"factors": [factor]})


def by_static_field():
    class Held(eqx.Module):
        rules: list = eqx.field(static=True)

        def __call__(self, x):
            return jnp.sum(self.rules[0](x))

    held = Held([RIGHT])
    return held, lambda factor: held.rules.__setitem__(0, sine(factor))


def by_numpy_array():
    def change(factor):
        matrix[:] = factor

    change(1.0)
    return lambda x: jnp.sum(product(float(matrix[2]))(x)), change


def by_large_numpy_array():
    large = np.ones(3_000_000)

    def change(factor):
        large[-7] = factor

    return lambda x: jnp.sum(product(float(large[-7]))(x)), change


def by_jax_array():
    held = {"scale": jnp.ones(4)}
    change = lambda factor: held.update(scale=jnp.full(4, factor))
    return lambda x: jnp.sum(product(held["scale"])(x)), change


def by_module():
    module = types.ModuleType("users_module")
    space = {"users_module": module, "jnp": jnp}
    exec("def loss(x): return jnp.sum(users_module.rule(x))", space)
    return space["loss"], lambda factor: setattr(module, "rule", sine(factor))


def by_module_imported_inside():
    module = sys.modules["users_imported"] = types.ModuleType("users_imported")

    def loss(x):
        import users_imported  # pyright: ignore[reportMissingImports]

        return jnp.sum(users_imported.rule(x))

    return loss, lambda factor: setattr(module, "rule", sine(factor))


WAYS = [value for name, value in sorted(vars().items()) if name.startswith("by_")]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_what_was_changed_is_seen(way):
    loss, change = way()
    for factor in (1.0, 1.5, 1.0):
        change(factor)
        found = hj.verify(loss, X)
        assert found.verdict == ("exact" if factor == 1 else "refuted"), str(found)
        cost, gradient = jax.value_and_grad(lambda x: loss(x))(jnp.asarray(X))
        np.testing.assert_allclose(found.cost, cost, rtol=1e-12)
        np.testing.assert_allclose(found.gradient, gradient, rtol=1e-12)


def test_cost_and_gradient_are_fresh_where_no_rule_stands():
    held = {"power": 2}
    loss = lambda x: jnp.sum(x ** held["power"])
    for power in (2, 3, 2):
        held["power"] = power
        found = hj.verify(loss, X)
        np.testing.assert_allclose(found.cost, np.sum(X**power), rtol=1e-12)
        np.testing.assert_allclose(found.gradient, power * X ** (power - 1), rtol=1e-12)


@pytest.mark.parametrize("factors", [(1.0, 1.5), (1.5, 1.0)], ids=["spoilt", "repaired"])
def test_stages(factors):
    now = {}
    stages = [lambda x: now["rule"](x), lambda x: 2 * x]
    for factor in factors:
        now["rule"] = sine(factor)
        found = hj.verify(stages, inputs=X.reshape(2, 2), cost=jnp.sum)
        assert found.verdict == ("exact" if factor == 1 else "refuted"), str(found)


LOOPED = {
    "scan": lambda x: jax.lax.scan(lambda c, _: (rule(c), None), x, None, length=1)[0],
    "jit": jax.jit(lambda x: rule(x)),
}


@pytest.mark.parametrize("name", LOOPED)
def test_what_jax_remembers_is_judged_as_jax_runs_it(name):
    """JAX keeps a jitted rule that was rebound until its caches are cleared."""
    global rule
    loss = lambda x: jnp.sum(LOOPED[name](x))
    jax.clear_caches()
    rule = sine(1.0)
    assert hj.verify(loss, X).verdict == "exact"
    rule = sine(1.5)
    found = hj.verify(loss, X)
    np.testing.assert_allclose(found.gradient, jax.grad(loss)(X), rtol=1e-12)
    jax.clear_caches()
    found = hj.verify(loss, X)
    assert found.verdict == "refuted", str(found)
    np.testing.assert_allclose(found.gradient, 1.5 * np.cos(X), rtol=1e-12)


def counted(body):
    """A function and the list that it lengthens whenever it is traced."""
    traces = []

    def loss(x):
        traces.append(1)
        return body(x)

    return loss, traces


def remembering():
    memo = {}
    return lambda x: jnp.sum(memo.setdefault("rule", sine(1.0))(x))


def layered():
    net = eqx.nn.MLP(4, 2, 3, 1, key=jax.random.key(0))
    return lambda x: jnp.sum(net(x))


class Scaled(eqx.Module):
    """A module whose arrays change from call to call."""

    weight: jax.Array
    rule: Callable = eqx.field(static=True)

    def __call__(self, x):
        return jnp.sum(self.weight * self.rule(x))


UNCHANGED = {
    "a global": lambda: lambda x: jnp.sum(RIGHT(x)),
    "a bound method": lambda: Network().loss,
    "a partial": lambda: functools.partial(lambda rule, x: jnp.sum(rule(x)), RIGHT),
    "a jitted function": lambda: jax.jit(lambda x: jnp.sum(RIGHT(x))),
    "a layer of equinox": layered,
    "a memo": remembering,
    "an array": lambda: lambda x: jnp.sum(x * matrix[0]),
}


@pytest.mark.parametrize("body", UNCHANGED.values(), ids=UNCHANGED)
def test_nothing_is_traced_again_where_nothing_has_changed(body):
    loss, traces = counted(body())
    costs = [hj.verify(loss, X).cost]
    once = len(traces)
    costs += [hj.verify(loss, X + shift).cost for shift in (0.1, 0.2)]
    assert len(traces) == once > 0
    assert len(set(costs)) == 3


def test_a_module_with_other_weights_is_not_traced_again():
    traces = []

    def rule(x):
        traces.append(1)
        return RIGHT(x)

    for scale in (1.0, 2.0):
        found = hj.verify(Scaled(jnp.full(4, scale), rule), jnp.asarray(X))
        np.testing.assert_allclose(found.cost, scale * np.sum(np.sin(X)), rtol=1e-12)
    assert len(traces) == 1


def test_too_much_is_not_looked_at():
    assert visible([[k] for k in range(100)]) is not None
    assert visible([[k] for k in range(30_000)]) is None
    many: list[Any] = [[RIGHT], *([k] for k in range(30_000))]
    loss = lambda x: jnp.sum(many[0][0](x))
    for factor, verdict in ((1.0, "exact"), (1.5, "refuted")):
        many[0][0] = sine(factor)
        assert hj.verify(loss, X).verdict == verdict


def test_an_object_that_raises_when_it_is_looked_at():
    class Shy:
        def __getattribute__(self, name):
            raise RuntimeError(name)

    held = [Shy(), RIGHT]
    loss = lambda x: jnp.sum(held[1](x))
    for factor, verdict in ((1.0, "exact"), (1.5, "refuted")):
        held[1] = sine(factor)
        assert hj.verify(loss, X).verdict == verdict

"""Inlining keeps values and asks no rule."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hjcontrol.verification.inlining import inlined


@jax.custom_vjp
def f(x):
    return jnp.sin(x)


f.defvjp(lambda x: (f(x), None), lambda _, p: (100.0 * p,))


@jax.custom_jvp
def g(x):
    return jnp.sin(x)


g.defjvp(lambda x, v: (g(x[0]), 100.0 * v[0]))

WRAPPED = {
    "plain": lambda r, x: r(x),
    "jit": lambda r, x: jax.jit(r)(x),
    "vmap": lambda r, x: jax.vmap(r)(x),
    "checkpoint": lambda r, x: jax.checkpoint(r)(x),
    "scan": lambda r, x: jax.lax.scan(lambda c, a: (r(c) + a, r(a)), x, jnp.stack([x, x]))[0],
    "map": lambda r, x: jax.lax.map(jax.jit(r), x),
    "fori": lambda r, x: jax.lax.fori_loop(0, 3, lambda i, c: r(c) + i, x),
    "while": lambda r, x: jax.lax.while_loop(
        lambda c: (c + r(c))[0] < 5, lambda c: c + 2 + r(c), x
    ),
    "cond": lambda r, x: jax.lax.cond(x[0] > 0, r, lambda a: a, x),
    "switch": lambda r, x: jax.lax.switch(1, [lambda a: a, jax.jit(r)], x),
    "nested": lambda r, x: jax.lax.scan(
        lambda c, _: (jax.lax.cond(c[0] > 0, jax.checkpoint(r), lambda a: a, c), None), x, length=2
    )[0],
}


@pytest.mark.parametrize("rule", [f, g], ids=["custom_vjp", "custom_jvp"])
@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
def test_values_stay_and_rules_go(wrap, rule):
    x, v = jnp.asarray([0.3, -0.7]), jnp.asarray([1.0, 2.0])
    ours = inlined(lambda a: wrap(rule, a))
    plain = lambda a: wrap(jnp.sin, a)
    assert np.array_equal(ours(x), wrap(rule, x))
    for found, expected in zip(jax.jvp(ours, (x,), (v,)), jax.jvp(plain, (x,), (v,)), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-14)


def test_pytrees_and_captured_arrays():
    scale = jnp.asarray(2.0)
    ours = inlined(lambda a, b: {"s": f(scale * a["x"]), "t": (b, a["x"])})
    out = jax.jit(jax.vmap(ours, in_axes=({"x": 0}, None)))({"x": jnp.ones((3, 2))}, jnp.ones(4))
    assert out["s"].shape == (3, 2)
    assert out["t"][0].shape == (3, 4)


def test_a_linear_solve_is_its_own_solve():
    """What sits in the matrix has no say in the values of the solve, and so none in its primal."""

    def ours(a):
        solve = lambda matvec, b: b / 2.0
        return jax.lax.custom_linear_solve(lambda u: 2.0 * u + 0 * f(u), a, solve, symmetric=True)

    x = jnp.ones(2)
    value, slope = jax.jvp(inlined(ours), (x,), (3 * x,))
    np.testing.assert_allclose(value, 0.5)
    np.testing.assert_allclose(slope, 1.5)

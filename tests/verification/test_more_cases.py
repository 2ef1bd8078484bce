"""More programs with rules, in kinds: how a rule is written, where it stands, what it is called with.

A wrong rule of every kind is refuted; its right twin gives no alarm.
"""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from tests.verification.cases import Case, W, check, pair, rule, table, tanh, x

total = lambda f: lambda *args: jnp.sum(f(*args) ** 2)


# ------------------------------------------------------------------ how a rule is written


def jvp_with_static(c):
    @functools.partial(jax.custom_jvp, nondiff_argnums=(0, 2))
    def power(f, x, n):
        return f(x) ** n

    @power.defjvp
    def _(f, n, at, v):
        (x,), (dx,) = at, v
        y, dy = jax.jvp(f, (x,), (dx,))
        return y**n, c * n * y ** (n - 1) * dy

    return total(lambda x: power(jnp.sin, x, 3))


def vjp_with_static(c):
    @functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
    def apply(f, x, W):
        return f(x @ W)

    def bwd(f, r, p):
        x, W = r
        (d,) = jax.vjp(f, x @ W)[1](p)
        return d @ W.T, c * x.T @ d

    apply.defvjp(lambda f, x, W: (f(x @ W), (x, W)), bwd)
    return total(lambda x, W: apply(jnp.tanh, x, W))


def with_integers(c):
    """An embedding: rows of a table, by integers, masked by booleans, under a key."""

    def f(table, tokens, mask, key):
        noise = jax.random.normal(key, (len(tokens), table.shape[1]))
        return jnp.where(mask[:, None], table[tokens], 0) * noise

    def bwd(r, p):
        table, tokens, mask, key = r
        noise = jax.random.normal(key, p.shape)
        d = jnp.where(mask[:, None], p * noise, 0)
        return c * jnp.zeros_like(table).at[tokens].add(d), None, None, None

    return total(rule(f, bwd, name="lookup"))


def accumulating(c):
    """`c = 1`: rows met twice are added up; otherwise the last one wins."""
    f = lambda table, tokens: table[tokens]

    def bwd(r, p):
        room = jnp.zeros_like(r[0]).at[r[1]]
        return (room.add(p) if c == 1 else room.set(p)), None

    return total(rule(f, bwd))


def of_trees(c):
    f = lambda tree, x: {"y": jnp.tanh(x @ tree["W"]) * tree["s"], "z": (jnp.sum(x),)}

    def bwd(r, p):
        tree, x = r
        h = jnp.tanh(x @ tree["W"])
        d = p["y"] * tree["s"] * (1 - h**2)
        own = {"W": x.T @ d, "s": c * jnp.sum(p["y"] * h)}
        return own, d @ tree["W"].T + p["z"][0]

    made = rule(f, bwd, name="tree")

    def fn(tree, x):
        out = made(tree, x)
        return jnp.sum(out["y"] ** 2) + out["z"][0] ** 2

    return fn


def one_output_dead(c):
    def bwd(r, p):
        return (p[0] * jnp.cos(r[0]) + c * p[1] * jnp.exp(r[0]),)

    made = rule(lambda x: (jnp.sin(x), jnp.exp(x)), bwd, name="two")
    return lambda x: jnp.sum(made(x)[0] ** 2)


def both_outputs(c):
    def bwd(r, p):
        return (p[0] * jnp.cos(r[0]) + c * p[1] * jnp.exp(r[0]),)

    made = rule(lambda x: (jnp.sin(x), jnp.exp(x)), bwd, name="two")
    return lambda x: jnp.sum(made(x)[0] * made(x)[1])


def none_for_an_argument(c):
    """`None` is zero: right where the value does not depend on it."""
    f = lambda x, s: jnp.tanh(x) * (1 + (c - 1) * s) if c > 1 else jnp.tanh(x)
    bwd = lambda r, p: (p * (1 - jnp.tanh(r[0]) ** 2) * (1 + (c - 1) * r[1]), None)
    made = rule(f, bwd)
    return lambda x, s: jnp.sum(made(x, s) ** 2) + jnp.sum(s**2)


def symbolic(c):
    made = jax.custom_vjp(lambda x, y: (jnp.sin(x) * y, jnp.cos(y)))

    def fwd(x, y):
        a, b = x.value, y.value
        return (jnp.sin(a) * b, jnp.cos(b)), (a, b)

    def bwd(r, p):
        (a, b), zero = r, jax.custom_derivatives.SymbolicZero
        p, q = (jnp.zeros_like(a) if isinstance(s, zero) else s for s in p)
        return p * b * jnp.cos(a), c * p * jnp.sin(a) - q * jnp.sin(b)

    made.defvjp(fwd, bwd, symbolic_zeros=True)
    return lambda x: jnp.sum(made(x, 2 * x)[0] ** 2)


def optimised_remat(c):
    made = jax.custom_vjp(lambda x: jnp.tanh(x))
    fwd = lambda x: (jnp.tanh(x), x)
    made.defvjp(fwd, lambda x, p: (c * p * (1 - jnp.tanh(x) ** 2),), optimize_remat=True)
    return jax.checkpoint(total(lambda x: made(jnp.sin(x))))


def closure_converted(c):
    def fn(x, W):
        f, consts = jax.closure_convert(lambda z: jnp.tanh(z @ W), x)
        made = jax.custom_vjp(lambda z, *k: f(z, *k))

        def bwd(r, p):
            d, *rest = jax.vjp(f, *r)[1](p)
            return c * d, *rest

        made.defvjp(lambda *r: (f(*r), r), bwd)
        return jnp.sum(made(x, *consts) ** 2)

    return fn


def swapped(c):
    f = lambda a, b: jnp.sin(a) * b**2
    own = lambda r, p: (p * jnp.cos(r[0]) * r[1] ** 2, 2 * p * jnp.sin(r[0]) * r[1])
    made = rule(f, own if c == 1 else lambda r, p: own(r, p)[::-1])
    return lambda x: jnp.sum(made(x, 1 + x**2))


def transposed(c):
    bwd = lambda r, p: (p @ (r[1].T if c == 1 else r[1]), r[0].T @ p)
    return total(rule(jnp.matmul, bwd, name="product"))


def implicit(c):
    """x such that S x = b, by a rule: `c` scales the solve's cotangent of `S`."""

    def bwd(r, p):
        S, b = r
        own = jnp.linalg.solve(S.T, p)
        return -c * jnp.outer(own, jnp.linalg.solve(S, b)), own

    return total(rule(jnp.linalg.solve, bwd, name="solve"))


def batched_rule(c):
    """A rule of `custom_batching` beside the derivative."""

    @jax.custom_batching.custom_vmap
    def act(x):
        return jnp.tanh(x)

    @act.def_vmap
    def _(size, batched, x):
        return jnp.tanh(x), True

    made = rule(act, lambda r, p: (c * p * (1 - jnp.tanh(r[0]) ** 2),))
    return total(jax.vmap(made))


tokens = np.array([0, 3, 1, 3])
mask = np.array([True, False, True, True])
tree = {"W": W, "s": np.array(0.7)}
WRITTEN = [
    *pair("jvp nondiff", jvp_with_static, (x,)),
    *pair("vjp nondiff", vjp_with_static, (x, W)),
    *pair("integers and keys", with_integers, (W, tokens, mask, jax.random.key(3)), line="** 2)"),
    *pair("rows met twice", accumulating, (W, tokens), 0.0),
    *pair("trees", of_trees, (tree, x), worst={"parameter": "tree['s']"}),
    Case("dead output right", one_output_dead(1.0), (x,), "exact"),
    *pair("both outputs", both_outputs, (x,)),
    Case("None, rightly", none_for_an_argument(1.0), (x, x), "exact"),
    Case("None, wrongly", none_for_an_argument(1.5), (x, x), "refuted", worst={"argument": 1}),
    *pair("symbolic zeros", symbolic, (x,)),
    *pair("optimize_remat", optimised_remat, (x,)),
    *pair("closure converted", closure_converted, (x, W)),
    *pair("swapped arguments", swapped, (x,), 0.0),
    *pair("W instead of its transpose", transposed, (x, W), 0.0, worst={"argument": 0}),
    Case("solve right", implicit(1.0), (W + 2 * np.eye(8), x[0]), "exact"),
    Case("solve wrong", implicit(1.01), (W + 2 * np.eye(8), x[0]), "refuted"),
    *pair("custom vmap", batched_rule, (x,)),
]

# ------------------------------------------------------------------ where it stands


def mapped(c):
    """A vmap of a scan of a cond."""
    act = tanh(c)

    def one(x):
        def body(h, k):
            return jax.lax.cond(k % 2 == 0, act, jnp.sin, h), jnp.sum(h)

        return jax.lax.scan(body, x, jnp.arange(5))[0]

    return total(jax.vmap(one))


def mapped_predicate(c):
    act = tanh(c)
    return total(jax.vmap(lambda x: jax.lax.cond(x[0] > 0, act, jnp.sin, x)))


def jitted(c):
    act = tanh(c)
    inner = jax.jit(lambda x: act(x @ W))
    return jax.jit(total(jax.jit(lambda x: inner(inner(x)))))


def with_policy(c):
    act = tanh(c)
    keep = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
    body = jax.checkpoint(lambda h, V: (act(h @ V), None), policy=keep)
    return lambda x, Vs: jnp.sum(jax.lax.scan(body, x, Vs)[0] ** 2)


def counted(c):
    act = tanh(c)
    return total(lambda x: jax.lax.fori_loop(0, 4, lambda k, h: act(1.1 * h), x))


def backwards(c):
    act = tanh(c)
    return lambda xs: jnp.sum(
        jax.lax.scan(lambda h, x: (act(h + x), h), xs[0], xs, reverse=True)[1] ** 2
    )


def by_map(c):
    act = tanh(c)
    return lambda x: jnp.sum(jax.lax.map(lambda row: act(row) @ W, x) ** 2)


def associative(c):
    times = rule(lambda a, b: a * b, lambda r, p: (p * r[1], c * p * r[0]), name="times")
    return lambda x: jnp.sum(jax.lax.associative_scan(times, 1 + 0.1 * x))


def switched(c):
    act = tanh(c)
    return lambda k, x: jnp.sum(jax.lax.switch(k, [jnp.sin, act, jnp.cos], x) ** 2)


def at_iteration(c):
    def f(h, k):
        return jnp.tanh(h)

    def bwd(r, p):
        h, k = r
        return jnp.where(k == 7, c, 1.0) * p * (1 - jnp.tanh(h) ** 2), None

    made = rule(f, bwd, name="late")
    return lambda x: jnp.sum(
        jax.lax.scan(lambda h, k: (made(1.2 * h, k), None), x, jnp.arange(12))[0] ** 2
    )


class Net(eqx.Module):
    W: jax.Array
    act: object = eqx.field(static=True)

    def __call__(self, x):
        return jnp.sum(self.act(x @ self.W) ** 2)


net = lambda c: Net(jnp.asarray(W), tanh(c))
STANDS = [
    *pair("vmap of scan of cond", mapped, (x,), line="lax.cond"),
    *pair("vmap of cond", mapped_predicate, (x,)),
    *pair("jit in jit", jitted, (x,), line="act(x @ W)"),
    *pair("checkpoint policy", with_policy, (x, np.stack([W] * 3))),
    *pair("fori_loop", counted, (x,), line="act(1.1 * h)"),
    *pair("scan in reverse", backwards, (x,)),
    *pair("map", by_map, (x,)),
    *pair("associative scan", associative, (x,)),
    *pair("switch", switched, (1, x)),
    Case("switch elsewhere", switched(1.01), (0, x), "untested"),
    *pair("one late iteration", at_iteration, (x,), worst={"iteration": (7,)}),
    *pair("module", net, (x,)),
]


@table(WRITTEN)
def test_how_a_rule_is_written(case):
    check(case)


@table(STANDS)
def test_where_a_rule_stands(case):
    check(case)

"""More programs with rules: faults in a part of the elements, and in numbers of every kind and size."""

import jax.numpy as jnp
import numpy as np

from tests.verification.cases import Case, W, bad, check, good, pair, rule, table, tanh, x

half, quarter, single = jnp.bfloat16, np.float16, np.float32
total = lambda f: lambda *args: jnp.sum(f(*args) ** 2)


# ------------------------------------------------------------------ a part of the elements only


def where_wrong(chosen):
    """tanh whose rule is wrong by `c` where `chosen(x)`."""

    def make(c):
        bwd = lambda r, p: (jnp.where(chosen(r[0]), c, 1.0) * p * (1 - jnp.tanh(r[0]) ** 2),)
        made = rule(jnp.tanh, bwd, name="partly")
        return total(lambda x: made(jnp.sinh(x)))

    return make


at = lambda i, j: (
    lambda x: (jnp.arange(x.shape[0])[:, None] == i) & (jnp.arange(x.shape[1])[None] == j)
)
sample, channel = (
    lambda x: jnp.broadcast_to(jnp.arange(16)[:, None] == 11, x.shape),
    lambda x: jnp.broadcast_to(jnp.arange(8)[None] == 5, x.shape),
)
above = where_wrong(lambda x: x > 1.5)
padded = np.where(np.arange(16)[:, None] < 12, x, np.nan)
real = np.arange(16)[:, None] < 12


def in_padding(c):
    act = tanh(c)
    return lambda x: jnp.sum(jnp.where(real, act(jnp.where(real, x, 0.0)), 0.0) ** 2)


def over_padding(c):
    act = tanh(c)
    return lambda x: jnp.sum(jnp.where(real, act(x), 0.0) ** 2)


PARTLY = [
    *pair("one sample", where_wrong(sample), (x,), worst={"sample": 11}),
    *pair("sign in one channel", where_wrong(channel), (x,), -1.0, worst={"channel": 5}),
    *pair("one element", where_wrong(at(4, 2)), (x,), 1.0001, worst={"index": (4, 2)}),
    *pair("nothing at one element", where_wrong(at(4, 2)), (x,), 0.0, worst={"index": (4, 2)}),
    *pair("above 1.5", above, (x,)),
    Case("above 1.5, all below", above(1.01), (np.minimum(x, 1.1),), "exact"),
    *pair("1e-10", lambda c: total(tanh(c)), (x,), 1 + 1e-10),
    *pair("padding kept out", in_padding, (padded,)),
]

# ------------------------------------------------------------------ numbers


def in_dtype(d):
    return lambda c: total(tanh(c)), (jnp.asarray(x, d),)


def mixed(low):
    def make(c):
        f = lambda x, W: (x.astype(low) @ W.astype(low)).astype(x.dtype)
        bwd = lambda r, p: (p @ r[1].T, c * (r[0].T @ p))
        return total(rule(f, bwd, name="mixed"))

    return make


def modulus(c):
    bwd = lambda r, p: (c * p * jnp.conj(r[0]) / jnp.abs(r[0]),)
    return lambda z: jnp.sum(rule(jnp.abs, bwd, name="modulus")(z) ** 3)


def to_real(c):
    """`Re(z^2)`; its cotangent is `2 z p`, in JAX's convention without conjugation."""
    bwd = lambda r, p: (c * 2 * r[0] * p.astype(r[0].dtype),)
    return total(rule(lambda z: (z**2).real, bwd))


square = lambda c: rule(lambda x: x**2, lambda r, p: (2 * c * p * r[0],))
squares = lambda c: lambda x: jnp.sum(square(c)(x))
scaled = lambda s: lambda c: lambda x: s * jnp.sum(tanh(c)(x) ** 2)
z = x + 1j * x[::-1]
NUMBERS = [
    *pair("float16", *in_dtype(quarter), 1.05),
    *pair("bfloat16", *in_dtype(half), 1.05),
    *pair("float32", *in_dtype(single), 1.001),
    *pair("float16 inside float64", mixed(quarter), (x, W), 1.02, worst={"argument": 1}),
    *pair("bfloat16 inside float32", mixed(half), (x.astype(single), W.astype(single)), 1.02),
    *pair("complex to real", modulus, (z,)),
    *pair("real part", to_real, (z,)),
    *pair("huge", scaled(1e280), (x,)),
    *pair("tiny", scaled(1e-280), (x,)),
    *pair("large inputs", squares, (1e100 * x,)),
    Case("no samples", total(bad), (np.zeros((0, 8)),), "untested"),
    Case(
        "no samples beside some",
        lambda a, b: jnp.sum(good(a)) + jnp.sum(good(b)),
        (np.zeros((0, 8)), x),
        "exact",
    ),
    *pair("python float", lambda c: lambda x, s: jnp.sum(s * tanh(c)(s * x)), (x, 0.5)),
]


@table(PARTLY)
def test_faults_in_a_part(case):
    check(case)


@table(NUMBERS)
def test_numbers(case):
    check(case)

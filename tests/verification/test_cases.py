"""The cases of the contract: programs, the verdicts they must get, and what must be named.

x is (16, 8) normal, W (8, 8) / 3, `bad` is tanh with a rule 1.01 too large, `good` its right twin.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hjcontrol as hj
from tests.verification.cases import Case, W, bad, check, good, rule, table, x

half, single = jnp.bfloat16, np.float32
zeros = np.where(np.arange(16)[:, None] == 2, 0.0, x)  # one sample at exact zeros


def total(f, power=1):
    """`x -> sum f(x)^power`."""
    return lambda *args: jnp.sum(f(*args) ** power)


# ------------------------------------------------------------------ where a fault sits


def third(x, W):
    def body(h, k):
        return jax.lax.cond(k == 3, bad, good, h @ W), None

    return jnp.sum(jax.lax.scan(body, x, jnp.arange(6))[0] ** 2)


def nested(x):
    def inner(h, _):
        return bad(h), None

    def outer(h, _):
        return jax.lax.scan(inner, h, None, length=3)[0], None

    return jnp.sum(jax.lax.scan(outer, x, None, length=6)[0] ** 2)


beyond = rule(
    jnp.tanh,
    lambda r, p: (jnp.where(r[0] > 1.5, 1.01, 1.0) * p * (1 - jnp.tanh(r[0]) ** 2),),
    name="beyond",
)


def rematerialised(x, W):
    @jax.checkpoint
    def run(x):
        def body(h, k):
            return jax.lax.cond(jnp.sum(h) > -1e3, beyond, good, 2 * h @ W), None

        return jax.lax.scan(body, x, jnp.arange(4))[0]

    return jnp.sum(run(x) ** 2)


def softmax_above(x, W):
    return jnp.sum(jax.nn.softmax(bad(x @ W)))


def dead_head(x, W):
    return 0 * jnp.sum(bad(x @ W))


relu15 = rule(lambda x: jnp.maximum(x, 0), lambda r, p: (1.5 * p * (r[0] > 0),), name="relu15")
not_taken = lambda x: jnp.sum(jax.lax.cond(x[0, 0] > 1e3, bad, good, x))
no_turn = lambda x: jnp.sum(jax.lax.scan(lambda h, _: (bad(h), None), x, None, length=0)[0])

SIGNAL = [
    Case("1", lambda x, W: jnp.sum(good(x @ W) ** 2), (x, W), "exact", gap=1e-15),
    Case("2", third, (x, W), "refuted", worst={"iteration": (3,), "rule": "bad"}, exact=("good",)),
    Case("3", nested, (x,), "refuted", words=r"iteration \(\d, \d\)", line="bad(h)"),
    Case("4", rematerialised, (x, W), "refuted", worst={"rule": "beyond"}),
    Case("5", dead_head, (x, W), "refuted", worst={"reach": 0}, words="random costates only"),
    Case("6", softmax_above, (x, W), "refuted", worst={"rule": "bad"}),
    Case("7", total(relu15), (-np.abs(x),), "untested", words="derivative zero here"),
    Case("8", not_taken, (x,), "untested", worst={"rule": "bad"}, exact=("good",)),
    Case("9", no_turn, (x,), "untested", words="no iteration"),
]

# ------------------------------------------------------------------ not finite

root = rule(jnp.sqrt, lambda r, p: (p / (2 * jnp.sqrt(r[0])),), name="root")
logistic = rule(
    lambda x: 1 / (1 + jnp.exp(-x)), lambda r, p: (p * jnp.exp(r[0]) / (1 + jnp.exp(r[0])) ** 2,)
)
guarded = lambda x: jnp.sum(jnp.where(x > 0, jnp.sqrt(x), 0.0))


def negative_log(x):
    def body(h, k):
        return jnp.where(k == 3, jnp.log(h - 100.0), h), None

    return jnp.sum(jax.lax.scan(body, x, jnp.arange(6))[0])


NOT_FINITE = [
    Case(
        "10",
        lambda x: jnp.sum(root(good(x) * 0.0)),
        (x,),
        "undefined",
        worst={"rule": "root"},
        exact=("good",),
    ),
    Case("11", guarded, (x,), "undefined", worst={"rule": "sqrt"}, line="jnp.sqrt(x), 0.0"),
    Case("12", negative_log, (x,), "undefined", worst={"rule": "log", "iteration": (3,)}),
    Case("13", total(logistic), (np.array([1.0, 800.0]),), "undefined"),
]

# ------------------------------------------------------------------ kinks


def relu(slope):
    return rule(
        lambda x: jnp.maximum(x, 0),
        lambda r, p: (p * jnp.where(r[0] > 0, 1.0, jnp.where(r[0] == 0, slope, 0.0)),),
        name="relu",
    )


def norm(slope):
    def bwd(r, p):
        own = r[0] / jnp.sqrt(jnp.sum(r[0] ** 2))
        return (p * jnp.where(jnp.all(r[0] == 0), slope * jnp.ones_like(r[0]), own),)

    return rule(lambda x: jnp.sqrt(jnp.sum(x**2)), bwd, name="norm")


smooth = rule(
    lambda x: x**2 + 3 * x, lambda r, p: (p * jnp.where(r[0] == 0, 0.0, 2 * r[0] + 3),), name="poly"
)
first_max = rule(
    lambda x: jnp.max(x, -1),
    lambda r, p: (p[:, None] * jax.nn.one_hot(jnp.argmax(r[0], -1), 8, dtype=p.dtype),),
    name="first_max",
)
root0 = rule(
    jnp.sqrt,
    lambda r, p: (p * jnp.where(r[0] == 0, 0.0, 0.5 / jnp.sqrt(jnp.where(r[0] == 0, 1.0, r[0]))),),
)
absolute = rule(jnp.abs, lambda r, p: (p * jnp.where(r[0] == 0, 0.3, jnp.sign(r[0])),), name="abs")

KINKS = [
    Case("14", lambda x: jnp.sum((relu(0.0)(x) + x) ** 3), (zeros,), "exact"),
    Case("14 kink", total(relu(0.0)), (zeros,), "exact", worst={"kink": True}, words="kink"),
    Case("15", total(relu(2.0)), (zeros,), "refuted", words=r"slopes of the values.* 0\b|0 \| "),
    Case("16", total(smooth), (zeros,), "refuted", words="slopes of the values"),
    Case("17", total(first_max), (np.round(x[:5]),), "exact", worst={"kink": True}),
    Case(
        "17 many",
        total(first_max),
        (np.round(x),),
        "exact",
        words="all tried",
        worst={"kink": True},
    ),
    Case("18 rule 0", norm(0.0), (np.zeros(3),), "exact", worst={"kink": True}),
    Case("18 rule 2", norm(2.0), (np.zeros(3),), "refuted"),
    Case("19", total(root0), (np.array([0.0, 1.0]),), "undefined"),
    Case("20", total(absolute), (zeros,), "exact", worst={"kink": True}),
]

# ------------------------------------------------------------------ scales, dilution, dtypes

scaled = lambda f, s: lambda x, W: s * jnp.sum(f(x @ W) ** 2)
channels = np.where(np.arange(4096) == 77, 1e-7, 1.0)
one_channel = rule(
    lambda x: x * channels,
    lambda r, p: (p * channels * np.where(np.arange(4096) == 77, 1.01, 1.0),),
    name="one_channel",
)
wide = np.random.default_rng(3).normal(size=(4, 4096))


def low_matmul(factor):
    return rule(
        lambda x, W: (x.astype(half) @ W.astype(half)).astype(float),
        lambda r, p: (factor * (p @ r[1].T), r[0].T @ p),
    )


low_tanh = rule(
    lambda x: jnp.tanh(x.astype(single)).astype(float),
    lambda r, p: (p * (1 - jnp.tanh(r[0]) ** 2),),
)
no_bias = rule(
    lambda x, W, b: x @ W + b[None],
    lambda r, p: (p @ r[1].T, r[0].T @ p, jnp.zeros_like(r[2])),
    name="no_bias",
)
rounded = rule(
    jnp.tanh,
    lambda r, p: ((p.astype(half) * (1 - jnp.tanh(r[0].astype(half)) ** 2)).astype(float),),
)
log_value = lambda x: jnp.log1p(x) - x
one_way = rule(log_value, lambda r, p: (p * (1 / (1 + r[0]) - 1),))
other_way = rule(log_value, lambda r, p: (-p * r[0] / (1 + r[0]),))


def moments(x):
    centred = x - jnp.mean(x, -1, keepdims=True)
    return centred, 1 / jnp.sqrt(jnp.mean(centred**2, -1, keepdims=True) + 1e-5)


def layer_rule(r, p):
    (x,), n = r, r[0].shape[-1]
    centred, s = moments(x)
    h, along = centred * s, lambda a: jnp.sum(a, -1, keepdims=True)
    return ((s / n) * (n * p - along(p) - h * along(p * h)),)


layer_norm = rule(lambda x: moments(x)[0] * moments(x)[1], layer_rule, name="layer_norm")
affine_at = lambda d: tuple(jnp.asarray(a, d) for a in (x, W, np.ones(8)))

NUMBERS = [
    *[
        Case(f"21 {s:g}", scaled(bad, s), (x, W), "refuted", worst={"rule": "bad"})
        for s in (1e-165, 1e-310)
    ],
    Case("22", scaled(good, 1e190), (x, W), "exact"),
    Case(
        "23",
        scaled(bad, single(1e-42)),
        (x.astype(single), W.astype(single)),
        "refuted",
        worst={"reach": 0},
    ),
    Case("24", total(jax.vmap(one_channel), 2), (wide,), "refuted", worst={"channel": 77}),
    Case("25 right", total(low_matmul(1.0), 2), (x, W), "exact"),
    Case("25 wrong", total(low_matmul(1.01), 2), (x, W), "refuted", worst={"argument": 0}),
    Case("26", total(low_tanh, 2), (x,), "exact", words="roundoff of float32"),
    Case("27 half", total(no_bias, 2), affine_at(half), "refuted", worst={"argument": 2}),
    Case("27 single", total(no_bias, 2), affine_at(single), "refuted", worst={"argument": 2}),
    Case("28", total(rounded, 2), (x,), "consistent", holds=False),
    Case("29 one", total(one_way), (1e-9 * np.abs(x) + 1e-9,), "exact"),
    Case("29 other", total(other_way), (1e-9 * np.abs(x) + 1e-9,), "exact"),
    *[
        Case(
            f"30 {np.dtype(d).name}", total(layer_norm, 3), (jnp.asarray(1e3 + 10 * x, d),), "exact"
        )
        for d in (single, half)
    ],
]

# ------------------------------------------------------------------ costates cut, rules of other kinds

centred = lambda x: jnp.sum((x - jax.lax.stop_gradient(jnp.mean(x))) ** 2 * x)
through = rule(jnp.round, lambda r, p: (p,), name="through")
declared = hj.deliberate("straight-through")(through)
clipped = rule(lambda x: 2 * x, lambda r, p: (jnp.clip(2 * p, -0.5, 0.5),), name="clipped")
cubic = lambda z: jnp.conj(z) * z * z
right = lambda r, p: jax.vjp(cubic, r[0])[1](p)
conjugated = lambda r, p: (jnp.conj(right(r, p)[0]),)
modulus = lambda bwd: lambda z: jnp.sum(jnp.abs(rule(cubic, bwd)(z)) ** 2)
linear = lambda x, W: jax.custom_derivatives.linear_call(
    lambda W, x: x @ W, lambda W, p: 1.01 * p @ W.T, W, x
)


@jax.custom_jvp
def product(x, W):
    return x @ W


product.defjvp(lambda at, v: (product(*at), v[0] @ at[1] + 1.01 * at[0] @ v[1]))
other_values = rule(
    jnp.tanh,
    lambda r, p: (p * (1 - jnp.tanh(r[0]) ** 2),),
    lambda x: (1.001 * jnp.tanh(x), (x,)),
)
shared = rule(lambda a, b: a * b, lambda r, p: (2 * p * r[1], jnp.zeros_like(r[1])))
outer = rule(lambda x: 2 * bad(x), lambda r, p: (2 * p * (1.01 - 1.01 * jnp.tanh(r[0]) ** 2),))
frozen = rule(jnp.tanh, lambda r, p: (p * jax.lax.stop_gradient(1 - jnp.tanh(r[0]) ** 2),))


@jax.custom_jvp
def frozen_jvp(x):
    return jnp.tanh(x)


frozen_jvp.defjvp(
    lambda at, v: (jnp.tanh(at[0]), v[0] * jax.lax.stop_gradient(1 - jnp.tanh(at[0]) ** 2))
)
slope = lambda x: jnp.sum(jax.grad(lambda y: jnp.sum(good(y) ** 2))(x) ** 2)
second = {"order": 2}

RULES = [
    Case("38", centred, (x,), "detached", words="cuts a costate of size"),
    Case("39 softmax", lambda x: jnp.sum(jax.nn.softmax(x)[:, 0] ** 2), (x,), "exact"),
    Case("39 log softmax", lambda x: jnp.mean(jax.nn.log_softmax(x)[:, 0]), (x,), "exact"),
    Case("40", lambda x: jnp.sum(through(3 * x) ** 2), (x,), "refuted", words="straight-through"),
    Case("40 decorated", lambda x: jnp.sum(declared(3 * x) ** 2), (x,), "deliberate"),
    Case("41", total(clipped, 2), (x,), "refuted"),
    Case("42 right", modulus(right), (x + 1j * x[::-1],), "exact"),
    Case("42 conjugated", modulus(conjugated), (x + 1j * x[::-1],), "refuted"),
    Case("46", total(linear, 2), (x, W), "refuted", {"argnums": 0}, line="linear_call"),
    Case("47", total(product, 2), (x, W), "refuted", worst={"argument": 1}),
    Case("48", total(other_values, 2), (x,), "refuted", words="other values"),
    Case("49 twice", lambda x: jnp.sum(shared(x, x) ** 2), (x,), "exact"),
    Case("49 copied", lambda x: jnp.sum(shared(x, jnp.copy(x)) ** 2), (x,), "refuted"),
    Case("50", total(outer, 2), (x,), "refuted", worst={"rule": "bad"}),
    Case("51 vjp", total(frozen, 2), (x,), "refuted", second, words="second order"),
    Case("51 jvp", total(frozen_jvp, 2), (x,), "refuted", second, words="second order"),
    Case("51 right", total(good, 2), (x,), "exact", second),
    Case("51 first order", total(frozen_jvp, 2), (x,), "exact"),
    Case("52", slope, (x,), "untested", words="dissolved"),
    Case("56", lambda x: jnp.mean(x**2), (x,), "no custom rule", words="no custom rule"),
]


@table([*SIGNAL, *NOT_FINITE, *KINKS])
def test_signal_and_kinks(case):
    check(case)


@table([*NUMBERS, *RULES])
def test_numbers_and_rules(case):
    check(case)


def test_without_a_random_costate_a_dead_head_hides_its_rule():
    """Twin of case 5: the random costate is what refutes it."""
    assert hj.verify(dead_head, x, W).verdict == "refuted"
    assert hj.verify(dead_head, x, W, costate="actual").verdict != "refuted"


def test_the_gradient_is_that_of_jax_to_the_bit():
    """Case 4: slots change nothing of the gradient."""
    found = hj.verify(rematerialised, x, W)
    wanted = jax.jit(jax.grad(rematerialised, (0, 1)))(x, W)
    assert all(np.array_equal(a, b) for a, b in zip(found.gradient, wanted, strict=True))


def test_a_declaration_may_name_the_rule_or_its_line():
    """Case 40: declared without touching the model."""
    fn = lambda x: jnp.sum(through(3 * x) ** 2)
    row = hj.verify(fn, x).worst
    for item in (through, "through", f"test_cases.py:{row.line}"):
        assert hj.verify(fn, x, deliberate=[item]).verdict == "deliberate"
    with pytest.raises(ValueError, match=r"verify: `deliberate` names .*through at test_cases"):
        hj.verify(fn, x, deliberate=["test_cases.py:1"])


# ------------------------------------------------------------------ 55: whole networks, right


def residual(Ws, x):
    for V in Ws:
        x = x + 0.3 * good(x @ V)
    return jnp.mean(x**2)


sigmoid = rule(
    jax.nn.sigmoid, lambda r, p: (p * jax.nn.sigmoid(r[0]) * (1 - jax.nn.sigmoid(r[0])),)
)


def lstm(V, xs):
    def step(state, x):
        h, c = state
        i, f, g, o = jnp.split(jnp.concatenate([h, x], -1) @ V, 4, -1)
        c = sigmoid(f) * c + sigmoid(i) * good(g)
        h = sigmoid(o) * good(c)
        return (h, c), h

    return jnp.mean(jax.lax.scan(step, (jnp.zeros((2, 4)),) * 2, xs)[1] ** 2)


def gpt(params, tokens):
    """Eight blocks of attention and a wide layer."""
    h = params["embed"][tokens]
    for A, up, down in zip(params["A"], params["up"], params["down"], strict=True):
        q, k, v = jnp.split(layer_norm(h) @ A, 3, -1)
        mask = jnp.tril(jnp.ones((tokens.size, tokens.size), bool))
        h = h + jax.nn.softmax(jnp.where(mask, q @ k.T, -1e9)) @ v
        h = h + good(layer_norm(h) @ up) @ down
    scores = jax.nn.log_softmax(layer_norm(h) @ params["embed"].T)
    return -jnp.mean(jnp.take_along_axis(scores[:-1], tokens[1:, None], -1))


def _parameters():
    draw = np.random.default_rng(2).normal
    shapes = {"embed": (5, 8), "A": (8, 8, 24), "up": (8, 8, 16), "down": (8, 16, 8)}
    return {name: 0.3 * draw(size=shape) for name, shape in shapes.items()}


NETWORKS = [
    Case("55 residual", residual, (np.stack([W] * 12), x), "exact", exact=("good",)),
    Case(
        "55 lstm",
        lstm,
        (0.3 * wide[0, :128].reshape(8, 16), wide[:, :40].reshape(20, 2, 4)),
        "exact",
    ),
    Case("55 gpt", gpt, (_parameters(), np.array([0, 3, 1, 4, 2, 2])), "exact"),
]


@table(NETWORKS)
def test_right_networks(case):
    check(case)

"""How `hj.verify(fn, *args)` is called: what is differentiated, what is cut, what is refused."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hjcontrol as hj
from tests.verification.cases import Case, W, bad, check, good, pair, rule, table, tanh, x

total = lambda f: lambda *args: jnp.sum(f(*args) ** 2)
two = lambda x, W: jnp.sum(good(x @ W)) + jnp.sum(bad(x))
left = rule(lambda x, W: x @ W, lambda r, p: (1.01 * p @ r[1].T, r[0].T @ p), name="left")
loss = lambda c: lambda x, W: (jnp.sum(tanh(c)(x @ W) ** 2), {"extra": x, "words": 3})
many = lambda c: lambda x, W: {"a": tanh(c)(x @ W), "b": (jnp.sum(x), jnp.arange(3))}


def looped(c):
    """A `while` without a fixed length, `bad` in its third turn."""
    third, rest = tanh(c), tanh()
    turn = lambda s: (jax.lax.cond(s[1] == 3, third, rest, s[0]), s[1] + 1)
    return lambda x: jnp.sum(jax.lax.while_loop(lambda s: s[1] < 5, turn, (x, 0))[0])


def scan_within(around):
    """A scan of three in a `while`, or in a branch of a `cond` in a `while`."""

    def made(c):
        act = tanh(c)
        three = lambda y: jax.lax.scan(lambda h, _: (act(h), None), y, None, length=3)[0]
        inner = (
            three if around == "while" else lambda y: jax.lax.cond(y.sum() > -9e9, three, good, y)
        )
        turn = lambda s: (inner(s[0]), s[1] + 1)
        return lambda x: jnp.sum(jax.lax.while_loop(lambda s: s[1] < 2, turn, (x, 0))[0])

    return made


# ------------------------------------------------------------------ stop_gradient

average = lambda W, old: jnp.sum((x @ W - jax.lax.stop_gradient(x @ old)) ** 2)
shadow = lambda W: jnp.sum((x @ W - jax.lax.stop_gradient(x @ W + 1.0)) ** 2)
straight = lambda x: jnp.sum((x + jax.lax.stop_gradient(jnp.round(x) - x)) ** 2)
harmless = lambda x: jnp.sum(x - jax.lax.stop_gradient(jnp.max(x))) ** 2 * 0 + jnp.sum(good(x))
unused = lambda x: jnp.sum(good(x) + 0 * jax.lax.stop_gradient(x))
inside = rule(
    lambda x: x * jax.lax.stop_gradient(jnp.tanh(x)), lambda r, p: (p * jnp.tanh(r[0]),), name="in"
)

random, second, every = {"costate": "random"}, {"order": 2}, {"every": True}
CALLS = [
    Case("all arguments", two, (x, W), "refuted"),
    Case("argnums apart from the fault", two, (x, W), "exact", {"argnums": 1}),
    Case("argnums at the fault", two, (x, W), "refuted", {"argnums": (0,)}),
    Case("argument right", total(left), (x, W), "exact", {"argnums": 1}),
    Case("argument wrong", total(left), (x, W), "refuted", {"argnums": 0}),
    Case("aux right", loss(1.0), (x, W), "exact", {"has_aux": True}),
    Case("aux wrong", loss(1.01), (x, W), "refuted", {"has_aux": True}),
    Case("outputs right", many(1.0), (x, W), "exact", words="not scalar"),
    Case("outputs wrong", many(1.01), (x, W), "refuted", words="not scalar"),
    Case("while right", looped(1.0), (x,), "exact", random),
    *pair("scan in while", scan_within("while"), (x,), worst={"rule": "bad"}, options=random),
    *pair(
        "scan in cond in while",
        scan_within("cond"),
        (x,),
        verdict="untested",
        worst={"rule": "bad"},
        options=random,
    ),
    Case("while wrong", looped(1.01), (x,), "refuted", random, worst={"iteration": (3,)}),
    Case("scan at random", lambda x: jnp.sum(jax.lax.map(bad, x)), (x,), "refuted", random),
    Case("every right", lambda x: jnp.sum(jnp.tanh(x @ W) ** 2), (x,), "exact", every),
    Case("every wrong", lambda x: jnp.sum(jnp.sin(bad(x)) ** 2), (x,), "refuted", every),
    Case("second right", lambda x: jnp.sum(jnp.sin(good(x))), (x,), "exact", second),
    Case("second wrong", lambda x: jnp.sum(jnp.sin(bad(x))), (x,), "refuted", second),
    Case("target of an average", average, (W, 0.9 * W), "detached"),
    Case("target apart", average, (W, 0.9 * W), "no custom rule", {"argnums": 0}),
    Case("its own target", shadow, (W,), "detached"),
    Case("straight through", straight, (x,), "detached"),
    Case("no costate to cut", unused, (x,), "untested", words="not seen"),
    Case("stop_gradient inside a rule", total(inside), (x,), "exact"),
    Case("optax", lambda z: jnp.sum(optax.huber_loss(bad(z), jnp.ones_like(z))), (x,), "refuted"),
    Case("optax right", lambda z: jnp.sum(optax.log_cosh(good(z))), (x,), "exact"),
]


@table(CALLS)
def test_calls(case):
    found = check(case)
    if case.options.get("costate") == "random":
        assert found.worst.reach is None


def test_declarations():
    """Only what is declared is excused, and a right rule needs none."""
    soft = hj.deliberate("a surrogate")(rule(jnp.sign, lambda r, p: (p / (1 + r[0] ** 2),)))
    check(Case("declared", lambda x: jnp.sum(soft(x) * x), (x,), "deliberate", words="a surrogate"))
    other = lambda x: jnp.sum(soft(x) * bad(x))
    check(Case("another", other, (x,), "refuted", worst={"rule": "bad"}))
    right = hj.deliberate("none needed")(good)
    check(Case("right", lambda x: jnp.sum(right(x)), (x,), "exact"))
    with pytest.raises(ValueError, match="`reason`"):
        hj.deliberate("")


# ------------------------------------------------------------------ models


class Net(eqx.Module):
    W: jax.Array
    act: object = eqx.field(static=True)

    def __call__(self, x):
        return self.act(x @ self.W)


@pytest.mark.parametrize(("act", "verdict"), [(good, "exact"), (bad, "refuted")])
def test_models(act, verdict):
    net = Net(jnp.asarray(W), act)
    cost, against = (lambda y: jnp.sum(y**2)), (lambda y, t: jnp.sum((y - t) ** 2))
    assert hj.verify(net, inputs=x, cost=cost).verdict == verdict
    assert hj.verify(net, inputs=x, targets=x + 1, cost=against).verdict == verdict
    assert hj.verify(lambda x: act(x @ W), inputs=x, cost=cost).verdict == verdict


def test_a_wrong_cost_is_a_place():
    cost = rule(lambda y: jnp.sum(y**2), lambda r, p: (2.02 * p * r[0],), name="square")
    found = hj.verify(Net(jnp.asarray(W), good), inputs=x, cost=cost)
    assert (found.verdict, found.worst.rule) == ("refuted", "square")


# ------------------------------------------------------------------ stop_gradient inside a stage

seen = lambda x, w: x + jnp.tanh(x @ w) - jnp.mean(x)
hidden = lambda x, w: x + jnp.tanh(x @ w) - jax.lax.stop_gradient(jnp.mean(x))
attending = lambda x, w: jax.nn.softmax(x @ w)


@pytest.mark.parametrize("deep", [1, 2])
def test_what_a_stage_cuts_is_said_with_its_stage_and_line(deep):
    stages = [(seen, W), *[(hidden, W)] * deep, (attending, W)]
    found = hj.verify(stages, inputs=x, cost=lambda z: jnp.sum(z**3))
    (row,) = [r for r in found.rows if r.kind == "stop_gradient"]
    assert found.verdict == row.verdict == "detached"
    assert (row.stage, row.file, row.scope) in [(k, __file__, "") for k in range(1, 1 + deep)]
    assert hj.verify([(seen, W)] * 3, inputs=x, cost=lambda z: jnp.sum(z**3)).verdict == "exact"


@pytest.mark.parametrize(("room", "verdict"), [(1e-6, "refuted"), (0.0, "untested")])
def test_a_guard_that_roundoff_trips_leaves_its_stage_untested(room, verdict):
    def guarded(x, w):
        y = bad(x @ w)
        return eqx.error_if(y, 2 * y > 2 * jnp.max(y) + room, "too large")

    found = hj.verify([(guarded, W)], inputs=x, cost=lambda z: jnp.sum(z**2))
    assert found.verdict == verdict
    assert verdict == "refuted" or "guard" in str(found)


def test_what_a_cost_cuts_is_said():
    cost = lambda z: jnp.sum(z * jax.lax.stop_gradient(z))
    found = hj.verify([(seen, W)], inputs=x, cost=cost)
    (row,) = [r for r in found.rows if r.kind == "stop_gradient"]
    assert (found.verdict, row.stage) == ("detached", 1)


# ------------------------------------------------------------------ what certificates do


def test_the_certificate_raises_what_it_says():
    found = hj.verify(straight, x)
    with pytest.raises(hj.verification.VerificationError, match="detached"):
        found.raise_for_verdict()
    found.raise_for_verdict(allow=("detached",))
    hj.verify(total(good), x).raise_for_verdict()
    with pytest.raises(ValueError, match="allow"):
        found.raise_for_verdict(allow=("fine",))


def test_the_verdict_does_not_depend_on_the_key():
    for k in range(4):
        key = jax.random.key(k)
        assert hj.verify(total(good), x, key=key).verdict == "exact"
        assert hj.verify(total(bad), x, key=key).verdict == "refuted"


# ------------------------------------------------------------------ bad input


def closed_over(x):
    scale = jnp.sum(x)

    @jax.custom_jvp
    def act(z):
        return z * scale

    act.defjvp(lambda at, v: (act(*at), v[0] * scale))
    return jnp.sum(act(x))


def own_loop(x):
    return jax.lax.while_loop(lambda s: s[1] < x[0, 0], lambda s: (bad(s[0]), s[1] + 1), (x, 0.0))[
        0
    ]


fine, weights = total(good), [{"W": W}]
ZERO, NAN, INF = 0.0, float("nan"), float("inf")
BAD = [
    ("no arguments", lambda: hj.verify(fine), "arguments"),
    ("too few arguments", lambda: hj.verify(two, x), "trace"),
    ("not traceable", lambda: hj.verify(lambda x: float(x[0, 0]), x), "trace"),
    ("branch on a value", lambda: hj.verify(lambda x: x if x[0, 0] > 0 else -x, x), "trace"),
    ("integers out", lambda: hj.verify(lambda x: jnp.argmax(x), x), "differentiable"),
    ("nothing out", lambda: hj.verify(lambda x: None, x), "differentiable"),
    ("integers in", lambda: hj.verify(fine, np.arange(3)), "nothing to differentiate"),
    ("cut entirely", lambda: hj.verify(lambda x: jax.lax.stop_gradient(x).astype(int), x), "diff"),
    *[(f"tolerance {t}", lambda t=t: hj.verify(fine, x, tol=t), "`tol`")
      for t in (ZERO, -1.0, NAN, INF, "1", True)],
    ("argnums", lambda: hj.verify(fine, x, argnums=3), "`argnums`"),
    ("no argnums", lambda: hj.verify(fine, x, argnums=()), "`argnums`"),
    ("costate", lambda: hj.verify(fine, x, costate="none"), "`costate`"),
    ("order", lambda: hj.verify(fine, x, order=3), "`order`"),
    ("key", lambda: hj.verify(fine, x, key=3.5), "`key`"),
    ("class", lambda: hj.verify(Net, x), "class"),
    ("number", lambda: hj.verify(3.0, x), "function"),
    ("inputs without cost", lambda: hj.verify(fine, inputs=x), "`cost`"),
    ("cost without inputs", lambda: hj.verify(fine, cost=jnp.sum), "`inputs`"),
    ("routes of a function", lambda: hj.verify(fine, x, routes=("backprop",) * 2), "`routes`"),
    ("order of a chain", lambda: hj.verify([jnp.tanh], inputs=x, cost=jnp.sum, order=2), "`order`"),
    ("weights of another structure",
     lambda: hj.verify([jnp.tanh], inputs=x, cost=jnp.sum, weights=weights), "weights"),
    ("a rule over a tracer", lambda: hj.verify(closed_over, x), "closes over"),
    ("a loop without a length", lambda: hj.verify(own_loop, x), "while_loop"),
    ("aux without a pair", lambda: hj.verify(fine, x, has_aux=True), "has_aux"),
    ("under jit", lambda: jax.jit(lambda x: hj.verify(fine, x).cost)(x), "jit"),
    ("under vmap", lambda: jax.vmap(lambda x: hj.verify(fine, x).cost)(x), "vmap"),
    ("under grad", lambda: jax.grad(lambda x: hj.verify(fine, x).cost)(x), "grad"),
    ("words in", lambda: hj.verify(fine, "x"), "str"),
]  # fmt: skip


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("call", "words"), [b[1:] for b in BAD], ids=[b[0] for b in BAD])
def test_bad_input_is_refused_in_our_words(call, words):
    with pytest.raises((ValueError, TypeError), match=words) as found:
        call()
    assert type(found.value) in (ValueError, TypeError)
    assert "verify" in str(found.value)


def test_progress_says_what_is_done():
    square = jax.custom_vjp(lambda x: x**2)
    square.defvjp(lambda x: (x**2, x), lambda x, p: (3 * x * p,))
    said: list[str] = []
    hj.verify(lambda x: jnp.sum(square(x)), jnp.ones(2), progress=said.append)
    assert said[:2] == ["tracing", "measuring 1 places"]
    assert said[2].startswith("trying ")
    assert "test_calls.py" in said[2]
    with pytest.raises(TypeError, match="progress"):
        hj.verify(lambda x: jnp.sum(x), jnp.ones(2), progress=3)

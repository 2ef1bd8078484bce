"""Attention is a Gibbs mean, a block is what it says; checked by other arithmetic than its own.

dlse(z + lam V)/dlam at 0        Im lse(z + i h V)/h        weights from distances       a loop in NumPy
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hjcontrol as hj
from hjcontrol.deformation import lse
from hjcontrol.hamilton_jacobi import hopf_cole
from hjcontrol.layers import Attention, key_norms
from hjcontrol.networks import (
    Block,
    Embed,
    FeedForward,
    LayerNorm,
    LSEUnits,
    MeanPool,
    SelfAttention,
    SoftplusUnits,
    lift,
    readout,
)
from tests.agreement import assert_agree, disagreement

TOKENS, WIDTH, HEADS = 5, 6, 2
DRAW = np.random.default_rng(11)
X = jnp.asarray(DRAW.standard_normal((TOKENS, WIDTH)))
SEEN = np.array([True, True, False, True, True])
PAIRS = np.tril(np.ones((TOKENS, TOKENS), bool))


def drawn(theta, seed=5):
    """Weights of the same shapes, biases, scales and shifts included."""
    draw = np.random.default_rng(seed)
    return jax.tree.map(lambda a: jnp.asarray(0.5 * draw.standard_normal(a.shape)), theta)


def projections(theta, x):
    split = lambda a: (np.asarray(x) @ np.asarray(a.W).T + np.asarray(a.b)).reshape(
        TOKENS, HEADS, -1
    )
    return (split(a).swapaxes(0, 1) for a in (theta.query, theta.key, theta.value))


def loop(theta, x, mask, eps, form):
    """Attention, one query and one head at a time, by exponentials and their sum."""
    out = np.zeros((TOKENS, WIDTH))
    for h, (q, k, v) in enumerate(zip(*projections(theta, x), strict=True)):
        for i in range(TOKENS):
            keys = [j for j in range(TOKENS) if mask is None or mask[i, j]]
            z = [q[i] @ k[j] if form == "dot" else -0.5 * np.sum((q[i] - k[j]) ** 2) for j in keys]
            e = np.exp((np.array(z) - max(z)) / eps)
            out[i, h * 3 : h * 3 + 3] = sum(
                w * v[j] for w, j in zip(e / e.sum(), keys, strict=True)
            )
    return out @ np.asarray(theta.output.W).T + np.asarray(theta.output.b)


@pytest.mark.parametrize("form", ["dot", "distance"])
def test_several_heads_are_the_loop_over_heads_and_queries(form, key):
    stage = SelfAttention(WIDTH, HEADS, form=form)
    theta = drawn(stage.init(key))
    masks = {"none": None, "keys": np.broadcast_to(SEEN, PAIRS.shape), "causal": PAIRS}
    step = jax.jit(lambda *a: stage.step(*a))
    for mask in masks.values():
        assert_agree(step(X, theta, mask), loop(theta, X, mask, np.sqrt(3.0), form), 1e-14)
    assert_agree(step(X, theta, SEEN), step(X, theta, masks["keys"]), 0.0)
    assert disagreement(step(X, theta, PAIRS), step(X, theta, None)) > 1e-2


def test_the_output_is_the_derivative_of_a_tilted_log_sum_exp():
    q, k, v = (DRAW.standard_normal((n, 4)) for n in (3, TOKENS, TOKENS))
    mask = np.array([[1, 1, 0, 1, 1], [1, 0, 0, 0, 0], [1, 1, 1, 1, 1]], bool)
    eps = 1.3
    out = jax.jit(lambda: Attention(eps)(q, k, v, mask).output)()
    z = np.where(mask, q @ k.T, -np.inf)
    tilted = lambda lam, a, row: lse(row + lam * a, eps)
    slope = jax.jit(jax.vmap(jax.vmap(jax.grad(tilted), (None, 1, None)), (None, None, 0)))
    assert_agree(out, slope(0.0, v, z), 1e-14)
    # Complex step, in NumPy alone: the imaginary part has nothing to cancel.
    h = 1e-30
    for a in range(4):
        moved = np.where(mask, z - z.max(axis=1, keepdims=True), 0) + 1j * h * v[:, a]
        values = np.log(np.sum(np.where(mask, np.exp(moved / eps), 0), axis=1))
        assert_agree(out[:, a], eps * values.imag / h, 1e-14)


def test_distances_and_dot_products_differ_by_the_norms_of_the_keys():
    q, k, v = (DRAW.standard_normal((n, 4)) for n in (3, TOKENS, TOKENS))
    unit = k / np.linalg.norm(k, axis=1, keepdims=True)
    eps = 0.8

    @jax.jit
    def both(k):
        dot, distance = Attention(eps), Attention(eps, "distance")
        corrected = distance.logits(q, k) + key_norms(k)[None, :]
        return dot(q, k, v), distance(q, k, v), jax.nn.softmax(corrected / eps, axis=1)

    dot, distance, corrected = both(unit)
    assert_agree(dot.weights, distance.weights, 1e-14)
    assert_agree(dot.weights, corrected, 1e-14)
    dot, distance, corrected = both(k)
    assert_agree(dot.weights, corrected, 1e-14)
    assert disagreement(dot.weights, distance.weights) > 1e-2, "keys of unequal norms"
    for row in (dot, distance):  # the Gibbs state minimises the free energy: E = <-z> - eps H
        assert np.all(np.asarray(row.gap) <= 1e-14)
    mean = np.sum(np.asarray(dot.weights) * (q @ k.T), axis=1)
    assert_agree(dot.energy, -mean - eps * np.asarray(dot.entropy), 1e-14)


def test_a_head_is_a_viscous_solution():
    q, k = DRAW.standard_normal((3, 4)), DRAW.standard_normal((TOKENS, 4))
    eps = 0.7
    square = np.sum(q**2, axis=1)

    @jax.jit
    def both(t):
        found = []
        for form in ("dot", "distance"):
            head = Attention(eps, form)
            data = head.initial_data(k, t)
            u = jax.vmap(lambda x, data=data: hopf_cole(data, x, t, eps, normalisation="raw"))(q)
            found.append((head(q, k, k).energy, u))
        return found

    for t in (0.5, 1.7):
        (dot, u), (distance, w) = both(t)
        assert_agree(-np.asarray(dot), square / (4 * t) - np.asarray(u), 1e-13)
        assert_agree(-np.asarray(distance), square / (4 * t) - square / 2 - np.asarray(w), 1e-13)


def test_norm_units_and_blocks_are_what_they_say(key):
    x = np.asarray(X)
    scale, shift = DRAW.standard_normal((2, WIDTH))
    norm = LayerNorm(WIDTH, 1e-3)
    N = lambda u, th: (
        (u - u.mean(1, keepdims=True))
        / np.sqrt(u.var(1, keepdims=True) + 1e-3)
        * np.asarray(th.scale)
        + np.asarray(th.shift)
    )
    theta = norm.init(key)._replace(scale=jnp.asarray(scale), shift=jnp.asarray(shift))
    assert_agree(norm.step(X, theta), N(x, theta), 1e-14)

    soft = lambda a: np.logaddexp(0, a / 0.4) * 0.4
    grouped = lambda a: 0.4 * np.log(np.sum(np.exp(a.reshape(TOKENS, 7, 3) / 0.4), axis=2))
    for units, by_hand in (
        (SoftplusUnits(0.4), soft),
        (LSEUnits(3, 0.4), grouped),
        (jnp.tanh, np.tanh),
    ):
        feed = FeedForward(WIDTH, 7, units)
        attend = SelfAttention(WIDTH, HEADS)
        F = lambda u, th, by_hand=by_hand: (
            by_hand(u @ np.asarray(th.inward.W).T + np.asarray(th.inward.b))
            @ np.asarray(th.outward.W).T
            + np.asarray(th.outward.b)
        )
        A = lambda u, th: loop(th, u, PAIRS, np.sqrt(3.0), "dot")
        for order in ("pre", "post"):
            block = Block(attend, feed, norm, order)
            theta = drawn(block.init(key))
            a, b = theta.attention_norm, theta.feed_forward_norm
            if order == "pre":
                want = x + A(N(x, a), theta.attention)
                want = want + F(N(want, b), theta.feed_forward)
            else:
                want = N(x + A(x, theta.attention), a)
                want = N(want + F(want, theta.feed_forward), b)
            assert_agree(
                jax.jit(lambda *a, block=block: block.step(*a))(X, theta, PAIRS), want, 1e-13
            )


def test_a_token_that_is_masked_changes_nothing(key):
    block = Block(SelfAttention(WIDTH, HEADS), FeedForward(WIDTH, 7), LayerNorm(WIDTH))
    theta = drawn(block.init(key))
    pooled = jax.jit(lambda x: MeanPool().step(block.step(x, theta, SEEN), (), SEEN))
    other = X.at[2].set(100 * DRAW.standard_normal(WIDTH))
    assert_agree(pooled(X), pooled(other), 0.0)
    short = block.step(X[SEEN], theta)  # as if it were absent
    assert_agree(pooled(X), jnp.mean(short, axis=0), 1e-14)
    slopes = jax.jit(jax.jacobian(lambda x: MeanPool().step(block.step(x, theta, SEEN), (), SEEN)))(
        X
    )
    assert np.all(np.asarray(slopes)[:, 2] == 0)
    assert np.all(np.isfinite(slopes))


def test_a_masked_post_norm_transformer_is_verified(key):
    parts = SelfAttention(WIDTH, HEADS), FeedForward(WIDTH, 5, LSEUnits(2, 0.3)), LayerNorm(WIDTH)
    block = Block(*parts, "post")
    masks = np.array([SEEN, ~SEEN, SEEN[::-1], np.ones(TOKENS, bool)])
    problem = hj.ControlProblem(
        [Embed(TOKENS, 4, WIDTH), block, block, MeanPool(), readout(WIDTH, 3)],
        DRAW.standard_normal((4, TOKENS, 4)),
        np.arange(4) % 3,
        terminal=hj.control.softmax_cross_entropy,
        context=masks,
    )
    assert [run.length for run in problem.chain.runs] == [1, 2, 1, 1]
    weights = jax.eval_shape(problem.init, key)
    certificate = hj.verify(problem, drawn(weights))
    assert certificate.verdict == "exact", str(certificate)
    assert max(certificate.agreement.values()) < 1e-12


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: SelfAttention(6, 4),
            "`num_heads` must divide `width`; found width 6, num_heads 4",
        ),
        (lambda: Attention(1.0, "cosine"), "one of 'dot', 'distance'; found 'cosine'"),
        (lambda: SoftplusUnits(-1.0), "`eps` must be >= 0; found -1.0"),
        (
            lambda: Block(SelfAttention(6), FeedForward(5, 3), LayerNorm(6)),
            r"one width; found \(6, 5, 6\)",
        ),
        (lambda: Block(SelfAttention(6), FeedForward(6, 3), LayerNorm(6), "mid"), "found 'mid'"),
        (
            lambda: SelfAttention(6).step(X, SelfAttention(6).init(jax.random.key(0)), SEEN[:4]),
            r"\(5,\) or \(5, 5\) is needed.*found bool of shape \(4,\)",
        ),
    ],
)
def test_wrong_pieces_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_lifts_are_tokenwise(key):
    stage = Embed(TOKENS, WIDTH, 3)
    theta = drawn(stage.init(key))
    want = jax.vmap(lift(WIDTH, 3).step, (0, None))(jnp.asarray(X), theta.features) + theta.places
    assert_agree(stage.step(X, theta), want, 1e-15)

"""Laws of the streaming log-sum-exp: tiles do not matter, to second derivatives, in bounded memory."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

from hjcontrol.deformation import gibbs, lse
from hjcontrol.deformation.streaming import streaming_gibbs_mean, streaming_lse
from tests.agreement import assert_agree

TILES = [(3, 4), (7, 11), (512, 1024)]


def plain(X, W, b, eps):
    return lse(X @ W.T + b[None, :], eps)


@pytest.fixture
def scores(key):
    one, two, three = jax.random.split(key, 3)
    shapes = (7, 3), (11, 3), (11,)
    return [2 * jax.random.normal(k, s) for k, s in zip((one, two, three), shapes, strict=True)]


@pytest.mark.parametrize("tile", TILES)
def test_values_and_derivatives_are_those_of_the_plain_sum(tile, scores):
    loss = lambda f: lambda *a: jnp.sum(jnp.sin(f(*a)))
    streamed = lambda X, W, b, e: streaming_lse(X, W, b, e, tile=tile)
    both = [jax.jit(jax.value_and_grad(loss(f), (0, 1, 2, 3))) for f in (plain, streamed)]
    for eps in (0.0, 1e-3, 0.3, 50.0):
        one, two = (f(*scores, jnp.asarray(eps)) for f in both)
        assert_agree(one, two, 1e-11)


def test_second_derivatives_stream_too(scores):
    X, W, b = scores

    def product(f):
        slope = jax.grad(lambda X, W: jnp.sum(jnp.sin(f(X, W, b, 0.3))), (0, 1))
        return jax.jit(jax.grad(lambda X, W: sum(jnp.sum(jnp.cos(s)) for s in slope(X, W)), (0, 1)))

    streamed = lambda X, W, b, e: streaming_lse(X, W, b, e, tile=(3, 4))
    assert_agree(product(plain)(X, W), product(streamed)(X, W), 1e-11)


def test_means_are_gibbs_averages_and_the_gradient(scores):
    X, W, b = scores
    for eps in (0.0, 0.3):
        means = streaming_gibbs_mean(X, W, b, W, eps, tile=(3, 4))
        assert_agree(means, gibbs(X @ W.T + b[None, :], eps) @ W, 1e-14)
        slope = jax.grad(lambda X, eps=eps: jnp.sum(streaming_lse(X, W, b, eps, tile=(3, 4))))(X)
        assert_agree(means, slope, 1e-14)
    cold = streaming_gibbs_mean(X, W, b, W, 0.0)
    assert float(jnp.max(jnp.abs(means - cold))) > 1e-2  # twin: another temperature


def test_ties_at_eps_zero_share_alike(scores):
    X, W, b = scores
    twice = jnp.concatenate([W, W]), jnp.concatenate([b, b])
    slope = jax.grad(lambda b: jnp.sum(streaming_lse(X, twice[0], b, 0.0, tile=(2, 5))))(twice[1])
    assert_agree(slope[:11], slope[11:], 0.0)
    assert_agree(jnp.sum(slope), jnp.asarray(7.0), 1e-14)
    heat = jax.grad(lambda e: jnp.sum(streaming_lse(X, *twice, e, tile=(2, 5))))(0.0)
    assert_agree(heat, 7 * np.log(2), 1e-13)


def test_masked_atoms_are_as_if_absent(scores):
    X, W, b = scores
    masked = b.at[jnp.array([0, 5])].set(-jnp.inf)
    kept = jnp.array([1, 2, 3, 4, 6, 7, 8, 9, 10])
    for eps in (0.0, 0.3):
        f = lambda X, W, b, eps=eps: jnp.sum(streaming_lse(X, W, b, eps, tile=(3, 4)))
        one = jax.value_and_grad(f)(X, W, masked)
        assert_agree(one, jax.value_and_grad(f)(X, W[kept], b[kept]), 1e-14)
        slope = jax.grad(f, 2)(X, W, masked)
        assert_agree(slope[jnp.array([0, 5])], jnp.zeros(2), 0.0)
        none = streaming_lse(X, W, jnp.full(11, -jnp.inf), eps)
        assert bool(jnp.all(jnp.isneginf(none)))
        nothing = jax.grad(f)(X, W, jnp.full(11, -jnp.inf))
        assert_agree(nothing, jnp.zeros_like(X), 0.0)


@pytest.mark.any_precision
@pytest.mark.smoke
def test_extreme_scores_and_temperatures_are_never_nan(scores):
    X, W, b = scores
    for scale in (1e-30, 1.0, 1e15):
        for eps in (0.0, 1e-30, 1e-3, 1e12):
            f = lambda X, W, b, e: jnp.sum(streaming_lse(X, W, b, e, tile=(3, 4)))
            found = jax.value_and_grad(f, (0, 1, 2, 3))(scale * X, W, b, jnp.asarray(eps, X.dtype))
            assert all(np.isfinite(np.asarray(a)).all() for a in jax.tree.leaves(found))


def test_a_million_atoms_in_bounded_memory(key):
    """The program's own account: scores would take 512 MiB, tiles take a few."""
    n, atoms, d = 64, 1_000_000, 2
    f = jax.jit(
        lambda X, W, b: jax.value_and_grad(lambda X: jnp.sum(streaming_lse(X, W, b, 0.1)))(X)
    )
    X, W, b = jnp.zeros((n, d)), jax.random.normal(key, (atoms, d)), jnp.zeros(atoms)
    compiled = f.lower(X, W, b).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 200e6
    whole = jax.jit(plain).lower(X, W, b, 0.1).compile().memory_analysis().temp_size_in_bytes
    assert whole > 400e6  # twin: the plain sum forms them all
    value, slope = compiled(X, W, b)
    assert_agree(value, 64 * jnp.asarray(0.1 * np.log(atoms)), 1e-12)
    assert_agree(slope, jnp.broadcast_to(jnp.mean(W, 0)[None, :], X.shape), 1e-12)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda X, W, b: streaming_lse(X, W[:0], b[:0], 0.1), "at least one atom"),
        (lambda X, W, b: streaming_lse(X[:, :2], W, b, 0.1), "W` must be an array of floats"),
        (lambda X, W, b: streaming_lse(X, W, b[:3], 0.1), "b` must be an array of floats"),
        (lambda X, W, b: streaming_lse(X, W, b, -0.1), "`eps` must be >= 0"),
        (lambda X, W, b: streaming_lse(X, W, b, jnp.ones(2)), "`eps` must be a real number"),
        (lambda X, W, b: streaming_lse(X, W, b, 0.1, tile=(0, 5)), "at least one query"),
        (lambda X, W, b: streaming_gibbs_mean(X, W, b, W[:3], 0.1), "where N = 11"),
    ],
)
def test_bad_input_is_refused(make, message, scores):
    with pytest.raises(ValueError, match=message):
        make(*scores)


@pytest.mark.parametrize("tile", [(512, 1024), (1, 1)])
@pytest.mark.parametrize("order", [[0.0, -40.0], [-40.0, 0.0], [-41.0, 0.0, -40.0]])
def test_a_value_near_zero_keeps_its_digits(order, tile):
    """60 digits: log1p(exp -40) = 4.248354255291589e-18."""
    b = jnp.asarray(order)
    X, W = jnp.zeros((1, 1)), jnp.zeros((b.size, 1))
    with mpmath.workdps(60):
        want = mpmath.log(mpmath.fsum(mpmath.exp(mpmath.mpf(v)) for v in order))
    f = lambda b: streaming_lse(X, W, b, 1.0, tile=tile)[0]
    assert abs(float(f(b)) / float(want) - 1) < 1e-15
    small = jnp.asarray(np.exp(np.array(order)) / (1 + 4e-18))
    np.testing.assert_allclose(jax.grad(f)(b), small, rtol=1e-15)
    twice = jax.grad(lambda b: jnp.sum(jax.grad(f)(b) * jnp.arange(1.0, b.size + 1)))(b)
    pi, c = np.asarray(small), np.arange(1.0, b.size + 1)
    np.testing.assert_allclose(twice, pi * (c - pi @ c), atol=1e-16)
    by_eps = jax.grad(lambda e: streaming_lse(X, W, b, e, tile=tile)[0])(jnp.asarray(1.0))
    entropy = float(want) - float(sum(p * v for p, v in zip(small, order, strict=True)))
    assert abs(float(by_eps) / entropy - 1) < 1e-13

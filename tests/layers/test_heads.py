"""Heads: classes of atoms are a soft maximum in two stages, at every temperature and depth."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hjcontrol.layers import LSE, ClassHead, LogitHead, Softmax

W, B = np.random.default_rng(0).normal(size=(7, 3)), np.linspace(-1, 1, 7)
CLASSES = np.array([0, 2, 1, 0, 2, 2, 1])
X = jnp.asarray(np.random.default_rng(1).normal(size=(9, 3)))


@jax.jit
def both(eps):
    """Everything two heads say of the same logits: one as a layer, one as a function."""

    def said(head):
        model = ClassHead(head, CLASSES)
        return jax.vmap(
            lambda x: (head(x), head.weights(x), model.scores(x), model.shares(x), model.predict(x))
        )(X)

    return said(LSE(W, B, eps)), said(LogitHead(lambda x: W @ x + B, eps))


@pytest.mark.any_precision
@pytest.mark.parametrize("eps", [0.0, 0.4, 3.0])
def test_classes_are_a_soft_maximum_in_two_stages(eps):
    one, two = both(eps)
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a, b)
    f, pi, scores, shares, label = map(np.asarray, one)
    roundoff = 50 * np.finfo(f.dtype).eps
    again = scores.max(axis=1)
    if eps > 0:
        again = again + eps * np.log(np.exp((scores - again[:, None]) / eps).sum(axis=1))
    np.testing.assert_allclose(again, f, rtol=0, atol=roundoff * 10)
    summed = np.stack([pi[:, c == CLASSES].sum(axis=1) for c in range(3)], axis=1)
    np.testing.assert_allclose(shares, summed, rtol=0, atol=roundoff)
    np.testing.assert_array_equal(label, shares.argmax(axis=1))
    # The twin: the largest single atom does not always decide once eps > 0.
    assert (CLASSES[pi.argmax(axis=1)] == label).all() or eps > 0


@pytest.mark.any_precision
def test_a_masked_logit_is_refused_by_an_affine_layer_and_taken_by_softmax():
    x = jnp.array([0.5, -jnp.inf])
    with pytest.raises(ValueError, match="must be finite; found -inf"):
        LSE(jnp.eye(2), jnp.zeros(2), 0.3).scores(x)
    assert np.array_equal(Softmax(0.3)(x), [1.0, 0.0])
    masked = LSE(jnp.eye(2), jnp.array([0.0, -jnp.inf]), 0.3)  # an atom that is absent
    assert np.array_equal(masked.weights(jnp.ones(2)), [1.0, 0.0])

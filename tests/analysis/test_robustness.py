"""How far the output moves: exact constants, bounds that hold and are attained, attacks."""

from fractions import Fraction

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hjcontrol as hj
from hjcontrol.analysis import robustness as rb
from hjcontrol.layers import LSE, ClassHead, LogitHead
from tests.agreement import assert_agree
from tests.analysis.pieces import classifier, deep, layer, points
from tests.oracles.flip_radius import flip_radius

PAIR = LSE(jnp.array([[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]]), jnp.zeros(2), 0.2)
X = points(16)


@pytest.fixture(scope="module")
def curvatures():
    return eqx.filter_jit(jax.vmap(rb.layer_curvature, in_axes=(None, 0)))


@pytest.fixture(scope="module")
def attacks():
    """Attack on `sign (f(x + d) - f(x))`, one sample each."""

    @jax.jit
    @jax.vmap
    def go(x, key):
        a = layer()
        up = rb.attack(a, x, 0.7, key=key)
        down = rb.attack(lambda y: -a(y), x, 0.7, key=key)
        return up, down, rb.change(a, x, 0.7), a(x)

    return go


def test_the_lipschitz_constant_is_exact_and_knows_no_eps():
    a = layer()
    M = rb.lipschitz(a)
    assert_agree(M, jnp.linalg.norm(a.W, axis=1).max())
    sizes = jax.jit(jax.vmap(lambda e, s: jnp.linalg.norm(LSE(a.W, a.b, e).slope(s))))
    v = a.W[jnp.argmax(jnp.linalg.norm(a.W, axis=1))]
    eps = jnp.array([0.0, 0.1, 1.0, 3.0] * 4)
    assert bool(jnp.all(sizes(eps, X) <= M * (1 + 1e-14)))
    assert_agree(sizes(eps, jnp.broadcast_to(100.0 * v, (16, 3))), jnp.full(16, M))


@pytest.mark.parametrize("model", [layer(), deep()], ids=["affine", "deep"])
def test_the_hessian_formula_at_any_depth(curvatures, model):
    found = curvatures(model, X)
    exact = jax.jit(jax.vmap(jax.hessian(model)))(X)
    assert_agree(found.hessian, exact)
    affine = isinstance(model, LSE)
    if affine:
        assert bool(jnp.all(found.norm <= found.sharp))
        assert bool(jnp.all(found.sharp <= found.published))
    else:  # the twin: the covariance alone is not the Hessian of a deep network
        assert float(jnp.min(jnp.max(jnp.abs(found.spread - exact), axis=(1, 2)))) > 1e-3
        assert bool(jnp.all(jnp.isnan(found.sharp)))
    one = jax.tree.map(lambda a: a[0], found)
    assert ("as published" in str(one)) == affine


def test_the_sharp_bound_is_attained_by_a_pair_and_the_published_one_is_not(curvatures):
    found = curvatures(PAIR, jnp.zeros((16, 3)))
    assert_agree(found.norm, found.sharp)
    shifted = LSE(PAIR.W + 5.0, PAIR.b, 0.2)  # the sharp bound does not see a common slope
    far = curvatures(shifted, jnp.zeros((16, 3)))
    assert_agree(far.norm, far.sharp)
    assert float(far.published[0]) > 50 * float(far.sharp[0])
    assert float(found.norm[0]) > float(found.sharp[0]) * 0.99  # twin: any smaller constant fails


def test_curvature_at_a_point_does_not_fall_with_eps():
    """run_all, experiment 4: 40 unit rows, d = 8, seed 3. It rises first, though the bound only falls."""
    draw = np.random.default_rng(3)
    W = draw.standard_normal((40, 8))
    W /= np.linalg.norm(W, axis=1, keepdims=True)
    x = draw.standard_normal(8)
    x /= np.linalg.norm(x)
    eps = jnp.array([0.05, 0.1, 0.2, 0.5, 1.0, 10.0])
    at = jax.jit(jax.vmap(lambda e: rb.layer_curvature(LSE(W, jnp.zeros(40), e), x)))(eps)
    published = [1.8400, 2.0265, 1.1083, 0.49427, 0.23738, 0.022089]
    np.testing.assert_allclose(at.norm, published, rtol=1e-4)
    assert float(at.norm[1]) > float(at.norm[0])
    assert bool(jnp.all(jnp.diff(at.sharp) < 0))


def test_no_attack_leaves_the_bounds_and_they_are_not_empty(attacks):
    up, down, bound, start = attacks(X, jax.random.split(jax.random.key(0), 16))
    assert bool(jnp.all(up.gain <= bound.upper + 1e-12))
    assert bool(jnp.all(-down.gain >= bound.lower - 1e-12))
    assert bool(jnp.all(up.start == start))
    assert bool(jnp.all(jnp.linalg.norm(up.step, axis=1) <= 0.7 * (1 + 1e-12)))
    assert float(jnp.median(up.gain / bound.upper)) > 0.6
    # The twin: the linear part alone, which a smaller constant would tend to, is exceeded everywhere.
    slopes = jnp.linalg.norm(jax.vmap(layer().slope)(X), axis=1)
    assert bool(jnp.all(up.gain > 0.7 * slopes))


def test_at_eps_zero_the_upper_bound_is_attained():
    a = layer(eps=0.0)
    W, z = np.asarray(a.W), np.asarray(a.scores(X[0]))
    size = np.linalg.norm(W, axis=1)
    best = np.argmax(z + 0.7 * size)
    step = 0.7 * W[best] / size[best]
    run = jax.jit(lambda x: (rb.change(a, x, 0.7).upper, a(x + step) - a(x)))
    assert_agree(*run(X[0]))


def test_the_upper_bound_is_nearly_attained_by_a_pair():
    @jax.jit
    def both(key):
        return rb.attack(PAIR, jnp.zeros(3), 0.1, key=key).gain, rb.change(
            PAIR, jnp.zeros(3), 0.1
        ).upper

    gain, upper = both(jax.random.key(1))
    assert_agree(
        gain, 0.2 * jnp.log(jnp.cosh(0.1 / 0.2)), 1e-7
    )  # the ascent's last steps are finite
    assert 0.95 < float(gain / upper) <= 1.0


@pytest.fixture(scope="module")
def certified():
    return eqx.filter_jit(jax.vmap(rb.certified_radius, in_axes=(None, 0)))


@pytest.fixture(scope="module")
def plane():
    """Three classes in the plane: certificates, and predictions, of points at a temperature."""
    a = layer(4, d=2)
    model = lambda e: ClassHead(LSE(a.W, a.b, e), [0, 0, 0, 1, 1, 2, 2])
    certify = jax.jit(lambda e, x: jax.vmap(lambda p: rb.certified_radius(model(e), p))(x))
    predict = jax.jit(lambda e, x: jax.vmap(model(e).predict)(x))
    return certify, predict, np.random.default_rng(4).normal(size=(10, 2))


@pytest.mark.parametrize("eps", [0.0, 0.02, 0.3, 2.0])
def test_nothing_flips_within_the_radius(plane, eps):
    certify, predict, x = plane
    found = certify(eps, jnp.asarray(x))
    true = np.array([flip_radius(lambda p: predict(eps, jnp.asarray(p)), a, 6.0) for a in x])
    radius = np.asarray(found.radius)
    assert (radius <= true).all()
    assert (radius >= np.asarray(found.published)).all()
    assert (radius == np.maximum(found.by_curvature, found.by_atoms)).any()
    seen = np.isfinite(true)
    assert np.median(radius[seen] / true[seen]) > 0.6  # not empty
    assert (1.8 * radius[seen] > true[seen]).any()  # the twin: 1.8 times the radius is refuted


def test_one_atom_a_class_is_exact(certified):
    """The distance to a hyperplane: an attack succeeds just outside, and not just inside."""
    model = ClassHead(layer(), range(7))
    found = certified(model, X)
    z = np.asarray(X @ model.head.W.T) + np.asarray(model.head.b)
    W = np.asarray(model.head.W)
    for i in range(16):
        a = z[i].argmax()
        exact = min((z[i, a] - z[i, k]) / np.linalg.norm(W[a] - W[k]) for k in range(7) if k != a)
        assert_agree(found.radius[i], jnp.asarray(exact))
    a, b = found.label, found.rival
    across = -(W[a] - W[b]) / np.linalg.norm(W[a] - W[b], axis=1, keepdims=True)
    step = np.asarray(found.radius)[:, None] * across
    predict = jax.jit(jax.vmap(model.predict))
    assert (predict(X + 1.001 * step) == b).all()
    assert (predict(X + 0.999 * step) == a).all()


def test_a_deep_network_is_certified_through_its_last_layer():
    """Radius at the features over their Lipschitz constant, |V| for tanh(V x): no attack gets through."""
    V = jnp.asarray(0.8 * np.random.default_rng(6).normal(size=(3, 3)))
    last = classifier()

    @jax.jit
    @jax.vmap
    def run(x, key):
        found = rb.certified_radius(last, jnp.tanh(V @ x))
        mine = jnp.arange(3) == found.label

        def against(x):
            scores = last.scores(jnp.tanh(V @ x))
            return jnp.max(jnp.where(mine, -jnp.inf, scores)) - scores[found.label]

        radius = jnp.array([1.0, 6.0]) * found.radius / jnp.linalg.norm(V, ord=2)
        return jax.vmap(lambda r: rb.attack(against, x, r, key=key, steps=15).value)(radius)

    inside, outside = run(X, jax.random.split(jax.random.key(2), 16)).T
    assert float(jnp.max(inside)) < 0
    assert float(jnp.max(outside)) > 0  # the twin: some are broken at six times the radius


def test_a_label_that_is_not_predicted_has_no_radius():
    model = classifier()
    found = jax.jit(lambda x: rb.certified_radius(model, x, jnp.argmin(model.scores(x))))(X[0])
    assert float(found.radius) == 0.0
    assert float(found.margin) < 0
    best, own = int(model.predict(X[0])), int(found.label)
    assert str(found).startswith(f"Class {own}: is not predicted: class {best} scores")
    assert "holds" not in str(found)
    held = rb.certified_radius(model, X[0])
    assert str(held).startswith(f"Class {best}: holds within radius")
    tie = ClassHead(LSE(jnp.eye(2), jnp.zeros(2), 0.1), [0, 1])
    assert "ties with class 1" in str(rb.certified_radius(tie, jnp.ones(2), 0))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: rb.layer_curvature(layer(eps=0.0), X[0]), "found eps = 0"),
        (lambda: rb.change(layer(), X[0], -1.0), "radius. must be >= 0"),
        (lambda: rb.attack(layer(), X[0], -1.0, key=jax.random.key(0)), "radius. must be >= 0"),
        (lambda: rb.attack(layer(), X[0], 1.0, key=jax.random.key(0), steps=0), "steps >= 1"),
        (lambda: rb.certified_radius(ClassHead(deep(), range(7)), X[0]), "LogitHead.*features"),
        (lambda: rb.certified_radius(ClassHead(layer(), [0] * 7), X[0]), "two classes"),
        (lambda: ClassHead(layer(), [0, 0, 0, 2, 2, 2, 2]), "none of class 1"),
        (lambda: ClassHead(layer(), [0, 1]), "7 atoms"),
        (lambda: ClassHead(deep(), [0, 1]).scores(X[0]), "gives 7 logits"),
        (lambda: ClassHead(layer(), [0.0] * 7), "integer"),
        (lambda: LogitHead(lambda x: x[None], 1.0)(X[0]), "1 axis"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()


@pytest.mark.parametrize("offset", [0.0, 1e4, 1e6])
def test_the_radius_allows_for_rounding(offset):
    """Against the distance in rational arithmetic, in 32 bits and far from the origin."""
    draw = np.random.default_rng(0)
    W = draw.normal(size=(3, 3)).astype("f4")
    b = (-W @ np.full(3, offset, "f4")).astype("f4")
    X = (draw.normal(size=(20, 3)) + offset).astype("f4")
    with jax.enable_x64(False):
        model = hj.networks.from_model([(W, b)])
        found = jax.vmap(lambda x: rb.certified_radius(model, x))(jnp.asarray(X))
    exact = lambda array: [Fraction(float(v)) for v in array]
    for x, radius, k in zip(
        X, np.asarray(found.radius, float), np.asarray(found.label), strict=True
    ):
        z = [sum(a * c for a, c in zip(exact(w), exact(x), strict=True)) for w in W]
        z = [a + c for a, c in zip(z, exact(b), strict=True)]
        for c in range(3):
            if c != k:
                apart = sum((p - q) ** 2 for p, q in zip(exact(W[k]), exact(W[c]), strict=True))
                lead = max(z[k] - z[c], Fraction(0))
                assert Fraction(float(radius)) ** 2 * apart <= lead**2
    if offset == 0.0:
        assert (np.asarray(found.radius) > 1e-3).sum() > 10

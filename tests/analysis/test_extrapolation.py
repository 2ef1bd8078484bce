"""Far out: the gap's bound, the limit along a ray, and coverage, which is what sees distance."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import entr
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score

from hjcontrol.analysis import extrapolation as ex
from hjcontrol.hamilton_jacobi import data_of_layer, hopf_cole
from hjcontrol.layers import LSE, ClassHead
from tests.agreement import assert_agree
from tests.analysis.pieces import ATOMS, deep, layer, points
from tests.oracles.mahalanobis import mahalanobis

BISECTOR = LSE(jnp.array([[0.5, 0.0], [-0.5, 0.0]]), jnp.full(2, -0.25), 0.1)  # y = +-e1, t = 1


@pytest.fixture(scope="module")
def gaps():
    return eqx.filter_jit(jax.vmap(ex.gap, in_axes=(None, 0)))


@pytest.fixture(scope="module")
def rays():
    return jax.jit(jax.vmap(ex.ray, in_axes=(None, 0, 0)))


@pytest.mark.parametrize("model", [layer(), deep()], ids=["affine", "deep"])
def test_the_gap_bounds_the_deviation_at_any_depth(gaps, model):
    x = points(32, scale=3.0)
    found = gaps(model, x)
    exact = jax.jit(jax.vmap(lambda a: model(a) - jnp.max(model.scores(a))))(x)
    assert_agree(found.deviation, exact)
    assert bool(jnp.all(found.deviation <= found.bound * (1 + 1e-14)))
    # The twin: with half the atoms counted, somewhere the "bound" is exceeded.
    wrong = 0.3 * jnp.log1p(0.2 * jnp.exp(-found.gap / 0.3))
    assert bool(jnp.any(found.deviation > wrong))


def test_the_bound_is_attained_by_equal_rivals():
    tied = LSE(jnp.zeros((ATOMS, 2)), jnp.array([1.0] + [0.2] * (ATOMS - 1)), 0.3)
    found = ex.gap(tied, jnp.ones(2))
    assert_agree(found.deviation, found.bound)
    assert "atom 0" in str(found)
    alone = ex.gap(LSE(jnp.ones((1, 2)), jnp.ones(1), 0.3), jnp.ones(2))
    assert float(alone.deviation) == float(alone.bound) == 0.0
    hard = ex.gap(LSE(tied.W, tied.b, 0.0), jnp.ones(2))
    assert float(hard.deviation) == float(hard.bound) == 0.0


@pytest.mark.parametrize("atoms", [2, 3, ATOMS])
def test_an_atom_that_decides_outweighs_the_others(gaps, atoms):
    """`gap > eps log N` gives a weight over N/(2N-1); where two logits tie nothing decides."""
    found = gaps(LSE(jnp.zeros((atoms, 2)), jnp.zeros(atoms), 0.5), jnp.ones((1, 2)))
    assert not bool(found.dominated.any())
    assert "does not decide alone" in str(ex.gap(LSE(jnp.eye(2), jnp.zeros(2), 0.5), jnp.ones(2)))
    model = layer(atoms=atoms)
    x = points(200, scale=2.0)
    found = gaps(model, x)
    weight = np.asarray(jax.vmap(model.weights)(x)).max(axis=1)
    decides = np.asarray(found.dominated)
    assert decides.any()
    assert not decides.all()
    assert weight[decides].min() > atoms / (2 * atoms - 1)


def test_along_a_ray_the_excess_stays_under_its_bound_and_falls_at_its_rate(rays):
    a, x, v = layer(), points(16), points(16, seed=3)
    found = rays(a, x, v)
    lengths = jnp.linspace(0.0, 8.0, 17)

    @jax.jit
    @jax.vmap
    def along(x, v, ray):
        excess = jax.vmap(lambda r: a(x + r * v) - ray.limit(r))(lengths)
        return excess, jax.vmap(ray.bound)(lengths)

    excess, bound = along(x, v, found)
    assert bool(jnp.all(excess <= bound + 1e-14))
    assert bool(jnp.all(excess >= -1e-13))
    # The rate: two lengths where the excess is above roundoff and one rival is left.
    for i in range(4):
        j = int(jnp.sum(excess[i] > 1e-9)) - 1
        if j >= 4 and float(lengths[j]) > 2:
            slope = -jnp.log(excess[i, j] / excess[i, j - 1]) / 0.5
            assert float(slope) >= float(found.rate[i]) * 0.5
    recession = jnp.max(v @ a.W.T, axis=1)
    assert_agree(found.slope, recession)
    far = jax.jit(jax.vmap(lambda x, v: a(x + 1e6 * v) / 1e6))(x, v)
    np.testing.assert_allclose(far, recession, atol=1e-5)


def test_the_rate_is_exact_for_two_atoms():
    a = LSE(jnp.array([[1.0], [0.25]]), jnp.array([0.0, 0.5]), 0.2)
    found = ex.ray(a, jnp.zeros(1), jnp.ones(1))
    excess = jax.jit(jax.vmap(lambda r: (a(r[None]) - found.limit(r), found.bound(r))))
    assert_agree(*excess(jnp.array([0.0, 1.0, 3.0])))
    assert_agree(found.rate, jnp.asarray(0.75 / 0.2))
    assert "rate" in str(found)


def test_entropy_tends_to_that_of_the_ties_not_to_log_of_their_number():
    """The published limit log(#ties) holds for tied *logits*; tied slopes with other biases give less."""
    W = jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    v, eps = jnp.array([1.0, 0.0]), 0.5
    even, uneven = LSE(W, jnp.zeros(3), eps), LSE(W, jnp.array([0.0, 0.7, 0.0]), eps)

    @jax.jit
    def limit_and_far(a):
        return ex.ray(a, jnp.zeros(2), v).entropy, jnp.sum(entr(a.weights(60.0 * v)))

    for a, most in ((even, np.log(2)), (uneven, 0.51)):
        limit, far = limit_and_far(a)
        assert_agree(limit, far)
        assert float(limit) <= most
    assert_agree(limit_and_far(even)[0], jnp.log(2.0))


def test_the_gap_does_not_see_distance_and_coverage_does(gaps):
    """On the bisector of two atoms nothing decides, at any distance: radius criterion refuted."""
    far = jnp.stack([jnp.zeros(4), jnp.array([0.0, 5.0, 50.0, 500.0])], axis=1)
    found = gaps(BISECTOR, far)
    assert_agree(found.deviation, jnp.full(4, 0.1 * np.log(2)))
    assert not bool(jnp.any(found.dominated))
    beside = ex.gap(BISECTOR, jnp.array([1.0, 0.0]))
    assert bool(beside.dominated)  # on an atom, and yet "dominated"
    cover = ex.coverage_of_layer(BISECTOR, 1.0)
    energy = np.asarray(jax.jit(jax.vmap(cover.energy))(jnp.r_[far, jnp.array([[1.0, 0.0]])]))
    assert (energy[1:4] > energy[:3] + 50).all()
    assert energy[4] < energy[0]


def test_coverage_of_a_layer_is_its_hopf_cole_solution_over_eps():
    a, x, t = layer(), points(1)[0], 0.8

    @jax.jit
    def two_ways(x):
        u = hopf_cole(data_of_layer(a.W, a.b, t), x, t, 0.3, normalisation="raw")
        # d^2 = E_pi |x - y|^2 under the layer's own weights
        square = a.weights(x) @ jnp.sum((2 * t * a.W - x[None]) ** 2, axis=1)
        cover = ex.coverage_of_layer(a, t)
        return (cover.energy(x), cover.distance(x) ** 2), (u / 0.3, square)

    assert_agree(*two_ways(x))


@pytest.fixture(scope="module")
def digits():
    """A classifier whose atoms are 60 digits 0-4, and four sets of inputs."""
    X, y = load_digits(return_X_y=True)
    X = X / 16.0
    old, new = X[y < 5], X[y >= 5]
    draw = np.random.default_rng(0)
    sets = {
        "new classes": new[:100],
        "noise": draw.uniform(size=(100, 64)),
        "rescaled": 3.0 * old[400:500],
    }
    t, eps = 0.5, 0.3
    atoms = jnp.asarray(old[:60])
    head = LSE(atoms / (2 * t), -jnp.sum(atoms**2, axis=1) / (4 * t), eps)
    return ClassHead(head, y[y < 5][:60]), jnp.asarray(old[400:500]), sets


def test_coverage_beats_the_gap_on_digits(digits):
    model, inside, sets = digits
    cover = ex.coverage_of_samples(model.head.W, 0.55)

    @jax.jit
    @jax.vmap
    def scores(x):
        return (
            cover.energy(x),
            cover.distance(x),
            -jnp.max(model.shares(x)),
            -ex.gap(model.head, x).gap,
        )

    def everything(x):
        return [
            *scores(jnp.asarray(x)),
            mahalanobis(np.asarray(model.head.W), labels, np.asarray(x)),
        ]

    labels = np.asarray(model.classes)
    kept = everything(inside)
    table = {}
    for name, outside in sets.items():
        truth = np.r_[np.zeros(len(inside)), np.ones(len(outside))]
        pairs = zip(kept, everything(outside), strict=True)
        table[name] = [roc_auc_score(truth, np.r_[a, b]) for a, b in pairs]
    for name, (energy, distance, _, gap, maha) in table.items():
        assert min(energy, distance) > gap, (name, table[name])
        assert energy > maha - 0.01, (name, table[name])
    # Max-softmax is as good on the new classes (0.93 against 0.90 and 0.93); at its worst it is useless.
    worst = np.min(list(table.values()), axis=0)
    assert worst[0] > 0.85 > 0.5 > worst[2]
    # The twin: scaled up, a digit is *more* surely of one class, so the gap ranks it as typical.
    assert max(table["rescaled"][2:4]) < 0.3


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: ex.ray(layer(), jnp.zeros(3), jnp.zeros(3)), "direction is zero"),
        (lambda: ex.ray(layer(), jnp.zeros(3), jnp.ones(2)), r"where d = 3"),
        (lambda: ex.coverage_of_samples(jnp.zeros((0, 3)), 1.0), r"found \(0, 3\)"),
        (lambda: ex.coverage_of_samples(jnp.ones((2, 3)), 0.0), "`width` must be > 0"),
        (lambda: ex.coverage_of_layer(layer(eps=0.0), 1.0), "`eps` must be > 0"),
        (lambda: ex.coverage_of_layer(layer(), -1.0), "`t` must be > 0"),
        (lambda: ex.coverage_of_samples(jnp.ones((2, 3)), 1.0).energy(jnp.ones(2)), "vmap"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()

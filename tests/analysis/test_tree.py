"""A network is its tree: leaf by leaf, point by point, hard and soft."""

import json

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.tree import DecisionTreeClassifier

from hjcontrol.analysis import tree as tr
from hjcontrol.analysis.tree import distilled
from hjcontrol.layers import LSE, ClassHead
from hjcontrol.networks import Chain, Dense, Residual, from_model, readout
from tests.agreement import assert_agree
from tests.oracles.activation_cells import generic_cells, patterns_seen, relu_network

DRAW = np.random.default_rng(7)
X = 3 * DRAW.normal(size=(100_000, 2))


def shallow(units, seed=1):
    draw = np.random.default_rng(seed)
    return [
        (draw.normal(size=(units, 2)), draw.normal(size=units)),
        (draw.normal(size=(1, units)), draw.normal(size=1)),
    ]


def deep(seed=2):
    draw = np.random.default_rng(seed)
    sizes = [2, 5, 4, 3]
    pairs = zip(sizes[1:], sizes[:-1], strict=True)
    return [(draw.normal(size=(m, n)), draw.normal(size=m)) for m, n in pairs]


@pytest.fixture(scope="module")
def eight():
    return tr.model_tree(shallow(8))


@pytest.fixture(scope="module")
def three_classes():
    return tr.model_tree(deep())


def relative(a, b):
    return float(np.max(np.abs(a - b)) / max(1.0, float(np.abs(b).max())))


@pytest.mark.parametrize(("units", "leaves"), [(8, 37), (16, 137)])
def test_generic_relus_have_their_cells_and_the_tree_is_the_network(units, leaves, eight):
    layers = shallow(units)
    tree = eight if units == 8 else tr.model_tree(layers)
    assert len(tree.leaves) == leaves == generic_cells(units, 2)
    assert tree.complete
    network = relu_network(layers, X)
    assert relative(tree.predict(X), network) < 1e-12
    assert len(np.unique(tree.apply(X))) == patterns_seen(*layers[0], X)
    # the twin: one leaf's intercept off by a millionth is seen
    k = tree.apply(X[:1])[0]
    wrong = tr.ModelTree.from_json(tree.to_json())
    wrong.intercept[k] += 1e-6
    assert relative(wrong.predict(X), network) > 1e-9


def test_lines_through_one_point_have_fewer_cells():
    """The twin of general position: eight lines through the origin make sixteen sectors."""
    layers = shallow(8)
    layers[0] = layers[0][0], np.zeros(8)
    assert len(tr.model_tree(layers).leaves) == 16


def test_regions_are_the_leaves(eight):
    at = eight.apply(X[:2000])
    for leaf in eight.leaves[::6]:
        A, b = eight.region(int(leaf))
        assert_agree(np.linalg.norm(A, axis=1), np.ones(len(b)))
        inside = np.all(X[:2000] @ A.T + b[None] >= 0, axis=1)
        np.testing.assert_array_equal(inside, at == leaf)
        full = eight.region(int(leaf), reduce=False)[1]
        assert 1 <= len(b) <= len(full)
        for k in range(len(b)):  # the twin: without any one face the region is larger
            rest = np.arange(len(b)) != k
            wider = np.all(X @ A[rest].T + b[rest][None] >= 0, axis=1)
            assert wider.sum() > np.all(X @ A.T + b[None] >= 0, axis=1).sum()


def test_a_max_affine_layer_on_a_line_is_a_balanced_tree():
    w = np.linspace(-2, 2, 33)
    layer = LSE(np.append(w, 0.1)[:, None], np.append(-(w**2), -3.0), 0.2)  # the last never wins
    tree = tr.model_tree(layer)
    assert len(tree.leaves) == 33
    assert tree.depth == 6
    points = np.linspace(-6, 6, 1001)[:, None]
    z = points @ np.asarray(layer.W).T + np.asarray(layer.b)[None]
    assert relative(tree.predict(points)[:, 0], z.max(axis=1)) < 1e-15
    np.testing.assert_array_equal(z[np.arange(1001), tree.decide(points)], z.max(axis=1))


def test_deep_networks_residual_stages_and_leaky_units():
    stages = [
        Dense(2, 4, lambda z: jnp.where(z > 0, z, 0.1 * z)),
        Residual(Dense(4, 4, jax.nn.relu), 0.5),
        Dense(4, 4, jnp.abs),
        readout(4, 2),
    ]
    chain = Chain(stages, jax.ShapeDtypeStruct((2,), jnp.float64))
    weights = jax.tree.map(lambda a: a + 0.3, chain.init(jax.random.key(3)))
    tree = tr.model_tree(chain, weights)
    points = X[:4000]
    network = np.asarray(jax.jit(jax.vmap(lambda x: chain(weights, x)))(jnp.asarray(points)))
    assert tree.complete
    assert relative(tree.predict(points), network) < 1e-12
    with pytest.raises(ValueError, match="stage 0's activation"):
        tr.piecewise_affine(Chain([Dense(2, 2, jnp.tanh)], jnp.zeros(2)), (weights[0],))


def test_a_budget_leaves_an_honest_part(three_classes):
    network = relu_network(deep(), X)
    counts = []
    for points in (None, X[:500]):
        part = tr.model_tree(deep(), max_leaves=12, points=points)
        known = part.resolved(X)
        assert len(part.leaves) <= 12
        assert not part.complete
        assert "PARTIAL" in str(part)
        assert np.all(np.isnan(part.predict(X)[~known]))
        assert relative(part.predict(X)[known], network[known]) < 1e-12
        counts.append(known.mean())
    assert counts[1] > counts[0]  # points steer the budget to where they are
    assert three_classes.resolved(X).all()
    assert tr.model_tree(deep(), max_leaves=len(three_classes.leaves)).complete


def test_decisions_are_the_networks(three_classes):
    tree = tr.model_tree(deep(), decide=True)
    network = relu_network(deep(), X)
    np.testing.assert_array_equal(tree.decide(X), network.argmax(axis=1))
    with pytest.raises(ValueError, match="carries classes"):
        tree.predict(X)
    for node in np.flatnonzero(tree.left >= 0):  # joined: no two sisters of one class
        ends = [tree.left[node], tree.right[node]]
        assert np.any(tree.left[ends] >= 0) or len(set(tree.label[ends])) == 2
    assert np.all(three_classes.label == -1)


def test_on_paper_and_back(eight):
    again = tr.ModelTree.from_json(eight.to_json())
    np.testing.assert_array_equal(again.predict(X[:500]), eight.predict(X[:500]))
    rules = eight.rules(["across", "up"])
    assert rules.count("y = ") == 37
    assert "across" in rules.splitlines()[0]
    dot = eight.to_dot()
    assert dot.count("->") == 72
    assert dot.startswith("digraph")
    spoiled = json.loads(eight.to_json())
    spoiled["c"].pop()
    for text in ("[]", "{", json.dumps(spoiled), json.dumps({"format": "other", "version": 1})):
        with pytest.raises(ValueError, match="from_json"):
            tr.ModelTree.from_json(text)


@hypothesis.given(st.integers(0, 10**6), st.sampled_from([1e-3, 0.1, 1.0, 20.0]))
@hypothesis.settings(max_examples=8)
def test_products_of_gates_are_gibbs_weights(seed, eps):
    draw = np.random.default_rng(seed)
    layer = LSE(draw.normal(size=(6, 2)), draw.normal(size=6), jnp.asarray(eps))
    x = jnp.asarray(draw.normal(size=2))
    soft, exact = _both(tr.soft_tree(layer).sides, tr.soft_tree(layer, NESTED).sides, layer, x)
    assert_agree(soft[0], exact)
    assert_agree(soft[1], exact)


NESTED = (((0, 5), (1, 2)), (3, 4))


@jax.jit
def _weights(tree, x):
    return tree.weights(x)


@jax.jit
def _both(one, two, layer, x):
    return [tr.SoftTree(layer, s).weights(x) for s in (one, two)], layer.weights(x)


def test_a_gate_turned_round_is_no_longer_the_layer_and_eps_zero_is_hard():
    layer = LSE(DRAW.normal(size=(6, 2)), DRAW.normal(size=6), 0.4)
    tree = tr.soft_tree(layer, NESTED)
    sides = tree.sides.copy()
    sides[0] = sides[0][::-1]
    x = jnp.array([0.3, 0.8])
    turned = tr.SoftTree(layer, sides)
    exact = layer.weights(x)
    assert_agree(_weights(turned, x), exact)  # left and right are names
    spoiled = tree.sides.copy()
    spoiled[1] = [
        [True, False, False, False, False, False],
        [False, False, False, False, False, True],
    ]
    assert float(jnp.abs(_weights(tr.SoftTree(layer, spoiled), x) - exact).max()) > 1e-3
    hard = tr.soft_tree(LSE(layer.W, layer.b, 0.0), NESTED)
    assert_agree(_weights(hard, x), jnp.zeros(6).at[jnp.argmax(exact)].set(1.0))
    np.testing.assert_array_equal(hard.apply(jnp.stack([x, -x])), tree.apply(jnp.stack([x, -x])))
    assert tree.rules().count("atom") == 6


def test_agreement_is_bounded_point_by_point_and_attained_at_ties():
    star = np.array([[np.cos(a), np.sin(a)] for a in 2 * np.pi * np.arange(5) / 5])
    layer = LSE(star, np.zeros(5), 0.25)
    points = np.vstack([np.zeros(2), X[:300] / 6])
    found = tr.agreement(layer, points)
    assert found.holds
    assert found.difference[0] == pytest.approx(0.25 * np.log(5), abs=1e-14)
    assert found.difference[0] > 0.25 * np.log(4)  # the twin: a smaller bound is broken at the tie
    np.testing.assert_array_equal(found.below, np.flatnonzero(found.margin <= 0.25 * np.log(5)))
    assert "holds at every point" in str(found)


def test_decisions_change_only_below_the_margin():
    draw = np.random.default_rng(5)
    head = LSE(draw.normal(size=(9, 2)), 0.2 * draw.normal(size=9), 0.8)
    model = ClassHead(head, [0] * 7 + [1, 1])
    found = tr.agreement(model, X[:2000] / 3)
    changed = np.flatnonzero(found.changed)
    assert found.holds
    assert len(changed) > 0
    assert set(changed) <= set(found.below)
    # the twin: at an eighth of the bound decisions change above it
    assert np.any(found.margin[changed] > found.bound / 8)
    hard = tr.model_tree(model, decide=True).decide(X[:2000] / 3)
    z = X[:2000] / 3 @ np.asarray(head.W).T + np.asarray(head.b)[None]
    np.testing.assert_array_equal(hard, z[:, 7:].max(axis=1) > z[:, :7].max(axis=1))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: tr.model_tree("a network"), "an LSE"),
        (lambda: tr.model_tree(shallow(2), max_leaves=0), "max_leaves. must be >= 1"),
        (lambda: tr.model_tree(shallow(2), box=[[1.0, 1.0], [0.0, 0.0]]), "lower < upper"),
        (lambda: tr.model_tree(shallow(2), decide=True), "two outputs"),
        (lambda: tr.AffineBlock(np.eye(2), np.zeros(2), [0, 2]), "numbered"),
        (
            lambda: tr.PiecewiseAffine([tr.AffineBlock(np.eye(2), np.zeros(2), [0, 0])] * 2),
            "block 1 takes",
        ),
        (lambda: tr.model_tree([(np.full((1, 2), np.nan), np.zeros(1))]), "finite weights"),
        (lambda: tr.soft_tree(LSE(np.eye(2), np.zeros(2)), (0, 0)), "each of 2 atoms"),
        (lambda: tr.soft_tree(LSE(np.eye(2), np.zeros(2)), (0, 1, 1)), "is a pair"),
        (lambda: tr.agreement(LSE(np.eye(2), np.zeros(2)), np.zeros((3, 3))), "points"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_bad_points_are_refused(eight):
    with pytest.raises(ValueError, match="points"):
        eight.apply(np.zeros((3, 3)))
    with pytest.raises(ValueError, match="finite"):
        eight.predict(np.array([[np.nan, 0.0]]))
    with pytest.raises(ValueError, match="a leaf of this tree"):
        eight.region(0)


def test_a_distilled_tree_of_few_samples_gains_by_asking_between_them(monkeypatch):
    model = from_model(deep(), activation="relu")
    found = {}
    for count in (1000, 0):
        monkeypatch.setattr(distilled, "BETWEEN", count)
        trees = [
            tr.distilled_tree(model, X[k : k + 25], max_leaves=12, held_out=X[400:800])
            for k in range(0, 400, 25)
        ]
        found[count] = np.mean([tree.measured["fidelity"] for tree in trees])
        assert all(tree.measured["points"] == 400 for tree in trees)
    assert 1 - found[1000] < 0.6 * (1 - found[0])


def test_a_distilled_tree_is_small_and_its_fidelity_is_measured():
    model = from_model(deep(), activation="relu")
    points, test = X[:400], X[400:800]
    tree = tr.distilled_tree(model, points, max_leaves=6, held_out=test)
    decided = relu_network(deep(), test).argmax(axis=1)
    alike = np.mean(tree.decide(test) == decided)
    assert tree.measured == {"fidelity": alike, "points": 400}
    assert alike > 0.9
    assert tree.fidelity(test, decided) == alike
    assert tree.fidelity(test, (decided + 1) % 3) < 0.1  # the twin
    assert len(tree.leaves) <= 6
    assert f"on {alike:.1%} of 400" in str(tree)
    assert "class" in tree.rules()
    again = tr.ModelTree.from_json(tree.to_json())
    assert again.measured == tree.measured
    theirs = DecisionTreeClassifier(max_leaf_nodes=6, random_state=0)
    theirs.fit(points, relu_network(deep(), points).argmax(axis=1))
    assert alike >= np.mean(theirs.predict(test) == decided)
    with pytest.raises(ValueError, match="a decision for each of 400 points"):
        tree.fidelity(test, decided[:3])
    with pytest.raises(ValueError, match="ten samples are needed"):
        tr.distilled_tree(model, points[:4])
    fields = tr.model_tree(from_model([(W, b) for W, b in shallow(3)], activation="relu"))
    assert len(fields.leaves) == generic_cells(3, 2)

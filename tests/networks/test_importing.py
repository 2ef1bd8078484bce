"""Another library's model is the same model here, and what has no place in a chain is named."""

import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_wine
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LinearRegression, LogisticRegression, PoissonRegressor, Ridge
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    RobustScaler,
    StandardScaler,
)
from sklearn.svm import SVC

import hjcontrol as hj
from hjcontrol.analysis import (
    attribution,
    bifurcation,
    continual,
    extrapolation,
    robustness,
    temperature,
)
from hjcontrol.analysis import tree as tr
from hjcontrol.networks import from_model

X, Y = load_wine(return_X_y=True)
BINARY = Y > 0
PAIRS = [(np.eye(3, 2), np.ones(3)), (np.ones((2, 3)), np.array([0.0, 1.0]))]


def fitted(model, y=Y):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(X, y)


def outputs(model, X=X):
    chain, weights = model
    return np.asarray(jax.vmap(lambda x: chain(weights, x))(jnp.asarray(X)))


def probabilities(model):
    z = outputs(model)
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("activation", ["relu", "tanh", "logistic", "identity"])
@pytest.mark.parametrize("y", [Y, BINARY], ids=["three", "two"])
def test_an_mlp_behind_scalers_keeps_its_probabilities(activation, y):
    net = MLPClassifier((5, 4), activation=activation, max_iter=5, random_state=0)
    model = fitted(make_pipeline(RobustScaler(), PCA(6, whiten=True), net), y)
    ours = from_model(model)
    assert np.abs(probabilities(ours) - model.predict_proba(X)).max() < 1e-12
    assert ours.labels == tuple(net.classes_.tolist())
    # the twin: without the pipeline's first steps the same network says something else
    alone = from_model(net)
    with pytest.raises(ValueError, match=r"shape \(6,\); found \(13,\)"):
        alone(X[0])


@pytest.mark.parametrize("scaler", [StandardScaler(), MinMaxScaler(), MaxAbsScaler()], ids=str)
def test_logistic_regression_is_one_affine_layer_in_the_units_of_the_data(scaler):
    model = fitted(make_pipeline(scaler, LogisticRegression(max_iter=50)))
    ours = from_model(model)
    assert np.abs(probabilities(ours) - model.predict_proba(X)).max() < 1e-12
    assert robustness.lipschitz(ours) > 0  # one layer: every question of a layer is answered


def test_regressions_keep_their_values():
    y = X @ np.arange(13.0)
    net = MLPRegressor(hidden_layer_sizes=(4,), max_iter=5, random_state=0)
    for model in (make_pipeline(StandardScaler(), net), LinearRegression()):
        theirs = fitted(model, y).predict(X)
        found = from_model(model)
        assert np.abs(outputs(found)[:, 0] - theirs).max() < 1e-9 * np.abs(theirs).max()
        assert found.labels is None
        assert found.size == 13


def test_equinox_and_pairs_and_flax_and_a_solution():
    x = jnp.linspace(-1.0, 1.0, 3)
    mlp = eqx.nn.MLP(3, 2, 4, 2, jnp.tanh, key=jax.random.key(0))
    assert jnp.abs(from_model(mlp)(x) - mlp(x)).max() < 1e-14
    keys = jax.random.split(jax.random.key(1))
    stack = eqx.nn.Sequential(
        [
            eqx.nn.Linear(3, 4, key=keys[0]),
            eqx.nn.Lambda(jax.nn.silu),
            eqx.nn.Linear(4, 2, use_bias=False, key=keys[1]),
        ]
    )
    assert jnp.abs(from_model(stack)(x) - stack(x)).max() < 1e-14
    found = from_model(PAIRS, activation="relu")(jnp.array([1.0, -3.0]))
    assert found.tolist() == [3.0, 4.0]  # by hand: relu(2, -2, 1) = (2, 0, 1)
    tree = {"params": {f"Dense_{k}": {"kernel": W.T, "bias": b} for k, (W, b) in enumerate(PAIRS)}}
    assert from_model(tree, activation="relu")(jnp.array([1.0, -3.0])).tolist() == [3.0, 4.0]
    chain = hj.networks.Chain([hj.readout(3, 2)], x)
    weights = chain.init(jax.random.key(0))
    assert jnp.array_equal(from_model((chain, weights))(x), chain(weights, x))


def test_torch_modules_and_state_dicts():
    torch = pytest.importorskip("torch")
    layers = [torch.nn.Linear(3, 4), torch.nn.LeakyReLU(0.2), torch.nn.Linear(4, 2)]
    net = torch.nn.Sequential(*layers).double()
    x = np.linspace(-1.0, 1.0, 3)
    theirs = net(torch.tensor(x)).detach().numpy()
    assert np.abs(np.asarray(from_model(net)(x)) - theirs).max() < 1e-14
    state = from_model(net.state_dict(), activation=lambda a: jnp.where(a > 0, a, 0.2 * a))
    assert np.abs(np.asarray(state(x)) - theirs).max() < 1e-14
    with pytest.raises(ValueError, match="layer 0 is a Conv1d"):
        from_model(torch.nn.Sequential(torch.nn.Conv1d(1, 1, 1)))
    with pytest.raises(ValueError, match=r"'1.weight' of shape \(4,\) is no linear layer's"):
        from_model({**torch.nn.Sequential(layers[0], torch.nn.BatchNorm1d(4)).state_dict()})


def test_every_question_takes_it_or_names_the_layer_in_the_way():
    deep, flat = from_model(PAIRS, activation="relu"), from_model(PAIRS[:1])
    x, v = jnp.array([1.0, -0.5]), jnp.array([0.3, 1.0])
    many = jnp.stack([x, v, -x])
    any_depth = [
        lambda m: extrapolation.gap(m, x),
        lambda m: attribution.attribute(m, x),
        lambda m: attribution.without(m, x, jnp.arange(m(x).size) == 0),
        lambda m: continual.overlap(m, many, many),
        lambda m: robustness.layer_curvature(m, x),
        lambda m: robustness.certified_radius(m, x),
        lambda m: robustness.output_bounds(m, x, 0.1),
        lambda m: temperature.crossover(m, many, entropy=0.3),
        lambda m: tr.model_tree(m, decide=True, max_leaves=50),
    ]
    one_layer = [
        lambda m: robustness.lipschitz(m),
        lambda m: robustness.change(m, x, 0.1),
        lambda m: attribution.pruned(m, [0]),
        lambda m: extrapolation.ray(m, x, v),
        lambda m: extrapolation.coverage_of_layer(m, 1.0),
        lambda m: bifurcation.entropy_landscape(m, x),
        lambda m: bifurcation.hot_centre(m),
        lambda m: bifurcation.on_plane(m, x, v[None]),
        lambda m: bifurcation.critical_points(m, most_boxes=2000),
        lambda m: tr.soft_tree(m),
        lambda m: tr.agreement(m, many),
    ]
    for ask in any_depth:
        for model in (deep, flat):
            assert ask(model) is not None
    for ask in one_layer:
        assert ask(flat) is not None
        with pytest.raises(ValueError, match=r"stage 0 is not affine \(relu\)") as said:
            ask(deep)
        assert "\n" not in str(said.value)
    with pytest.raises(ValueError, match="a model of classes is needed; found a regression"):
        extrapolation.gap(from_model([(np.ones((1, 2)), np.zeros(1))]), x)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: from_model(PAIRS), "do not say what stands between their 2 layers"),
        (lambda: from_model(PAIRS, activation="swosh"), "one of elu, gelu"),
        (lambda: from_model([(np.eye(2), np.zeros(3))]), "layer 0 needs W"),
        (lambda: from_model([PAIRS[0], PAIRS[0]], activation="relu"), "layer 1 takes 2 inputs"),
        (lambda: from_model([(np.eye(2) * np.nan, np.zeros(2))]), "layer 0 holds NaN"),
        (lambda: from_model(PAIRS[:1], labels=["a"]), "One class cannot be told from another"),
        (lambda: from_model(MLPClassifier()), "MLPClassifier is not fitted"),
        (lambda: from_model(SVC().fit(X, Y)), "SVC is fitted, and has neither"),
        (lambda: from_model(3), "found 3"),
        (lambda: from_model(MLPClassifier), "found the class MLPClassifier"),
        (lambda: from_model(fitted(make_pipeline(FunctionTransformer(np.tanh), LogisticRegression()))),
            "step 'functiontransformer' is a FunctionTransformer"),
        (lambda: from_model({"params": {"Conv_0": {"kernel": np.ones((1, 1, 1))}}}, activation="relu"),
            "'Conv_0' of the flax tree is no dense layer"),
        (lambda: from_model(eqx.nn.LayerNorm(3)), "found LayerNorm"),
        (lambda: from_model(fitted(MLPClassifier((3,), max_iter=2), np.stack([BINARY, ~BINARY], 1))),
            "several labels a sample"),
    ],
)  # fmt: skip
def test_what_has_no_place_is_named_in_one_line(call, words):
    with pytest.raises(ValueError) as said:
        call()
    assert words in str(said.value)
    assert "\n" not in str(said.value)


def test_what_is_more_than_its_arrays_is_refused():
    """A link function, pairs of classes, a clipped scaler. A twin of each is read."""
    X, y = load_wine(return_X_y=True)
    X = StandardScaler().fit_transform(X)
    few = y < 2
    clipped = lambda clip: make_pipeline(MinMaxScaler(clip=clip), LogisticRegression(C=0.1))
    cases = [
        (SVC(kernel="linear").fit(X, y), SVC(kernel="linear").fit(X[few], y[few])),
        (PoissonRegressor().fit(X, y + 1.0), Ridge().fit(X, y + 1.0)),
        (clipped(True).fit(X, y), clipped(False).fit(X, y)),
    ]
    for model, twin in cases:
        with pytest.raises(ValueError, match="from_model: "):
            hj.networks.from_model(model)
        read = hj.networks.from_model(twin)
        ours = np.asarray(jax.vmap(read if read.labels is None else read.predict)(X))
        np.testing.assert_allclose(np.ravel(ours), twin.predict(X), rtol=1e-9)


def test_flax_layers_whose_order_is_not_known_are_refused():
    square = {"kernel": np.eye(4), "bias": np.zeros(4)}
    with pytest.raises(ValueError, match="do not say their order"):
        hj.networks.from_model({"in": square, "head": square}, activation="relu")
    wide = {"kernel": np.ones((4, 7)), "bias": np.zeros(7)}
    back = {"kernel": np.ones((7, 3)), "bias": np.zeros(3)}
    read = hj.networks.from_model({"a_head": back, "in": wide}, activation="relu")
    np.testing.assert_allclose(read(np.ones(4)), 28.0)  # 4 into each of 7

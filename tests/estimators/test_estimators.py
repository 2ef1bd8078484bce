"""Estimators conform to scikit-learn's rules, and what they answer is true of their predictions."""

import pickle
import warnings

import jax
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_wine
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from hjcontrol.estimators import (
    ControlledNetClassifier,
    ControlledNetRegressor,
    LSEClassifier,
    LSERegressor,
    MaxAffineRegressor,
)
from hjcontrol.estimators.descent import by_costates, residual_network

quiet = pytest.mark.filterwarnings("ignore")  # the checks fit noise with few steps, on purpose
EVERY = [
    LSEClassifier(random_state=0),
    LSEClassifier(2, max_iter=20, random_state=0),
    LSERegressor(4, max_iter=20, random_state=0),
    MaxAffineRegressor(4, starts=1, max_iter=15, random_state=0),
    ControlledNetClassifier(8, 1, max_iter=15, random_state=0),
    ControlledNetRegressor(8, 1, max_iter=15, random_state=0),
]


@quiet
@parametrize_with_checks(EVERY)
def test_conforms(estimator, check):
    check(estimator)


WINE, KINDS = load_wine(return_X_y=True)
SICK, GROWTH = load_diabetes(return_X_y=True)


@pytest.fixture(
    scope="module", params=range(len(EVERY)), ids=lambda k: f"{k}-{type(EVERY[k]).__name__}"
)
def fitted(request):
    model = clone(EVERY[request.param]).set_params(max_iter=60)
    classes = hasattr(model, "predict_proba")
    X, y = (WINE[::2], KINDS[::2]) if classes else (SICK[::4], GROWTH[::4])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(X, y), X, y


def values(model, X):
    return model.decision_function(X) if hasattr(model, "predict_proba") else model.predict(X)


def test_the_network_is_the_estimator(fitted):
    model, X, _ = fitted
    with jax.enable_x64(True):
        out = np.asarray(jax.jit(jax.vmap(model.network_))(X))
    classes = hasattr(model, "predict_proba")
    scale = getattr(model, "eps", 1.0) if classes else 1.0
    mine = values(model, X) * scale if classes else values(model, X)[:, None]
    assert np.abs(out - mine).max() < 1e-9 * max(1.0, np.abs(mine).max())
    twin = pickle.loads(pickle.dumps(model))
    assert np.array_equal(values(twin, X), values(model, X))


def test_attributions_add_up_and_far_samples_are_told(fitted):
    model, X, _ = fitted
    few = X[:6]
    with jax.enable_x64(True):
        net = jax.jit(jax.vmap(model.network_))
        out, start = np.asarray(net(few)), np.asarray(net(model.units_.centre[None]))[0]
    best = out.argmax(axis=1)
    moved = out[np.arange(6), best] - start[best]
    found = model.attribution(few)
    assert found.shape == few.shape
    assert np.abs(found.sum(axis=1) - moved).max() < 0.05 * (1e-6 + np.abs(moved).max())
    near, far = model.extrapolation_score(X), model.extrapolation_score(X[:3] + 9 * X.std(axis=0))
    assert abs(np.median(near)) < 1.0
    assert far.min() > near.max()


@quiet
def test_predictions_hold_within_the_certified_radius(fitted):
    model, X, _ = fitted
    few = X[:8]
    radius = model.certified_radius(few, scaled=True)
    assert (radius > 0).mean() > 0.5
    draw = np.random.default_rng(0)
    step = draw.normal(size=(400, *few.shape))
    step *= radius[None, :, None] / np.linalg.norm(step, axis=2, keepdims=True)
    moved = (few + step * model.units_.scale).reshape(-1, few.shape[1])
    before, after = model.predict(few), model.predict(moved).reshape(400, -1)
    if hasattr(model, "predict_proba"):
        assert np.all(after == before)
    else:
        assert np.abs(after - before).max() <= model.rmse_
        half = model.certified_radius(few, scaled=True, within=model.rmse_ / 2)
        assert np.all(half <= radius)


@quiet
def test_trees_are_the_model_at_temperature_zero(fitted):
    model, X, _ = fitted
    tree = model.to_tree(max_leaves=24)
    assert len(tree.leaves) <= 24
    inside = tree.resolved(X)
    hard = isinstance(model, MaxAffineRegressor | ControlledNetClassifier | ControlledNetRegressor)
    if hard and inside.any():
        if tree.decides:
            assert np.array_equal(model.classes_[tree.decide(X)[inside]], model.predict(X)[inside])
        else:
            apart = tree.predict(X)[inside][:, 0] - model.predict(X)[inside]
            assert np.abs(apart).max() < 1e-6 * np.abs(model.predict(X)).max()
    assert isinstance(tree.rules(), str)


def test_one_atom_is_logistic_regression_and_its_gap_is_closed():
    Z = StandardScaler().fit_transform(WINE)
    ours = LSEClassifier(alpha=0.01, eps=0.3).fit(Z, KINDS)
    certificate = ours.certificate_
    assert abs(certificate.gap) < 1e-9
    assert "within" in str(certificate)
    # scikit-learn's on a column of ones more, so that its ridge holds the bias as ours does
    rows = np.column_stack([Z, np.ones(len(Z))])
    theirs = LogisticRegression(
        C=1 / (0.01 * len(Z)), fit_intercept=False, tol=1e-10, max_iter=2000
    )
    theirs.fit(rows, KINDS)
    assert np.abs(ours.predict_proba(Z) - theirs.predict_proba(rows)).max() < 1e-6
    again = LSEClassifier(alpha=0.01, eps=3.0).fit(Z, KINDS)
    assert np.allclose(again.predict_proba(Z), ours.predict_proba(Z))  # eps changes no decision
    worse = LSEClassifier(2, max_iter=400, random_state=0).fit(Z, KINDS)
    assert np.isnan(worse.certificate_.bound)
    assert "no bound" in str(worse.certificate_)


def test_gradients_by_costates_are_differences():
    draw = np.random.default_rng(0)
    shapes = [(4, 3), (4,), (4, 4), (4,), (4, 4), (4,), (2, 4), (2,)]
    theta = [draw.normal(size=s) for s in shapes]
    X, target = draw.normal(size=(7, 3)), draw.normal(size=(7, 2))
    terminal = lambda z: (0.5 * np.mean((z - target) ** 2) * 2, (z - target) / 7)
    _, gradient = by_costates(theta, X, 0.5, "tanh", terminal)
    for k, part in enumerate(theta):
        step = draw.normal(size=part.shape)
        at = lambda s, k=k, step=step: terminal(
            residual_network([*theta[:k], theta[k] + s * step, *theta[k + 1 :]], X, 0.5, "tanh")[0]
        )[0]
        slope = (at(1e-5) - at(-1e-5)) / 2e-5
        assert np.sum(gradient[k] * step) == pytest.approx(slope, rel=1e-7, abs=1e-9)
        assert np.sum(1.01 * gradient[k] * step) != pytest.approx(slope, rel=1e-4)  # the twin


def test_max_affine_finds_a_convex_function_and_no_other():
    draw = np.random.default_rng(0)
    X = draw.uniform(-2, 2, size=(300, 2))
    convex = np.abs(X).sum(axis=1)
    assert MaxAffineRegressor(8, alpha=0.0, random_state=0).fit(X, convex).score(X, convex) > 0.99
    assert MaxAffineRegressor(8, alpha=0.0, random_state=0).fit(X, -convex).score(X, -convex) < 0.3


@quiet
def test_pipelines_and_grid_search():
    grid = {"lseclassifier__alpha": [1e-3, 1e-1], "lseclassifier__eps": [0.1, 1.0]}
    search = GridSearchCV(make_pipeline(StandardScaler(), LSEClassifier()), grid, cv=3)
    assert search.fit(WINE, KINDS).best_score_ > 0.95


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: LSEClassifier().fit(WINE, np.zeros(len(WINE), int)), "found one class, 0"),
        (lambda: LSEClassifier(0).fit(WINE, KINDS), "`atoms` must be a whole number"),
        (lambda: LSEClassifier(eps=0.0).fit(WINE, KINDS), "`eps` must be > 0"),
        (lambda: LSEClassifier(eps="1").fit(WINE, KINDS), "`eps` must be a real number; found '1'"),
        (lambda: LSERegressor(alpha=None).fit(SICK, GROWTH), "`alpha` must be a real number; found None"),
        (lambda: ControlledNetRegressor(tol=[1]).fit(SICK, GROWTH), "`tol` must be a real number"),
        (lambda: LSERegressor().fit(SICK, 1e200 * GROWTH), "found 3.46e+202 in column 0"),
        (lambda: LSERegressor().fit(SICK * np.nan, GROWTH), "NaN"),
        (lambda: ControlledNetClassifier(activation="gelu").fit(WINE, KINDS), "one of relu, tanh"),
        (lambda: ControlledNetClassifier(activation="tanh", max_iter=2000).fit(WINE, KINDS).to_tree(),
            "activation is not max(a z, c z)"),
    ],
)  # fmt: skip
def test_bad_input_is_refused(call, words):
    with pytest.raises(ValueError) as said:
        call()
    assert words in str(said.value)


@pytest.mark.parametrize("model", [LSERegressor, MaxAffineRegressor, ControlledNetRegressor])
def test_the_unit_of_a_column_does_not_matter(model):
    """Picofarads were taken for a constant, of 1e-12 of a farad."""
    settings = {"max_iter": 60, "tol": 1e-2, "random_state": 0}
    right = model(**settings).fit(SICK, GROWTH)
    small = model(**settings).fit(2.0**-45 * SICK, 2.0**-50 * GROWTH)
    answers = 2.0**50 * small.predict(2.0**-45 * SICK)
    assert np.abs(answers - right.predict(SICK)).max() <= 1e-9 * np.abs(GROWTH).max()
    flat = np.column_stack([SICK, np.full(len(SICK), 0.1)])  # its deviation is rounding
    level = model(**settings).fit(flat, GROWTH)
    assert level.units_.scale[-1] == 1.0
    assert right.score(SICK, GROWTH) > 0.4


def test_unlike_units_of_a_radius_are_said():
    model = LSEClassifier().fit(WINE, KINDS)
    with pytest.warns(UserWarning, match="mixes unlike units"):
        model.certified_radius(WINE[:2])

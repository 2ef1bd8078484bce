"""Softmax readout with ridge: four engines, one optimum, and a dual that says so."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp

import hjcontrol as hj
from hjcontrol.layers.certifying import certify
from hjcontrol.networks import AffineWeights
from hjcontrol.solvers.convex import SoftmaxReadout

RIDGE = 1e-2
judge = eqx.filter_jit(certify)


def problem(name: str) -> SoftmaxReadout:
    data = hj.data.load(name)
    spread = data.features.std(axis=0)
    X = (data.features - data.features.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    return SoftmaxReadout(X, data.targets, RIDGE)


def distance(a: AffineWeights, b: AffineWeights) -> float:
    return max(float(jnp.abs(u - v).max()) for u, v in zip(a, b, strict=True))


def value(p: SoftmaxReadout, theta: AffineWeights) -> float:
    z = np.asarray(p.inputs @ theta.W.T + theta.b[None, :])
    loss = logsumexp(z, axis=1) - z[np.arange(len(z)), np.asarray(p.targets)]
    return loss.mean() + 0.5 * RIDGE * sum(float(jnp.sum(a**2)) for a in theta)


def by_scikit_learn(p: SoftmaxReadout) -> AffineWeights:
    """Its ridge spares the intercept and halves two symmetric classes: both are undone here."""
    from sklearn.linear_model import LogisticRegression

    X, n = np.column_stack([p.inputs, np.ones(len(p.inputs))]), len(p.inputs)
    two = p.num_classes == 2
    model = LogisticRegression(
        C=(2 if two else 1) / (n * RIDGE),
        fit_intercept=False,
        solver="newton-cg",
        tol=1e-12,
        max_iter=1000,
    ).fit(X, np.asarray(p.targets))
    theta = model.coef_
    theta = np.concatenate([-theta / 2, theta / 2]) if two else theta
    return AffineWeights(jnp.asarray(theta[:, :-1]), jnp.asarray(theta[:, -1]))


@pytest.mark.parametrize("name", ["digits", "wine", "breast_cancer", "iris"])
def test_newton_and_scikit_learn_agree_and_the_gap_is_closed(
    name,
):  #: objective 4e-16, weights 4e-9
    p = problem(name)
    ours = p.solve()
    assert bool(ours.result == hj.RESULTS.successful)
    assert abs(float(ours.relative_gap)) <= 1e-12
    theirs = by_scikit_learn(p)
    assert distance(ours.native.candidate, theirs) <= 1e-6
    assert float(value(p, theirs)) / float(ours.objective) - 1.0 <= 1e-9


@pytest.mark.parametrize("name", ["wine", "iris"])  # all four: benchmarks/convex_training.py
def test_exponential_cones_agree(name):  #: weights 3e-11
    p = problem(name)
    ours, cones = p.solve(), p.solve(engine="cvxpy")
    assert abs(float(cones.objective / ours.objective) - 1.0) <= 1e-9
    assert distance(ours.native.candidate, cones.native.candidate) <= 1e-6
    assert float(cones.relative_gap) <= 1e-9


@pytest.mark.smoke
def test_the_certificate_catches_a_wrong_weight_and_a_wrong_multiplier():
    p = problem("iris")
    s = p.solve()
    assert judge(p, s.native.candidate, s.native.dual).verdict == "optimal"
    moved = eqx.tree_at(lambda c: c.W, s.native.candidate, s.native.candidate.W.at[1, 2].add(1e-3))
    assert judge(p, moved).verdict == "suboptimal"
    assert (
        judge(p, s.native.candidate, jnp.roll(s.native.dual, 1, axis=1)).verdict == "not certified"
    )
    assert judge(p, s.native.candidate, -s.native.dual).verdict == "infeasible"
    assert float(judge(p, s.native.candidate, 1.1 * s.native.dual).dual) == pytest.approx(
        0.1, rel=1e-6
    )


def test_the_solution_is_one_of_its_control_problem():
    p = problem("iris")
    s = p.solve()
    assert isinstance(s, hj.Solution)
    assert float(s.problem.objective(s.weights)) == pytest.approx(float(s.objective), rel=1e-12)
    assert set(hj.control.solution.STATS) <= set(s.stats)
    assert s.trajectory.final.shape == (150, 3)
    assert len(s.costate) == len(s.trajectory) == 2
    assert float(s.gap) == float(s.objective - s.bound)


def test_the_result_prints_what_it_proves():
    text = str(problem("iris").solve())
    for word in ("gap", "theorem", "Fenchel", "not covered"):
        assert word in text
    assert len(text.splitlines()) <= 13  # the first line may wrap


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"ridge": 0.0}, "ridge"),
        ({"inputs": np.array([[np.nan], [1.0]])}, "finite"),
        ({"inputs": np.zeros((2,))}, "shape"),
        ({"targets": np.array([0, 0])}, "two classes"),
        ({"targets": np.array([-1, 1])}, "targets"),
        ({"targets": np.array([0.0, 1.0])}, "integers"),
    ],
)
def test_bad_input_is_refused(change, words, unchecked):
    given = {"inputs": np.array([[0.0], [1.0]]), "targets": np.array([0, 1]), "ridge": 0.1} | change
    with pytest.raises(ValueError, match=words):
        SoftmaxReadout(**given)

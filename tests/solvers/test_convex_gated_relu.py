"""Gated two-layer networks: anchored optima, certified; and the ReLU network they give."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_diabetes

from hjcontrol.layers.certifying import certify
from hjcontrol.solvers.convex import GatedReLU, sample_gates
from hjcontrol.solvers.convex.cone_decomposition import split

judge = eqx.filter_jit(certify)


@functools.cache
def diabetes(penalty: float) -> GatedReLU:
    X, y = load_diabetes(return_X_y=True)
    X, y = (X - X.mean(0)) / X.std(0), (y - y.mean()) / y.std()
    return GatedReLU(X, y, sample_gates(10, 50, seed=778), penalty)


@functools.cache
def solved(penalty: float):
    return diabetes(penalty).solve()


@pytest.mark.parametrize(
    ("penalty", "optimum"), [(0.01, 0.1823543), (0.03, 0.2419171), (0.1, 0.3165823)]
)
def test_the_anchored_optima_with_a_closed_gap(penalty, optimum):  #: gap 2e-11
    p = diabetes(penalty)
    s = solved(float(p.penalty))
    assert float(s.objective) == pytest.approx(optimum, abs=1e-7)
    assert 0 <= float(s.gap) <= 1e-10
    control = p.as_control_problem()
    assert float(control.objective(s.weights)) == pytest.approx(float(s.objective), rel=1e-12)
    checked = judge(p, s.native.candidate, s.native.dual)
    assert bool(checked.certified)
    assert float(checked.gap) == pytest.approx(float(s.gap), abs=1e-14)


def test_the_certificate_catches_a_wrong_weight_and_a_wrong_multiplier():
    p = diabetes(0.1)
    s = solved(float(p.penalty))
    moved = s.native.candidate.at[0, 0].add(1e-2)
    assert judge(p, moved).verdict == "suboptimal"
    assert judge(p, s.native.candidate, 1.01 * s.native.dual).verdict == "infeasible"
    assert judge(p, s.native.candidate, -s.native.dual).verdict == "not certified"
    assert judge(p, s.native.candidate, 0.9 * s.native.dual).verdict == "not certified"


def test_the_relu_network_agrees_at_the_training_inputs_and_costs_more():  #: 4e-13
    p = diabetes(0.1)
    s = solved(float(p.penalty))
    gated, relu = jax.vmap(s.native)(p.inputs), p.relu_network(s.native.candidate)
    net = lambda x: relu.problem.chain(relu.weights, x)
    np.testing.assert_allclose(jax.vmap(net)(p.inputs), gated, atol=1e-11)
    assert relu.stats["deviation"] <= 1e-11
    hidden, outer = relu.problem.chain.unstack(relu.weights)
    assert relu.problem.chain[0].units.activation is jax.nn.relu
    assert not hidden.b.any()
    assert not outer.b.any()
    decay = 0.5 * 0.1 * float(jnp.sum(hidden.W**2) + jnp.sum(outer.W**2))
    rest = gated[:, 0] - p.targets
    assert float(relu.objective) == pytest.approx(float(0.5 * jnp.mean(rest**2)) + decay, rel=1e-9)
    assert float(relu.objective) > float(s.objective)  # gated is not ReLU: it bounds it from below
    away = 3.0 * jax.random.normal(jax.random.key(0), (200, 10))
    assert float(jnp.abs(jax.vmap(s.native)(away) - jax.vmap(net)(away)).max()) > 1e-2


def test_without_the_cones_the_map_back_would_be_wrong():
    """The twin: the gated weights put straight into ReLU units."""
    p = diabetes(0.1)
    s = solved(float(p.penalty))
    straight = jnp.sum(jnp.maximum(p.inputs @ s.native.candidate.T, 0.0), axis=1)
    assert float(jnp.abs(straight - jax.vmap(s.native)(p.inputs)[:, 0]).max()) > 0.1


def test_a_split_is_the_least_one():  #: 1e-9
    import cvxpy as cp

    rng = np.random.default_rng(0)
    C, w = rng.standard_normal((20, 3)), rng.standard_normal(3)
    C = C * np.where(C @ rng.standard_normal(3) >= 0, 1.0, -1.0)[:, None]
    ours = split(C, w)
    v = cp.Variable(3)
    program = cp.Problem(
        cp.Minimize(cp.sum_squares(w + v) + cp.sum_squares(v)), [C @ v >= 0, C @ (w + v) >= 0]
    )
    best = program.solve(solver=cp.CLARABEL)
    assert np.all(C @ ours >= -1e-12)
    assert np.all(C @ (w + ours) >= -1e-12)
    assert np.sum((w + ours) ** 2) + np.sum(ours**2) == pytest.approx(best, rel=1e-7)
    assert split(np.array([[1.0, 0.0], [-1.0, 0.0]]), np.array([1.0, 0.0])) is None


@pytest.mark.parametrize(
    ("gates", "penalty", "words"),
    [(np.zeros((3, 2)), 0.1, "gates"), (np.zeros((0, 10)), 0.1, "gates"), (None, 0.0, "penalty")],
)
def test_bad_input_is_refused(gates, penalty, words, unchecked):
    p = diabetes(0.1)
    with pytest.raises(ValueError, match=words):
        GatedReLU(p.inputs, p.targets, p.gates if gates is None else gates, penalty)

"""Each convex problem is a control problem too: descents from several starts end at the convex optimum,
and `crosscheck` calls them the same solution (for convex regression: one objective, one costate).

readout              convex in its weights
convex regression    convex in its weights, with the exact penalty; smoothed for descent
Hopf-Cole            convex in the masses exp(b/eps) only; stationary with all masses: the optimum
gated ReLU           convex in the products w_j a_j only: weight decay on two layers, signs of a_j given
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hjcontrol as hj
from hjcontrol.layers.certifying import certify
from hjcontrol.solvers.convex import ConvexRegression, GatedReLU, HopfCole, SoftmaxReadout

DESCENT = hj.solvers.Gradient(optax.lbfgs(), tol=1e-9)
STARTS = 2
judge = eqx.filter_jit(certify)


def descend(control, seed, init=lambda w: w):
    start = control.chain.init(jax.random.key(seed))
    return hj.solve(control, DESCENT, init=init(start), max_steps=5000)


def at(control, weights):
    """A point, as a solution that the jury can look at."""
    return hj.solve(control, DESCENT, init=weights, max_steps=0)


def assert_one(control, found):
    """All before the jury, polished by descent: no costate refuted, one solution, one objective."""
    jury = hj.crosscheck(control, *found, polish=DESCENT)
    assert jury.verdict in ("exact", "consistent"), str(jury)
    assert len(jury.same) == len(found) * (len(found) - 1) // 2, str(jury)
    assert jury.polished_gap.max() <= 1e-9 * jury.objective.max()
    assert "the same solution" in str(jury)


def line(n, seed=0):
    x = np.random.default_rng(seed).uniform(-2, 2, (n, 1))
    return x, np.abs(x[:, 0])


def test_readout_weights():  #: weights 5e-9
    data = hj.data.load("iris")
    X = (data.features - data.features.mean(axis=0)) / data.features.std(axis=0)
    p = SoftmaxReadout(X, data.targets, 1e-2)
    s, control = p.solve(), p.as_control_problem()
    found = [descend(control, seed) for seed in range(STARTS)]
    for one in found:
        candidate = p.from_weights(one.weights)
        for a, b in zip(s.native.candidate, candidate, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)
        assert float(judge(p, candidate).relative_gap) <= 1e-9
    assert_one(control, [at(control, p.to_weights(s.native.candidate)), *found])


def test_hopf_cole_biases():
    p = HopfCole(*line(30), np.array([[-1.0], [1.0]]), 0.3)
    s, control = p.solve(), p.as_control_problem()
    assert np.isfinite(np.asarray(s.native.candidate)).all()  # every slope has mass at the optimum
    found = [descend(control, seed) for seed in range(STARTS)]
    for one in found:
        assert float(one.objective / s.objective) - 1.0 <= 1e-9
        np.testing.assert_allclose(p.from_weights(one.weights), s.native.candidate, atol=1e-6)
    assert_one(control, [at(control, p.to_weights(s.native.candidate)), *found])


def test_convex_regression_planes():
    """One objective and one costate, above the exact program by the price of smoothing at most. Weights
    are not pinned: a plane far below all others at every sample hardly enters, and the jury says so."""
    x = line(6)[0]
    p = ConvexRegression(x, np.sin(3 * x[:, 0]))  # not convex: planes press on values
    s = p.solve(tol=1e-9)
    penalty, eps = 1.5 * float(s.native.dual.sum(axis=1).max()), 0.3
    exact = p.as_control_problem(penalty=penalty)
    assert float(exact.objective(p.to_weights(s.native.candidate))) == pytest.approx(
        float(s.objective), rel=1e-9
    )
    control = p.as_control_problem(penalty=penalty, eps=eps)
    found = [descend(control, seed) for seed in range(STARTS)]
    jury = hj.crosscheck(control, *found, polish=DESCENT)
    assert jury.verdict in ("exact", "consistent"), str(jury)
    assert jury.polished_gap.max() <= 1e-9 * jury.objective.max()
    assert jury.costate_distance.max() <= 1e-6
    for one in found:
        assert 0 <= float(one.objective - s.objective) <= 6 * penalty * eps * np.log(6)
        feasible = judge(p, p.from_weights(one.weights), s.native.dual)
        assert float(feasible.objective) >= float(s.objective)


def test_gated_relu_weights():
    """Signs of the outer weights are a symmetry that the jury does not know, gates being given."""
    rng = np.random.default_rng(1)
    X, y = rng.standard_normal((20, 3)), rng.standard_normal(20)
    p = GatedReLU(X, y, rng.standard_normal((4, 3)), 0.05)
    s, control = p.solve(), p.as_control_problem()
    found = [descend(control, seed) for seed in range(STARTS)]
    for one in found:
        assert float(one.objective / s.objective) - 1.0 <= 1e-9
        assert float(judge(p, p.from_weights(one.weights)).gap) <= 1e-7
    positive = [at(control, p.to_weights(p.from_weights(one.weights))) for one in found]
    optimum = at(control, p.to_weights(s.native.candidate))
    assert_one(control, [optimum, *positive])
    turned = at(
        control, jax.tree.map(jnp.negative, optimum.weights)
    )  # the twin: as good, elsewhere
    assert float(turned.objective) == pytest.approx(float(s.objective), rel=1e-12)
    apart = hj.crosscheck(control, optimum, turned, polish=DESCENT, certificates=[])
    assert apart.same == []

"""Each convex problem is a control problem too: descents from several starts end at the convex optimum,
and `crosscheck` calls them the same solution.

readout              convex in its weights
convex regression    convex in its weights, with the exact penalty; smoothed for descent
Hopf-Cole            convex in the masses exp(b/eps) only; stationary with all masses: the optimum
gated ReLU           convex in the products w_j a_j only: weight decay on two layers, signs of a_j given
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hjcontrol as hj
from hjcontrol.solvers.convex import ConvexRegression, GatedReLU, HopfCole

DESCENT = hj.solvers.Gradient(optax.lbfgs(), tol=1e-9)
STARTS = 2


def jury(control, weights=None, init=lambda w: w):
    """The convex optimum, if given, and descents from random starts, before the jury."""
    found = [] if weights is None else [hj.solve(control, DESCENT, init=weights, max_steps=0)]
    for seed in range(STARTS):
        start = init(control.chain.init(jax.random.key(seed)))
        found.append(hj.solve(control, DESCENT, init=start, max_steps=5000))
    return found, hj.crosscheck(control, *found, polish=DESCENT)


def assert_one(found, verdict):
    assert verdict.verdict in ("exact", "consistent"), str(verdict)
    assert len(verdict.same) == len(found) * (len(found) - 1) // 2, str(verdict)
    assert verdict.polished_gap.max() <= 1e-10 * verdict.objective.max()


def line(n=16, seed=0):
    x = np.random.default_rng(seed).uniform(-2, 2, (n, 1))
    return x, np.abs(x[:, 0])


def test_hopf_cole_biases():
    p = HopfCole(*line(30), np.array([[-1.0], [0.2], [1.0]]), 0.3, "kullback")
    s = p.solve()
    assert np.isfinite(np.asarray(s.candidate)).all()  # every slope has mass at the optimum
    found, verdict = jury(p.as_control_problem(), p.to_weights(s.candidate))
    assert_one(found, verdict)
    assert "the same solution" in str(verdict)


def test_convex_regression_planes():
    """At `eps > 0` the penalty is strictly convex in all differences of planes: one optimum."""
    x, y = line(6)
    p = ConvexRegression(x, y + 0.3 * np.sin(9 * x[:, 0]))
    exact = p.solve(tol=1e-9)
    penalty = 1.5 * float(exact.dual.sum(axis=1).max())
    found, verdict = jury(p.as_control_problem(penalty=penalty, eps=0.3))
    assert_one(found, verdict)
    above = float(found[0].objective - exact.objective)
    assert 0 <= above <= 6 * penalty * 0.3 * np.log(6)  # the price of smoothing


def test_gated_relu_weights():
    rng = np.random.default_rng(1)
    X, y = rng.standard_normal((20, 3)), rng.standard_normal(20)
    p = GatedReLU(X, y, rng.standard_normal((4, 3)), 0.05)
    s = p.solve()
    positive = lambda w: (w[0], jnp.abs(w[1]))
    found, verdict = jury(p.as_control_problem(), p.to_weights(s.candidate), positive)
    assert_one(found, verdict)
    turned = lambda w: (w[0], -jnp.abs(w[1]))  # the twin: the other sign is another point, as good
    other = hj.solve(p.as_control_problem(), DESCENT, init=turned(found[1].weights), max_steps=5000)
    assert float(other.objective) == pytest.approx(float(s.objective), rel=1e-9)
    np.testing.assert_allclose(p.from_weights(other.weights), s.candidate, atol=1e-5)
    apart = hj.crosscheck(p.as_control_problem(), found[0], other, polish=DESCENT)
    assert apart.same == []

"""The witness on flows: discrete routes exact, continuous ones consistent at the measured order."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hjcontrol as hj
from hjcontrol.networks import Dense, Flow, lift, readout
from hjcontrol.verification.continuous import costate_equation
from hjcontrol.verification.costate_reference import costate_reference

X = jnp.asarray(np.random.default_rng(2).normal(size=(5, 3)))


@jax.custom_vjp
def wrong(a):
    return jnp.tanh(a)


def _reverse(a, p):
    # A sign, on one component only, and a small one.
    return (p * (1 - jnp.tanh(a) ** 2) * jnp.asarray([1.0, 1.0, -1.0]),)


wrong.defvjp(lambda a: (jnp.tanh(a), a), _reverse)


def problem(activation=jnp.tanh, **how):
    pieces = Flow.pieces(Dense(3, 3, activation), 1.0, 2, **how)
    return hj.ControlProblem(pieces, X, terminal=lambda x: jnp.sum(x**2))


HEUN = {"solver": diffrax.Heun(), "dt0": 0.125}


def test_digits_at_the_start_and_after_training():
    data = hj.data.load("digits")
    inputs, labels = jnp.asarray(data.features[:12]), jnp.asarray(data.targets[:12])
    stages = [lift(64, 4), *Flow.pieces(Dense(4, 4), 1.0, 2, **HEUN), readout(4, 10)]
    task = hj.ControlProblem(stages, inputs, labels, terminal=hj.control.softmax_cross_entropy)
    weights = task.init(jax.random.key(0))
    routes = ("backprop", "pairing", "costate_equation")
    for trained in (False, True):
        if trained:
            weights = hj.solve(
                task, hj.solvers.Gradient(optax.adam(1e-2)), init=weights, max_steps=20
            ).weights
        certificate = hj.verify(task, weights, routes=routes)
        assert certificate.verdict == "exact"
        assert certificate.agreement["backprop|pairing"] < 1e-11
        (pair,) = (p for p in certificate.pairs if "costate_equation" in p.name)
        assert pair.verdict == "consistent"
        assert pair.order[1:] == (2.0, "step")
        assert 1.7 < pair.order[0] < 2.5
        assert 1e-9 < pair.disagreement < 0.1  # it is not exact, and is not called so
        assert "order" in str(certificate)


def test_a_sign_error_does_not_shrink_and_is_refuted():
    task = problem(wrong, **HEUN)
    certificate = hj.verify(
        task, task.init(jax.random.key(0)), routes=("backprop", "costate_equation")
    )
    (pair,) = certificate.pairs
    assert certificate.verdict == "refuted"
    assert pair.verdict == "refuted"
    assert abs(pair.order[0]) < 0.5
    assert certificate.refuted[0].stage == "Flow"


@pytest.mark.parametrize(("activation", "verdict"), [(jnp.tanh, "consistent"), (wrong, "refuted")])
def test_a_continuous_adjoint_is_consistent_and_a_wrong_one_refuted(activation, verdict):
    task = problem(activation, adjoint="backsolve", **HEUN)
    certificate = hj.verify(task, task.init(jax.random.key(0)))
    (pair,) = certificate.pairs
    assert certificate.verdict == pair.verdict == verdict
    if verdict == "consistent":
        assert pair.order[0] > 1.5


def test_adaptive_steps_shrink_with_the_tolerance():
    controller = diffrax.PIDController(rtol=1e-3, atol=1e-3)
    how = {"solver": diffrax.Heun(), "stepsize_controller": controller, "max_steps": 256}
    pieces = [Flow(Dense(3, 3), 4.0, adjoint="backsolve", **how)]
    task = hj.ControlProblem(pieces, X, terminal=lambda x: jnp.sum(x**2))
    certificate = hj.verify(task, task.init(jax.random.key(0)))
    assert certificate.verdict == "consistent"
    (pair,) = certificate.pairs
    assert pair.order[2] == "tolerance"
    assert pair.order[0] > 0.4


def test_the_costate_equation_equals_scipys():
    """Two integrators, JAX and SciPy, that share f only."""
    flow = Flow(Dense(3, 3), 1.0, control="linear", knots=3, **HEUN)
    task = hj.ControlProblem([flow], X, terminal=lambda x: jnp.sum(x**2))
    weights = task.init(jax.random.key(0))
    theta = jax.tree.map(lambda a: a[0], weights[0])
    ours = jax.jit(lambda w: costate_equation(task, w))(weights)
    mean = lambda x: jnp.mean(jnp.sum(x**2, axis=-1))
    p, g = costate_reference(flow, X, theta, mean)
    np.testing.assert_allclose(ours.costates[0], p, rtol=0, atol=1e-9)
    for a, b in zip(jax.tree.leaves(ours.gradient[0]), jax.tree.leaves(g), strict=True):
        np.testing.assert_allclose(a[0], b, rtol=0, atol=1e-9)


def test_the_route_needs_a_flow():
    dense = hj.ControlProblem([Dense(3, 3)], X, terminal=jnp.sum)
    with pytest.raises(ValueError, match="Flow"):
        hj.verify(dense, dense.init(jax.random.key(0)), routes=("backprop", "costate_equation"))


@pytest.fixture(scope="module")
def ladder():
    drift = lambda x, th: jnp.tanh(th @ x) - 4.0 * x
    theta = jnp.asarray(np.random.default_rng(4).normal(size=(3, 3)))
    controller = diffrax.PIDController(rtol=1e-3, atol=1e-3)
    flow = Flow((drift, theta), 3.0, solver=diffrax.Bosh3(), stepsize_controller=controller)
    return hj.adjoint_ladder(
        flow, [1e-3, 1e-5], ["checkpoint", "backsolve"], inputs=X, weights=theta, repeats=1
    )


def test_the_ladder_tells_which_adjoint_to_use(ladder):
    checkpoint = [r for r in ladder.rungs if r.adjoint == "checkpoint"]
    backsolve = [r for r in ladder.rungs if r.adjoint == "backsolve"]
    assert all(r.discrete_error < 1e-11 for r in checkpoint)
    assert all(r.discrete_error > 1e-6 for r in backsolve)
    assert checkpoint[1].costate_error < checkpoint[0].costate_error / 10
    assert all(r.seconds > 0 and r.compile_seconds > 0 and r.memory > 0 for r in ladder.rungs)
    assert {r.adjoint for r in ladder.breakdowns} <= {"backsolve"}
    assert set(ladder.choice) == {1e-3, 1e-5}


def test_the_ladder_prints_and_draws(ladder):
    text = str(ladder)
    assert len(text.splitlines()) <= 20
    assert "backsolve" in text
    assert "use (fastest" in text
    axes = hj.reporting.plots.adjoint_ladder(ladder)
    assert axes.get_xscale() == axes.get_yscale() == "log"
    assert len(axes.lines) == 3


def test_the_ladder_refuses_what_it_cannot_measure(unchecked):
    flow = Flow((lambda x, th: th @ x, jnp.eye(3)))
    ask = lambda *a, **k: hj.adjoint_ladder(*a, inputs=X, weights=jnp.eye(3), **k)
    with pytest.raises(ValueError, match="Flow"):
        ask(Dense(3, 3))
    with pytest.raises(ValueError, match="positive"):
        ask(flow, [0.0])
    with pytest.raises(ValueError, match="adjoint"):
        ask(flow, [1e-3], ["reverse"])
    with pytest.raises(ValueError, match="none"):
        ask(flow, [1e-3], [])

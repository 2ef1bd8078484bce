"""Differences of convex layers: the objective never rises, and the end is stationary."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hjcontrol as hj
from hjcontrol.layers.certify import certify
from hjcontrol.solvers.convex import DifferenceOfConvex

pytestmark = pytest.mark.slow

judge = eqx.filter_jit(certify)


@pytest.fixture(scope="module")
def wave():
    x = np.random.default_rng(0).uniform(-2, 2, (80, 1))
    p = DifferenceOfConvex(x, np.sin(3 * x[:, 0]), pieces=(6, 6), eps=0.1, delta=1.0, ridge=1e-3)
    return p, p.solve(tol=1e-6, max_steps=3000)


def test_the_objective_never_rises_and_the_end_is_stationary(wave):  #: stationarity 1e-6
    p, s = wave
    assert np.all(np.diff(s.stats["history"]) <= 0)
    assert s.stats["history"][-1] < 0.3 * s.stats["history"][0]
    assert bool(s.result == hj.RESULTS.successful)
    control = p.as_control_problem()
    value, gradient = jax.value_and_grad(control.objective)(s.weights)
    assert float(value) == pytest.approx(float(s.objective), rel=1e-12)
    largest = max(float(jnp.abs(g).max()) for g in jax.tree.leaves(gradient))
    assert largest <= 1e-6
    assert 0 <= float(s.gap) <= 1e-6  # of its own majorant: |grad J|^2 / (2 rho)


def test_the_certificate_catches_a_wrong_weight_and_a_wrong_slope(wave):
    p, s = wave
    tolerance = 1e-5
    assert judge(p, s.candidate, tolerance=tolerance).verdict == "optimal"
    moved = eqx.tree_at(lambda c: c.plus.b, s.candidate, s.candidate.plus.b + 1e-2)
    assert judge(p, moved, tolerance=tolerance).verdict != "optimal"
    turned = jax.tree.map(jnp.negative, s.dual)
    found = judge(p, s.candidate, turned, tolerance=tolerance)
    assert found.verdict == "infeasible"
    assert found.offender()[0] in ("dual", "stationarity")


def test_the_majorant_touches_and_lies_above(wave):
    """`C - G` against `C` with `G` linearised at the candidate, along random directions."""
    p, s = wave
    base = s.candidate
    slope = jax.grad(p.concave_part)(base)
    J = lambda t: p.convex_part(t) - p.concave_part(t)
    inner = lambda a, b: sum(
        jnp.sum(x * y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )

    @jax.jit
    def excess(seed, size):
        leaves, structure = jax.tree.flatten(base)
        keys = jax.random.split(jax.random.key(seed), len(leaves))
        move = [size * jax.random.normal(k, a.shape) for k, a in zip(keys, leaves, strict=True)]
        t = jax.tree.unflatten(structure, [a + m for a, m in zip(leaves, move, strict=True)])
        step = jax.tree.map(jnp.subtract, t, base)
        return p.convex_part(t) - p.concave_part(base) - inner(slope, step) - J(t)

    assert abs(float(excess(0, 0.0))) <= 1e-12
    for seed in range(5):
        assert float(excess(seed, 1.0)) >= -1e-12
        assert float(excess(seed, 0.05)) >= -1e-12


def test_gradient_descent_from_the_same_start_is_no_contradiction(wave):
    """J is not convex: descent may end elsewhere, but not below a bound that would refute J's own."""
    p = wave[0]
    control = p.as_control_problem()
    found = hj.solve(
        control, hj.solvers.Gradient(optax.lbfgs(), tol=1e-6), init=p.to_weights(p.start())
    )
    assert float(found.objective) >= 0
    polished = p.solve(init=p.from_weights(found.weights), tol=1e-6, max_steps=3000)
    assert float(polished.objective) <= float(found.objective) + 1e-15


def test_the_loss_is_between_square_and_absolute_value():
    from hjcontrol.solvers.convex.difference import SoftAbsolute

    loss = SoftAbsolute(jnp.asarray(0.5))
    for r in (0.0, 1e-3, 0.7, 40.0):
        value = float(loss(jnp.asarray([r]), jnp.asarray(0.0)))
        assert abs(r) - 2 * 0.5 * np.log(2) - 1e-12 <= value <= abs(r)
        assert value <= r**2 / (4 * 0.5) + 1e-12
    assert float(loss(jnp.asarray([1e-3]), jnp.asarray(0.0))) == pytest.approx(5e-7, rel=1e-5)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"eps": 0.0}, "eps"),
        ({"delta": -1.0}, "delta"),
        ({"ridge": 0.0}, "ridge"),
        ({"pieces": (0, 2)}, "pieces"),
    ],
)
def test_bad_input_is_refused(change, words):
    given = {"pieces": (2, 2), "eps": 0.1, "delta": 0.1, "ridge": 1e-3} | change
    with pytest.raises(ValueError, match=words):
        DifferenceOfConvex(np.zeros((3, 1)), np.zeros(3), **given)

"""Differences of convex layers: the objective never rises, and the end is stationary."""

import equinox as eqx
import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import optax
import pytest

import hjcontrol as hj
from hjcontrol.layers.certifying import certify
from hjcontrol.networks import AffineWeights
from hjcontrol.solvers.convex import DifferenceOfConvex, DifferenceOfMaxAffine
from hjcontrol.solvers.convex.difference import Layers, SoftAbsolute
from hjcontrol.solvers.convex.max_affine_difference import Readings

judge = eqx.filter_jit(certify)


@pytest.fixture(scope="module")
def wave():
    x = np.random.default_rng(0).uniform(-2, 2, (40, 1))
    p = DifferenceOfConvex(x, np.sin(3 * x[:, 0]), atoms=(4, 4), eps=0.2, delta=1.0, ridge=1e-2)
    return p, p.solve(tol=1e-6, max_steps=2000)


def test_the_objective_never_rises_and_the_end_is_stationary(wave):  #: stationarity 1e-6
    p, s = wave
    assert np.all(np.diff(s.history.objective) <= 0)
    assert s.history.objective[-1] < 0.3 * s.history.objective[0]
    assert bool(s.result == hj.RESULTS.successful)
    control = p.as_control_problem()
    value, gradient = jax.value_and_grad(control.objective)(s.weights)
    assert float(value) == pytest.approx(float(s.objective), rel=1e-12)
    largest = max(float(jnp.abs(g).max()) for g in jax.tree.leaves(gradient))
    assert largest <= 1e-6
    assert 0 <= float(s.gap) <= 1e-6  # of its own majorant: |grad J|^2 / (2 rho)


def test_the_certificate_catches_a_wrong_weight_and_a_wrong_slope(wave):
    p, s = wave
    tol = 1e-5
    assert judge(p, s.native.candidate, tol=tol).verdict == "optimal"
    moved = eqx.tree_at(lambda c: c.plus.b, s.native.candidate, s.native.candidate.plus.b + 1e-2)
    assert judge(p, moved, tol=tol).verdict != "optimal"
    turned = jax.tree.map(jnp.negative, s.native.dual)
    found = judge(p, s.native.candidate, turned, tol=tol)
    assert found.verdict == "infeasible"
    assert found.offender()[0] in ("dual", "stationarity")


def test_the_majorant_touches_and_lies_above(wave):
    """`C - G` against `C` with `G` linearised at the candidate, along random directions."""
    p, s = wave
    base = s.native.candidate
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
        assert min(float(excess(seed, size)) for size in (1.0, 0.05)) >= -1e-12


def test_gradient_descent_from_the_same_start_is_no_contradiction(wave):
    """J is not convex: descent may end elsewhere, but not below a bound that would refute J's own."""
    p = wave[0]
    control = p.as_control_problem()
    found = hj.solve(
        control, hj.solvers.Gradient(optax.lbfgs(), tol=1e-6), init=p.to_weights(p.start())
    )
    assert float(found.objective) >= 0
    polished = p.solve(init=p.from_weights(found.weights), tol=1e-6, max_steps=2000)
    assert float(polished.objective) <= float(found.objective) + 1e-15


def test_the_loss_is_between_square_and_absolute_value():
    loss = SoftAbsolute(jnp.asarray(0.5))
    sizes = np.array([0.0, 1e-3, 0.7, 40.0])
    values = np.asarray(jax.jit(jax.vmap(lambda r: loss(r[None], jnp.asarray(0.0))))(sizes))
    assert (sizes - 2 * 0.5 * np.log(2) - 1e-12 <= values).all()
    assert (values <= np.minimum(sizes, sizes**2 / (4 * 0.5) + 1e-12)).all()
    assert values[1] == pytest.approx(5e-7, rel=1e-5)


@pytest.mark.parametrize("r", [1e-9, 1e-6, 1e-3, 0.5, 1.999, 2.0, 50.0])
def test_the_loss_near_zero_keeps_its_digits(
    r,
):  #: r = 1e-9: 2.5e-19, found 0 as a difference of logs
    loss = SoftAbsolute(jnp.asarray(1.0))
    at = lambda r: loss(jnp.asarray([r]), jnp.asarray(0.0))
    with mpmath.workdps(60):
        want = 2 * mpmath.log(mpmath.cosh(mpmath.mpf(r) / 2))
        assert abs(mpmath.mpf(float(at(r))) - want) < 1e-15 * want
        slope = mpmath.tanh(mpmath.mpf(r) / 2)
        assert abs(mpmath.mpf(float(jax.grad(at)(r))) - slope) < 1e-15 * slope


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"eps": 0.0}, "eps"),
        ({"delta": -1.0}, "delta"),
        ({"ridge": 0.0}, "ridge"),
        ({"atoms": (0, 2)}, "atoms"),
    ],
)
def test_bad_input_is_refused(change, words):
    given = {"atoms": (2, 2), "eps": 0.1, "delta": 0.1, "ridge": 1e-3} | change
    with pytest.raises(ValueError, match=words):
        DifferenceOfConvex(np.zeros((3, 1)), np.zeros(3), **given)


# ------------------------------------------------------------------------------------ max-affine layers


@pytest.fixture(scope="module")
def broken_line():
    """Fitted from weights that are not near an optimum, so that the procedure has steps to take."""
    x = np.random.default_rng(0).uniform(-2, 2, (40, 1))
    p = DifferenceOfMaxAffine(x, np.sin(3 * x[:, 0]), atoms=(5, 5), delta=0.2, ridge=1e-3)
    rng = np.random.default_rng(0)
    layer = lambda: AffineWeights(*(jnp.asarray(rng.standard_normal(s)) for s in ((5, 1), 5)))
    return p, p.solve(init=Layers(layer(), layer()))


def test_at_eps_zero_the_objective_never_rises_and_the_end_is_critical(broken_line):  #: gap 1e-9
    p, s = broken_line
    history = s.history.objective
    assert len(history) >= 3  # read as at first, it would end after one step: critical, and poor
    assert np.all(np.diff(history) < 0)
    assert history[-1] < 0.5 * history[0]
    assert bool(s.result == hj.RESULTS.successful)
    assert 0 <= float(s.gap) <= 1e-7 * float(s.objective)
    control = p.as_control_problem()
    assert float(control.objective(s.weights)) == pytest.approx(float(s.objective), rel=1e-12)


def test_at_eps_zero_the_gap_judges_points_and_readings(broken_line):
    p, s = broken_line
    c, r = s.native.candidate, s.native.dual
    gap = lambda c, r=None: float(judge(p, c, r, tol=1e-6).gap)
    assert bool(judge(p, c, r, tol=1e-6).certified)
    used = int(jnp.argmax(r.own.plus.sum(axis=0)))  # a piece that is seen by the samples
    moved = eqx.tree_at(lambda c: c.plus.b, c, c.plus.b.at[used].add(1e-1))
    assert gap(moved, r) > 1e-5
    elsewhere = Readings(r.taken, jax.tree.map(lambda a: jnp.roll(a, 1, axis=1), r.own))
    assert gap(c, elsewhere) > 1e-3
    empty = Readings(r.taken, jax.tree.map(jnp.zeros_like, r.own))
    assert judge(p, c, empty, tol=1e-6).verdict == "infeasible"
    planes = p.inputs @ c.plus.W.T + c.plus.b[None, :]
    top = jnp.sort(planes, axis=1)
    if float(jnp.min(top[:, -1] - top[:, -2])) < 1e-7:  # kinks at samples: own pieces prove less
        assert gap(c) > 10 * float(s.gap)


def test_at_eps_zero_the_bound_holds_for_the_majorant(broken_line):
    """Every other candidate's majorant value lies above the bound, also for readings not optimal."""
    p, s = broken_line
    base = p.readings(s.native.candidate)
    taken = base.taken
    bound = float(
        judge(p, s.native.candidate, base).dual_objective
    )  # read at maxima: no slack to add

    @jax.jit
    def majorant(seed, size):
        leaves, structure = jax.tree.flatten(s.native.candidate)
        keys = jax.random.split(jax.random.key(seed), len(leaves))
        move = [size * jax.random.normal(k, a.shape) for k, a in zip(keys, leaves, strict=True)]
        t = jax.tree.unflatten(structure, [a + m for a, m in zip(leaves, move, strict=True)])
        found = p.residuals(t, Readings(taken, taken))
        slack = sum(jnp.mean(found.complementarity[k]) for k in ("taken.plus", "taken.minus"))
        return found.objective + slack

    for seed in range(4):
        assert min(float(majorant(seed, size)) for size in (1.0, 0.05, 1e-3)) >= bound - 1e-12

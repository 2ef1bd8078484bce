"""Hopf-Cole fits: convex in the masses, certified over the biases and over a ball of slopes."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hjcontrol as hj
from hjcontrol.layers.certifying import certify
from hjcontrol.solvers.convex import HopfCole, fit_lse, polish
from hjcontrol.solvers.convex.column_generation import steepest
from hjcontrol.solvers.convex.nonnegative import LOSSES
from hjcontrol.solvers.convex.pricing import Pricing, bound

judge = eqx.filter_jit(certify)
SLOPES = np.linspace(-1.5, 1.5, 12)[:, None]


def norm_data(d: int = 1, n: int = 60, seed: int = 0):
    x = np.random.default_rng(seed).uniform(-2, 2, (n, d))
    return x, np.linalg.norm(x, axis=1)


def by_cvxpy(p: HopfCole) -> float:
    """The same program in the masses, each in the unit in which it counts at most 1."""
    import cvxpy as cp

    A = np.exp(np.asarray(p.logits))
    A = A / A.max(axis=0)
    c = cp.Variable(A.shape[1], nonneg=True)
    u = A @ c
    loss = 0.5 * cp.sum_squares(u - 1) if p.loss == "squared" else cp.sum(u - 1 - cp.log(u))
    program = cp.Problem(cp.Minimize(loss / len(A)))
    return program.solve(solver=cp.CLARABEL)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_gap_is_closed_and_cvxpy_agrees(loss):  #: 1e-9, cvxpy's tolerance
    p = HopfCole(*norm_data(), SLOPES, 0.3, loss)
    s = p.solve()
    assert bool(s.result == hj.RESULTS.successful)
    assert float(s.objective) == pytest.approx(by_cvxpy(p), rel=1e-6, abs=1e-9)
    assert judge(p, s.native.candidate, s.native.dual).verdict == "optimal"
    assert abs(float(judge(p, s.native.candidate).gap)) <= 1e-12


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("share", [0.1, 1e-2, 1e-3])
def test_small_temperatures_are_solved_in_logarithms(loss, share):  #: gap 4e-15
    x, y = norm_data()
    y = y + 0.02 * np.random.default_rng(1).standard_normal(len(y))
    p = HopfCole(x, y, SLOPES, share * np.ptp(y), loss)
    s = p.solve()
    assert bool(s.result == hj.RESULTS.successful)
    assert np.isfinite(float(s.objective))
    checked = judge(p, s.native.candidate, s.native.dual)
    assert checked.verdict == "optimal", checked
    assert float(
        p.as_control_problem().objective(p.to_weights(s.native.candidate))
    ) == pytest.approx(float(s.objective), rel=1e-12)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_certificate_catches_a_wrong_bias_and_a_wrong_score(loss):
    p = HopfCole(*norm_data(), SLOPES, 0.3, loss)
    s = p.solve()
    live = int(np.argmax(np.asarray(s.native.candidate)))
    moved = s.native.candidate.at[live].add(3e-3)
    assert judge(p, moved).verdict == "suboptimal"
    dead = int(np.argmin(np.asarray(s.native.candidate)))  # a slope the optimum has no use for
    assert np.isneginf(float(s.native.candidate[dead]))
    assert judge(p, s.native.candidate.at[dead].set(-0.5)).verdict == "suboptimal"
    raised = judge(p, s.native.candidate, s.native.dual + 1e-3)
    assert raised.verdict == "infeasible"
    assert float(raised.dual) == pytest.approx(1e-3, rel=1e-2)


def test_the_network_is_the_fit():  #: 4e-16
    p = HopfCole(*norm_data(), SLOPES, 0.3)
    s = p.solve()
    f = jax.vmap(s.native)(p.inputs)[:, 0]
    u = jnp.exp(p.logits) @ jnp.exp(s.native.candidate / p.eps)
    np.testing.assert_allclose(jnp.exp((f - p.targets) / p.eps), u, rtol=1e-12)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("d", [1, 2])
def test_the_ball_bound_holds_and_is_tight(d, loss):  #: within the asked 2e-3
    x, y = norm_data(d)
    fit = fit_lse(x, y, 0.4, max_atoms=20, radius=1.4, loss=loss)
    ball = fit.native.ball(tol=2e-3, max_cubes=60_000)
    grid = np.stack(np.meshgrid(*[np.linspace(-1.4, 1.4, 2001 if d == 1 else 61)] * d), -1)
    grid = grid.reshape(-1, d)
    grid = grid[np.linalg.norm(grid, axis=1) <= 1.4]
    prices = Pricing(x, y, 0.4, loss, fit.native.scores).price(grid)[0]
    assert prices.max() <= ball.attained + 1e-6
    assert ball.attained <= ball.bound <= ball.attained + 2e-3 + 1e-12
    assert np.linalg.norm(ball.slope) <= 1.4 + 1e-9
    # and no layer over the ball does better than the bound says
    rich = HopfCole(x, y, grid[:: 1 if d == 2 else 10], 0.4, loss).solve()
    assert float(rich.objective) >= fit.native.below(ball)


def test_a_small_budget_weakens_the_bound_and_never_breaks_it():
    x, y = norm_data(2)
    fit = fit_lse(x, y, 0.4, max_atoms=20, radius=1.4)
    loose, tight = (
        fit.native.ball(tol=2e-3, max_cubes=16),
        fit.native.ball(tol=2e-3, max_cubes=60_000),
    )
    assert loose.bound >= tight.bound >= tight.attained


def test_prices_of_centres_alone_would_be_no_bound():
    """The twin: cubes of no width miss the maximum between their centres."""
    x = np.random.default_rng(0).uniform(-2, 2, (60, 1))
    scores = np.random.default_rng(3).standard_normal(len(x))
    pricing = Pricing(x, x[:, 0] ** 2, 0.05, "squared", scores)
    truth = pricing.price(np.linspace(-1.4, 1.4, 20001)[:, None])[0].max()
    centres = pricing.price(np.linspace(-1.4, 1.4, 9)[:, None])[0].max()
    assert centres < truth - 1e-2
    assert bound(pricing, 1.4, starts=np.zeros((1, 1)), tol=1e-3).bound >= truth


def test_column_generation_closes_in_on_the_measure_and_prunes():
    x, y = norm_data(2, 200)
    coarse = fit_lse(x, y, 0.3, max_atoms=30, radius=1.5, candidates=30, max_steps=0)
    fine = fit_lse(x, y, 0.3, max_atoms=30, radius=1.5, candidates=30, max_steps=12)
    assert np.all(np.diff(fine.native.rounds[:, 0]) <= 1e-12)  # more slopes, never worse
    assert fine.native.measure_objective < coarse.native.measure_objective
    assert fine.native.rounds[-1, 1] <= 1.0 + 1e-3
    few = fit_lse(x, y, 0.3, max_atoms=5, radius=1.5)
    assert few.stats["atoms"] <= 5
    assert float(few.objective) >= few.native.measure_objective
    assert "Hopf-Cole" in str(few)


def test_polish_lowers_the_mean_square_to_a_stationary_point():  #: stationarity 1e-9
    x, y = norm_data(1, 60)
    fit = fit_lse(x, y, 0.3, max_atoms=8)
    theta = fit.native.problem.layer(fit.native.candidate)
    found = polish(x, y, theta, 0.3)
    assert np.all(np.diff(found.history.objective) < 0)
    assert bool(found.result == hj.RESULTS.successful)
    control = found.problem
    value, gradient = jax.value_and_grad(control.objective)(found.weights)
    assert float(value) == pytest.approx(float(found.objective), rel=1e-12)
    largest = max(float(jnp.abs(g).max()) for g in jax.tree.leaves(gradient))
    assert largest == pytest.approx(found.stats["stationarity"], rel=1e-3, abs=1e-12)
    assert largest <= 1e-8


@pytest.mark.parametrize("c", [1e-8, 1e8])
def test_polish_does_not_depend_on_the_unit_of_the_targets(c):
    x, y = norm_data(1, 60)
    fit = fit_lse(x, y, 0.3, max_atoms=8)
    theta = fit.native.problem.layer(fit.native.candidate)
    one = polish(x, y, theta, 0.3)
    other = polish(x, c * y, jax.tree.map(lambda a: c * a, theta), 0.3 * c)
    assert one.stats["num_steps"] > 2
    assert (
        abs(other.stats["num_steps"] - one.stats["num_steps"]) <= 1
    )  # the last step is at roundoff
    assert bool(other.result == one.result)
    assert float(other.objective) / c**2 == pytest.approx(float(one.objective), rel=1e-9)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"eps": 0.0}, "eps"),
        ({"eps": -1.0}, "eps"),
        ({"slopes": np.zeros((3, 2))}, "slopes"),
        ({"slopes": np.full((3, 1), np.inf)}, "finite"),
        ({"loss": "huber"}, "loss"),
        ({"targets": np.array([0.0, np.nan])}, "finite"),
    ],
)
@pytest.mark.smoke
def test_bad_input_is_refused(change, words, unchecked):
    given = {
        "inputs": np.zeros((2, 1)),
        "targets": np.zeros(2),
        "slopes": np.zeros((3, 1)),
        "eps": 0.1,
    } | change
    with pytest.raises(ValueError, match=words):
        HopfCole(**given)


def test_noise_between_neighbours_does_not_set_the_ball():
    rng = np.random.default_rng(1)
    x = rng.uniform(-2, 2, (400, 1))
    y = np.abs(x[:, 0]) + 0.05 * rng.standard_normal(400)
    nearest = np.argsort(x[:200, 0])
    quotient = np.abs(np.diff(y[nearest])) / np.diff(x[nearest, 0])
    assert quotient.max() > 50.0  # what every pair would say
    assert 0.9 <= steepest(x, y) <= 3.0

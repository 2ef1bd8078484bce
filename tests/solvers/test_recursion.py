"""One sample by Riccati: unstable horizons, costs without curvature, gains, and what a result says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hjcontrol as hj
from hjcontrol.solvers.selection import select


def scalar(growth: float, start: float = 1.0, depth: int = 100) -> hj.ControlProblem:
    """x+ = growth x + u, J = sum (0.1 u^2 + 0.01 x^2) / 2 + x_K^2 / 2."""
    return hj.ControlProblem(
        [(lambda x, u: growth * x + u, jnp.zeros(1))] * depth,
        jnp.array([[start]]),
        terminal=lambda x: 0.5 * jnp.sum(x**2),
        running=[hj.control.Ridge(0.1), lambda x, u: 0.005 * jnp.sum(x**2)],
    )


def by_hand(growth: float, depth: int = 100) -> tuple[float, np.ndarray]:
    """J from x_0 = 1 and the gains, by the scalar Riccati equation."""
    P, gains = 1.0, np.zeros(depth)
    for k in reversed(range(depth)):
        gains[k] = -growth * P / (0.1 + P)
        P = 0.01 + growth * P * (growth + gains[k])
    return P / 2, gains


def solved(problem, name, **options):
    return hj.solve(problem, name, init=problem.init(jax.random.key(0)), **options)


@pytest.mark.parametrize("name", ["riccati", "ddp", "direct"])
def test_an_unstable_horizon_is_solved(name):
    """A matrix of all weights gave 0.0384 here, and said that it was done."""
    found = solved(scalar(1.2), name)
    assert found.result == hj.RESULTS.successful
    np.testing.assert_allclose(found.objective, 0.034290622888, atol=1e-9)
    np.testing.assert_allclose(found.objective, by_hand(1.2)[0], atol=1e-12)
    if name != "direct":
        assert found.stats["stationarity"] < 1e-10
        np.testing.assert_allclose(found.feedback.gains[0].ravel(), by_hand(1.2)[1], atol=1e-10)


def test_where_weights_lose_the_trajectory_the_result_says_so():
    problem = scalar(1.5)
    found = solved(problem, "riccati")
    assert found.result == hj.RESULTS.open_loop_unstable
    assert "closed loop" in found.stats["message"]
    assert found.feedback.growth > 1e17
    np.testing.assert_allclose(found.objective, by_hand(1.5)[0], rtol=1e-9)
    # The weights alone, one bit apart, lead elsewhere; the gains do not.
    moved = jax.tree.map(lambda a: a * (1 + 1e-15), found.weights)
    assert float(problem.objective(moved)) > 1.0
    _, states, value = found.feedback.rollout(problem, inputs=jnp.array([[1.0 + 1e-12]]))
    np.testing.assert_allclose(value, by_hand(1.5)[0], rtol=1e-9)
    assert np.abs(states.final).max() < 1e-9
    _, _, value = found.feedback.rollout(problem, inputs=jnp.array([[2.0]]))
    np.testing.assert_allclose(value, 4 * by_hand(1.5)[0], rtol=1e-9)
    with pytest.raises(ValueError, match="must be shaped as the problem's"):
        found.feedback.rollout(problem, inputs=jnp.ones((2, 1)))
    # The twin: dynamics that amplify little have gains and an ordinary result.
    calm = solved(scalar(0.9, depth=20), "riccati")
    assert calm.result == hj.RESULTS.successful
    assert calm.feedback.growth < 10


def mayer(f, *start: float) -> hj.ControlProblem:
    """A running cost stated as a state that the terminal cost reads: no curvature along linear states."""
    x = jnp.array([start])
    return hj.ControlProblem([(f, jnp.zeros(1))] * 40, x, terminal=lambda x: x[2])


def quadratic(x, u):
    cost = 0.05 * (x[0] ** 2 + x[1] ** 2 + u[0] ** 2)
    return x + jnp.array([0.1 * x[1], 0.1 * u[0], cost])


def van_der_pol(x, u, h=0.25):
    def f(x):
        return jnp.array([(1 - x[1] ** 2) * x[0] - x[1] + u[0], x[0], x @ x - x[2] ** 2 + u @ u])

    def stage(carry, at):
        slope = f(x + at[0] * carry[0])
        return (slope, carry[1] + at[1] * slope), None

    rows = h * jnp.array([[0, 1 / 6], [0.5, 1 / 3], [0.5, 1 / 3], [1, 1 / 6]])
    return x + jax.lax.scan(stage, (x, 0 * x), rows)[0][1]


@pytest.mark.parametrize(
    ("f", "start", "right"),
    [(quadratic, (1.0, 0.0, 0.0), 0.9134033589), (van_der_pol, (0.0, 1.0, 0.0), 2.8876811097)],
)
def test_a_cost_stated_as_a_state_is_solved_by_exact_curvature(f, start, right):
    """Both ended where they began, and called it stagnation."""
    found = solved(mayer(f, *start), "ddp")
    assert found.result == hj.RESULTS.successful
    np.testing.assert_allclose(found.objective, right, atol=1e-10)


def test_gauss_newton_names_the_remedy_where_it_has_no_curvature():
    found = solved(mayer(quadratic, 1.0, 0.0, 0.0), "riccati", max_steps=10)
    assert found.result == hj.RESULTS.max_steps_reached
    assert "state the running cost as one" in found.stats["message"]
    assert float(found.objective) < 1.5  # it moves, by gradient steps
    done = solved(scalar(0.9, depth=5), "riccati")
    assert "message" not in done.stats


def test_stagnation_is_said_only_where_it_is_true():
    """At a kink the model sees a fall that J does not show; at roundoff nobody sees one."""
    kinked = hj.ControlProblem(
        [(lambda x, u: x + u, jnp.ones(1))],
        jnp.zeros((1, 1)),
        terminal=lambda x: jnp.sum(jnp.abs(x) + 1e-3 * x**2),
    )
    found = solved(kinked, "riccati")
    assert found.result == hj.RESULTS.no_descent
    smooth = scalar(0.9, depth=5)
    found = solved(smooth, hj.solvers.Riccati(tol=0.0))
    assert found.result == hj.RESULTS.stagnated or found.stats["stationarity"] == 0


def test_auto_asks_how_many_samples_there_are():
    assert select(scalar(1.2)).name == "ddp"
    two = hj.ControlProblem(
        scalar(1.2).chain, jnp.ones((2, 1)), terminal=lambda x: 0.5 * jnp.sum(x**2)
    )
    assert select(two).name == "newton"

"""Equal steps over a free horizon: published values, CasADi by hand, and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hjcontrol as hj
from hjcontrol.control import Box, ByRun, Guess, StateBox, TerminalConstraint
from hjcontrol.networks import free_horizon
from tests.oracles.published_problems import PROBLEMS, by_hand

NAMED = {p.name: p for p in PROBLEMS}
PUSH = (lambda x, u: jnp.stack([x[1], u[0]]), jnp.zeros(1))


def soonest(count, scheme="rk4"):
    """The double integrator from (1, 0) to rest at 0, |u| <= 1: T = 2, u = -1 and then 1."""
    return hj.ControlProblem(
        free_horizon(PUSH, count, 2.5, scheme),
        jnp.array([[1.0, 0.0]]),
        terminal=lambda x: x[-1],
        control_set=ByRun((Box(0.1, 10.0), Box(-1.0, 1.0))),
        terminal_constraint=TerminalConstraint(lambda x: x[:2]),
    )


def test_minimum_time_of_the_double_integrator():
    problem = soonest(10)
    found = hj.solve(problem, "direct", key=jax.random.key(0))
    assert found.result == hj.RESULTS.successful
    np.testing.assert_allclose(found.objective, 2.0, atol=1e-8)
    np.testing.assert_allclose(found.weights[1][:, 0], [-1.0] * 5 + [1.0] * 5, atol=1e-6)
    p = NAMED["double integrator, minimum time"]._replace(stages=10)
    np.testing.assert_allclose(found.objective, by_hand(p)[0], atol=1e-8)
    ends = [float(found.trajectory[k][0, -1]) for k in range(1, 12)]
    np.testing.assert_allclose(ends, 2.0, atol=1e-8)  # one horizon for all stages
    assert hj.verify(found).verdict == "exact"


def test_a_longer_horizon_is_not_optimal():
    found = hj.solve(soonest(4), "direct", key=jax.random.key(0))
    judged = hj.verify(found, optimality=True).optimality
    later = (found.weights[0] * 1.5, found.weights[1])
    moved = hj.verify(soonest(4), later, optimality=True).optimality
    assert judged.verdict != "not optimal"
    assert moved.verdict == "not optimal"


def test_steps_that_are_too_long_say_so():
    """Euler's steps of 1/2 follow another motion than the equation's, which the fourth order follows."""
    rough = hj.solve(soonest(4, "euler"), "direct", key=jax.random.key(0))
    assert rough.result == hj.RESULTS.too_coarse
    assert "HorizonStep" in rough.stats["message"]
    with pytest.raises(RuntimeError, match="too coarse"):
        hj.solve(soonest(4, "euler"), "direct", key=jax.random.key(0), throw=True)
    right = hj.solve(soonest(4), "direct", key=jax.random.key(0))
    assert right.result == hj.RESULTS.successful


def test_goddards_rocket_beside_casadi_by_hand():
    p = NAMED["Goddard's rocket, free time"]._replace(stages=50)

    def drift(x, u):
        return jnp.stack(p.rate(jnp, x, u))

    low, high = ([p.box[i][side] for i in range(3)] for side in (0, 1))
    problem = hj.ControlProblem(
        free_horizon((drift, jnp.array(p.controls)), 50, p.time.guess),
        jnp.array([p.start]),
        terminal=lambda x: -x[0],
        control_set=ByRun((Box(p.time.lower, p.time.upper), Box(0.0, 1.0))),
        terminal_constraint=TerminalConstraint(lambda x: x[2:3] - 0.6),
        path=StateBox(jnp.array([*low, -jnp.inf]), jnp.array([*high, jnp.inf]), first=2),
    )
    line = lambda s: jnp.stack([*map(jnp.asarray, p.guess(s)), jnp.asarray(p.time.guess)])
    found = hj.solve(problem, "direct", init=Guess(None, line), key=jax.random.key(0))
    assert found.result == hj.RESULTS.successful, found.stats
    np.testing.assert_allclose(found.objective, -1.01283, atol=2e-4)  # COPS
    np.testing.assert_allclose(found.objective, by_hand(p)[0], atol=1e-8)


@pytest.mark.parametrize("method", ["direct", "augmented"])
def test_energy_and_time_in_closed_form(method):
    """min T + int u^2 / 2 from rest to rest over the distance 1: with K held controls the energy is
    6 c / T^3, c = K^2 / (K^2 - 1), so T = (18 c)^(1/4) and J = 4 T / 3."""
    count = 8
    drift = lambda x, u: jnp.stack([x[1], u[0], u[0] ** 2 / 2])  # the running cost is a state
    problem = hj.ControlProblem(
        free_horizon((drift, jnp.zeros(1)), count, 1.5),
        jnp.array([[1.0, 0.0, 0.0]]),
        terminal=lambda x: x[-1] + x[2],
        control_set=ByRun((Box(0.1, 9.0), Box(-99.0, 99.0))),
        terminal_constraint=TerminalConstraint(lambda x: x[:2]),
    )
    ways = {"direct": "direct", "augmented": hj.solvers.AugmentedLagrangian(hj.Newton())}
    found = hj.solve(problem, ways[method], key=jax.random.key(0))
    assert found.result == hj.RESULTS.successful, found.stats
    T = (18 * count**2 / (count**2 - 1)) ** 0.25
    np.testing.assert_allclose(found.weights[0], [T], atol=1e-6)
    np.testing.assert_allclose(found.objective, 4 * T / 3, atol=1e-8)


def test_what_a_free_horizon_refuses():
    timed = hj.networks.as_stage((lambda x, u, t: t * x, jnp.zeros(1), "forcing"))
    with pytest.raises(ValueError, match="must read nothing; found one that reads a forcing"):
        free_horizon(timed, 3)
    with pytest.raises(ValueError, match=r"'euler'.*'rk4'"):
        free_horizon(PUSH, 3, scheme="heun")  # pyright: ignore[reportArgumentType]
    for start, count in ((-1.0, 3), (1.0, 0)):
        with pytest.raises(ValueError, match="must be"):
            free_horizon(PUSH, count, start)
    with pytest.raises(ValueError, match=r"a state of shape \(d,\) is needed"):
        hj.ControlProblem(free_horizon(PUSH, 3), jnp.ones((1, 2, 2)), terminal=lambda x: jnp.sum(x))

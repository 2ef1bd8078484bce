"""A second try at another scale of the objective: it finds what the first missed, and says so.

Kirk's stirred tank, Optimal Control Theory (1970), example 6.2-2: J = 0.0266 at T = 0.78. Its guess costs
so little that f / unit, unit = 1e-4, leads IPOPT astray. CasADi by hand takes five steps to 0.026617972.
"""

import jax
import jax.numpy as jnp
import pytest

import hjcontrol as hj
from hjcontrol.control import ControlProblem, Guess
from hjcontrol.solvers import Direct

COUNT = 50


def tank():
    h = 0.78 / COUNT

    def velocity(x, u):
        heat = (x[1] + 0.5) * jnp.exp(25 * x[0] / (x[0] + 2))
        cooled = heat - (2 + u[0]) * (x[0] + 0.25)
        return jnp.stack([cooled, 0.5 - x[1] - heat, x[0] ** 2 + x[1] ** 2 + 0.1 * u[0] ** 2])

    def step(x, u):
        a = velocity(x, u)
        b = velocity(x + h / 2 * a, u)
        c = velocity(x + h / 2 * b, u)
        return x + h / 6 * (a + 2 * b + 2 * c + velocity(x + h * c, u))

    return ControlProblem(
        [(step, jnp.zeros(1))] * COUNT, jnp.array([[0.05, 0.0, 0.0]]), terminal=lambda x: x[2]
    )


GUESS = Guess((jnp.zeros((COUNT, 1)),), lambda s: jnp.array([0.05, 0.0, 0.0]))


@pytest.mark.parametrize(
    ("init", "first"),
    [(None, "Maximum_Iterations_Exceeded"), (GUESS, "Invalid_Number_Detected")],
    ids=["rollout", "guess"],
)
def test_the_stirred_tank_is_solved_and_the_second_try_told(init, first):
    rows = []
    found = hj.solve(
        tank(),
        Direct(),
        init=init,
        key=jax.random.key(0),
        progress=lambda *row: rows.append(row[0]),
    )
    assert bool(found.result == hj.RESULTS.successful), found.stats["message"]
    assert abs(float(found.objective) - 0.026617972) < 1e-9
    assert found.stats["message"].endswith(f"scaled by 0.01; the first: {first}")
    assert rows == list(range(1, found.stats["num_steps"] + 1))  # of both, in one count
    assert found.stats["num_steps"] <= 1000
    assert hj.verify(found).verdict == "exact"


@pytest.mark.parametrize(
    ("how", "steps"),
    [
        ({"max_steps": 60}, 60),
        ({"options": {"ipopt": {"max_iter": 70}}}, 70),
        ({"options": {"ipopt": {"obj_scaling_factor": 1e4}}}, 1000),
    ],
)
def test_a_near_limit_is_not_exceeded_and_what_is_the_user_s_stays(how, steps):
    found = hj.solve(tank(), Direct(**how), key=jax.random.key(0), max_steps=how.get("max_steps"))
    assert found.result != hj.RESULTS.successful
    assert steps <= found.stats["num_steps"] <= 1.06 * steps  # a restoration reports some twice
    assert "second try" not in found.stats["message"]


def test_two_tries_in_vain_are_told_as_such():
    drift = lambda x, u: jnp.stack([x[0] + 0.1 * x[1], x[1] + 0.1 * u[0]])
    problem = ControlProblem(
        [(drift, jnp.zeros(1))] * 10,
        jnp.array([[1.0, 0.0]]),
        terminal=lambda x: x @ x,
        path=[
            hj.control.StateBox(upper=jnp.array([0.95, jnp.inf]), first=8),
            hj.control.Budget(0.01, lambda u: u[0] ** 2, name="fuel"),
        ],
    )
    found = hj.solve(problem, Direct(), key=jax.random.key(0))
    assert found.result != hj.RESULTS.successful
    assert "at a second try" in found.stats["message"]
    assert "'fuel'" in found.stats["message"]

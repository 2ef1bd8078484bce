"""FATROP in order of stages: IPOPT's answers and signs, and who judges success."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hjcontrol as hj
from hjcontrol.networks import Tied
from hjcontrol.solvers import Direct
from hjcontrol.solvers.casadi_backends import judged
from hjcontrol.solvers.stage_order import stage_order
from hjcontrol.solvers.transcription import as_nlp


def double_integrator(x, u):
    """Exact for a control constant over a fiftieth."""
    h = 1 / 50
    return jnp.stack([x[0] + h * x[1] + h**2 / 2 * u[0], x[1] + h * u[0]])


def fishing(depth: int, samples: int = 1) -> hj.ControlProblem:
    """Lotka-Volterra with fishing, Runge-Kutta, 0 <= u <= 1."""
    h = 12.0 / depth

    def f(x, u):
        both = x[0] * x[1]
        return jnp.stack([x[0] - both - 0.4 * x[0] * u[0], both - x[1] - 0.2 * x[1] * u[0]])

    def step(x, u):
        k1 = f(x, u)
        k2 = f(x + h / 2 * k1, u)
        k3 = f(x + h / 2 * k2, u)
        return x + h / 6 * (k1 + 2 * k2 + 2 * k3 + f(x + h * k3, u))

    return hj.ControlProblem(
        [(step, jnp.zeros(1))] * depth,
        jnp.array([[0.5, 0.7]]) * jnp.linspace(1, 1.1, samples)[:, None],
        terminal=lambda x: 0.0 * x[0],
        running=lambda x, u: h * jnp.sum((x - 1) ** 2),
        control_set=hj.control.Box(0.0, 1.0),
    )


def braked() -> hj.ControlProblem:
    """Bryson-Denham without its wall: from (0, 1) to (0, -1)."""
    return hj.ControlProblem(
        [(double_integrator, jnp.zeros(1))] * 50,
        jnp.array([[0.0, 1.0]]),
        terminal=lambda x: 0.0 * x[0],
        running=lambda x, u: 0.01 * jnp.sum(u**2),
        terminal_constraint=hj.control.TerminalConstraint(lambda x: x - jnp.array([0.0, -1.0])),
    )


def both(problem):
    start = problem.init(jax.random.key(0))
    return [hj.solve(problem, Direct(backend=name), init=start) for name in ("ipopt", "fatrop")]


@pytest.mark.parametrize("problem", [fishing(20), fishing(10, 3), braked()], ids=["1", "3", "end"])
def test_the_answers_and_the_signs_are_ipopts(problem):
    ipopt, fatrop = both(problem)
    assert fatrop.result == hj.RESULTS.successful, fatrop.stats
    np.testing.assert_allclose(fatrop.objective, ipopt.objective, atol=1e-9)
    assert fatrop.stats["stationarity"] < 1e-9
    largest = 0.0
    for k in range(len(ipopt.multipliers)):
        np.testing.assert_allclose(fatrop.multipliers[k], ipopt.multipliers[k], atol=1e-6)
        np.testing.assert_allclose(fatrop.multipliers[k], fatrop.costate[k], atol=1e-6)
        largest = max(largest, float(jnp.abs(ipopt.multipliers[k]).max()))
    assert largest > 0.1  # a sign that is turned would be seen
    ends = [s.terminal_multiplier for s in (ipopt, fatrop)]
    if ends[0] is not None:
        np.testing.assert_allclose(*ends, atol=1e-6)


def test_the_structure_is_one_block_a_stage():
    problem = fishing(4, 2)
    t = as_nlp(problem, init=problem.init(jax.random.key(0)), whole=True)
    found = stage_order(t)
    assert found.options["nx"] == [4] * 5
    assert found.options["nu"] == [1, 1, 1, 1, 0]
    assert found.options["ng"] == [4, 0, 0, 0, 0]
    end = {"x": found.call(t)["x0"], "lam_x": 0 * found.call(t)["x0"], "f": 0.0}
    end["lam_g"] = np.arange(found.nlp["g"].numel(), dtype=float)
    np.testing.assert_array_equal(found.back(end)["x"], t.x0)
    assert (found.back(end)["lam_g"] <= 0).all()  # turned


def test_what_has_no_blocks_is_refused():
    x = jnp.ones((1, 2))
    cell = Tied((lambda x, u: x + u, jnp.zeros(2)), 3)
    tied = hj.ControlProblem([cell], x, terminal=lambda x: jnp.sum(x**2))
    with pytest.raises(ValueError, match=r"tied weights\. Use ipopt"):
        hj.solve(tied, Direct(backend="fatrop"), init=tied.init(jax.random.key(0)))
    chain = [(lambda x, u: x + u, jnp.zeros(2))] * 3
    ball = hj.ControlProblem(
        chain, x, terminal=lambda x: jnp.sum(x**2), control_set=hj.control.L2Ball(1.0)
    )
    with pytest.raises(ValueError, match=r"found a L2Ball\. Use ipopt"):
        hj.solve(ball, Direct(backend="fatrop"), init=ball.init(jax.random.key(0)))
    lid = hj.control.PathConstraint(lambda x: x[0] - 9.0, name="lid")
    walled = hj.ControlProblem(chain, x, terminal=lambda x: jnp.sum(x**2), path=lid)
    with pytest.raises(ValueError, match=r"no rows of path constraints; found 'lid'\. Use ipopt"):
        hj.solve(walled, Direct(backend="fatrop"), init=walled.init(jax.random.key(0)))


def test_success_is_judged_by_the_conditions_not_by_the_plugin():
    result, words = judged(hj.RESULTS.successful, "Solved", 2.6e-5, 1e-8)
    assert result == hj.RESULTS.unconfirmed
    assert "missed by 2.6e-05, for 1e-08" in words
    result, _ = judged(hj.RESULTS.solver_failed, "tiny step", 1e-9, 1e-8)
    assert result == hj.RESULTS.successful
    result, _ = judged(hj.RESULTS.infeasible, "no point", 1.0, 1e-8)
    assert result == hj.RESULTS.infeasible
    problem = fishing(10)
    loose = Direct(backend="fatrop", options={"fatrop": {"tol": 1e-3}})
    found = hj.solve(problem, loose, init=problem.init(jax.random.key(0)))
    assert found.result == hj.RESULTS.unconfirmed


def test_an_exploding_rollout_is_no_start():
    """1.5^100: the program's states solve the problem, and no rollout of the weights shows it."""
    problem = hj.ControlProblem(
        [(lambda x, u: 1.5 * x + u, jnp.zeros(1))] * 100,
        jnp.ones((1, 1)),
        terminal=lambda x: 0.5 * jnp.sum(x**2),
        running=[hj.control.Ridge(0.1), lambda x, u: 0.005 * jnp.sum(x**2)],
    )
    found = hj.solve(problem, Direct(), init=problem.init(jax.random.key(0)))
    assert found.result == hj.RESULTS.open_loop_unstable
    np.testing.assert_allclose(found.objective, 0.07102012879, atol=1e-9)
    assert float(jnp.abs(found.trajectory.final).max()) < 1e-6

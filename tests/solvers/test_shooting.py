"""Shooting: the two-point problem has the other solvers' answer, scipy's limit, and fails by name."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Float
from scipy.integrate import solve_bvp

import hjcontrol as hj
from hjcontrol._ground.concrete import known
from hjcontrol.networks import lift
from hjcontrol.solvers import Shooting
from tests.oracles import linear_quadratic as oracle

DATA = oracle.draw()


@pytest.mark.parametrize(("segments", "homotopy"), [(1, False), (2, True)])
def test_linear_quadratic_answer(segments, homotopy):
    problem = hj.control.linear_quadratic(*DATA, ridge=0.3, state=0.2)
    b, p, _ = oracle.solve(*DATA, 0.3, 0.2)
    method = Shooting(segments=segments, homotopy=homotopy)
    solution = hj.solve(problem, method, key=jax.random.key(0))
    assert solution.result == hj.RESULTS.successful
    np.testing.assert_allclose(solution.weights[0], b, atol=1e-9)
    np.testing.assert_allclose(np.stack(list(solution.multipliers)), p, atol=1e-9)
    assert solution.stats["stationarity"] <= 1e-9


RHO, SPAN = 1.0, 1.0
X = jnp.asarray([[-1.0], [0.7]])
Y = jnp.asarray([[0.5], [1.2]])


def flow(pieces, **how):
    """x' = sin 2x + theta(t), theta constant on a piece; the cost tends to the integral's."""
    drift = (lambda x, theta: jnp.sin(2 * x) + theta, jnp.zeros(1))
    return hj.ControlProblem(
        hj.networks.Flow.pieces(drift, SPAN, pieces, max_steps=1, **how),
        X,
        Y,
        terminal=hj.control.least_squares,
        running=hj.control.Ridge(RHO * SPAN / pieces),
    )


@pytest.fixture(scope="module")
def continuum():
    """The same with a free function of time as control, by scipy's collocation: x, p at the ends."""
    n = len(X)

    def slope(t, z):
        x, p = z[:n], z[n:]
        return np.concatenate([np.sin(2 * x) - p.sum(0) / RHO, -2 * np.cos(2 * x) * p])

    def ends(a, b):
        return np.concatenate([a[:n] - X[:, 0], b[n:] - (b[:n] - Y[:, 0]) / n])

    t = np.linspace(0, SPAN, 40)
    start = np.concatenate([np.asarray(X) + 0 * t, np.zeros((n, t.size))])
    found = solve_bvp(slope, ends, t, start, tol=1e-10, max_nodes=20000)
    assert found.success
    return found.sol


def test_a_flow_tends_to_the_continuous_problem(continuum):
    """Second order in the length of a piece; at each length it is stationary, as the gradient's discrete
    costate says, which is not ours."""
    import diffrax

    errors = []
    for pieces in (6, 12):
        problem = flow(
            pieces,
            solver=diffrax.ReversibleHeun(),
            stepsize_controller=diffrax.ConstantStepSize(),
            adjoint="direct",
        )
        shot = hj.solve(problem, Shooting(segments=2), key=jax.random.key(0))
        assert shot.result == hj.RESULTS.successful
        reference = continuum(np.linspace(0, SPAN, pieces + 1))[len(X) :].T
        errors.append(np.abs(np.stack(list(shot.multipliers))[..., 0] - reference).max())
        assert shot.stats["stationarity"] <= 1e-9
    assert 1.8 < np.log2(errors[0] / errors[1]) < 2.2
    assert errors[1] < 2e-3


class Switch(hj.networks.AbstractStage):
    """x + h (tanh(x / tau) + theta): a switch at zero, as sharp as tau is small."""

    tau: Float[Array, ""] = eqx.field(converter=jnp.asarray)

    def init(self, key):
        return jnp.zeros(1)

    def step(self, x, theta):
        return x + (jnp.tanh(x / self.tau) + theta) / 8


class Weighed(eqx.Module):
    of: Callable
    weight: Float[Array, ""]

    def __call__(self, x, y):
        return self.weight * self.of(x, y)


class Along(eqx.Module):
    """Ridge lowered from `ridge` times its value, `Phi` weighed by eps^`phi`; (1, 0) stands still."""

    ridge: Float[Array, ""] = eqx.field(converter=jnp.asarray)
    phi: Float[Array, ""] = eqx.field(converter=jnp.asarray)

    def __call__(self, problem, eps):
        CALLS.append(known(eps) is None)
        parts = lambda p: (p.running[0].strength, p.terminal)
        strength = problem.running[0].strength * self.ridge ** (1 - eps)
        return eqx.tree_at(parts, problem, (strength, Weighed(problem.terminal, eps**self.phi)))


CALLS = []  # whether eps was traced


def test_a_homotopy_arrives_where_plain_shooting_fails():
    """Newton from the start misses; the path in the terminal weight folds back; the one in the ridge
    arrives. All are one program: neither eps nor what the path holds is compiled into it."""
    problem = hj.ControlProblem(
        [Switch(0.2)] * 8,
        jnp.asarray([[-0.5], [0.4]]),
        jnp.asarray([[0.9], [1.0]]),
        terminal=hj.control.least_squares,
        running=hj.control.Ridge(0.0125),
    )
    ask = lambda *path: hj.solve(problem, Shooting(homotopy=Along(*path)), key=jax.random.key(0))
    ridge = ask(1000.0, 0.0)
    before = len(CALLS)
    plain, folds = ask(1.0, 0.0), ask(1.0, 1.0)
    assert any(CALLS[:before])
    assert not any(CALLS[before:])

    assert plain.result == folds.result == hj.RESULTS.boundary_unmet
    assert plain.stats["path"] == []
    assert "at eps = 0, was not solved" in plain.stats["message"]
    assert 0.5 < folds.stats["path"][-1]["eps"] < 0.6
    assert "folds back" in folds.stats["message"]

    path = ridge.stats["path"]
    assert ridge.result == hj.RESULTS.successful
    assert ridge.stats["stationarity"] <= 1e-9
    assert [level["eps"] for level in path] == [0.0, 0.5, 1.0]
    assert max(level["residual"] for level in path) <= 1e-11
    assert sum(level["newton_steps"] for level in path) == ridge.stats["num_steps"]
    np.testing.assert_allclose(path[-1]["objective"], ridge.objective, rtol=1e-12)


def contracting(depth=40):
    A = np.full((depth, 1, 1), 1 / 3)
    return hj.control.linear_quadratic(
        A, np.ones((depth, 1, 1)), X[:1], Y[:1], ridge=0.3, state=0.2
    )


def test_single_shooting_fails_by_name_where_multiple_succeeds():
    """p_K depends on p_0 with the factor 3^40 > 1e19: no p_0 in float64 meets the end."""
    problem = contracting()
    single = hj.solve(problem, Shooting(), key=jax.random.key(0))
    assert single.result == hj.RESULTS.boundary_unmet
    multiple = hj.solve(problem, Shooting(segments=20), key=jax.random.key(0))
    assert multiple.result == hj.RESULTS.successful
    run = problem.chain.runs[0].stage
    A, B, x, y = (np.asarray(a) for a in (run.A, run.B, X[:1], Y[:1]))
    p = oracle.solve(A, B, x, y, 0.3, 0.2)[1]
    np.testing.assert_allclose(np.stack(list(multiple.multipliers)), p, atol=1e-9)


def test_unbounded_problem_is_a_result():
    """No ridge: H is linear in the weights and has no minimiser."""
    problem = hj.control.linear_quadratic(*DATA, ridge=0.0)
    solution = hj.solve(problem, Shooting(), key=jax.random.key(0))
    assert solution.result == hj.RESULTS.boundary_unmet


def test_refusals(unchecked):
    with pytest.raises(ValueError, match=r"segments. must be >= 1; found 0"):
        Shooting(segments=0)
    problem = hj.control.linear_quadratic(*DATA, ridge=0.3)
    with pytest.raises(ValueError, match="exceeds the 5 stages"):
        hj.solve(problem, Shooting(segments=6), key=jax.random.key(0))
    wider = hj.ControlProblem(
        [lift(1, 2)], X, terminal=lambda x: jnp.sum(x**2), running=hj.control.Ridge(0.1)
    )
    with pytest.raises(ValueError, match=r"x_0 is \(2, 1\), x_1 is \(2, 2\)"):
        hj.solve(wider, Shooting(), key=jax.random.key(0))
    with pytest.raises(ValueError, match="shooting need 'direct'"):
        hj.solve(flow(2), Shooting(), key=jax.random.key(0))
    with pytest.raises(
        ValueError, match=r"`homotopy` must be True or False or a function; found 3"
    ):
        Shooting(homotopy=3)
    elsewhere = lambda problem, eps: hj.control.linear_quadratic(*DATA, ridge=0.3 + eps)
    with pytest.raises(ValueError, match="must be the problem itself"):
        hj.solve(problem, Shooting(homotopy=elsewhere), key=jax.random.key(0))

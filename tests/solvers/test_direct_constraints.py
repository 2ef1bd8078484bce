"""The direct method's constraints: named, with multipliers that are costates, sorted when violated."""

import casadi as ca
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hjcontrol as hj
from hjcontrol.control import Box, ControlProblem, Ridge, StateBall, StateBox, TerminalConstraint
from hjcontrol.networks import Dense, Residual
from hjcontrol.solvers import Direct, Newton, as_nlp
from hjcontrol.solvers.casadi_backends import REFUSED, REFUSED_QP
from tests.agreement import assert_agree

X = jnp.array([[2.0, -2.6], [0.4, -0.6]])


def ending(function, kind="=", **more):
    return ControlProblem(
        [Residual(Dense(2, 2), 0.25)] * 4,
        X,
        terminal=lambda x: 0.5 * jnp.sum(x**2),
        running=Ridge(0.1),
        terminal_constraint=None if function is None else TerminalConstraint(function, kind),
        **more,
    )


@pytest.fixture(scope="module")
def met():
    return hj.solve(ending(lambda x: x[0] + x[1]), Direct(), key=jax.random.key(0), throw=True)


def test_terminal_constraint_is_met_and_its_multiplier_prices_the_costate(met):
    end = met.trajectory.final
    assert float(jnp.abs(end.sum(1)).max()) < 1e-10
    # p_K = dPhi/dx / n + nu dg/dx, against the multipliers of the dynamics
    wanted = (end + met.terminal_multiplier * jnp.ones((1, 2))) / 2
    assert_agree(met.multipliers.final, wanted, 1e-9)
    certificate = hj.verify(met)
    assert certificate.verdict == "exact"
    assert met.stats["stationarity"] < 1e-9
    # The twin: without the price the multipliers are no costates.
    twin = hj.verify(met.problem, met.weights, multipliers=met.multipliers)
    assert twin.verdict == "refuted"


def test_inequality_is_complementary():
    found = hj.solve(
        ending(lambda x: 0.9 - x[0], "<="), Direct(), key=jax.random.key(0), max_steps=300
    )
    assert found.result == hj.RESULTS.successful
    gap = 0.9 - np.asarray(found.trajectory.final[:, 0])
    nu = np.asarray(found.terminal_multiplier)[:, 0]
    assert gap.max() < 1e-9
    assert nu.min() > -1e-9
    assert np.abs(gap * nu).max() < 1e-9
    assert nu.max() > 1e-3  # one sample ends on the bound
    assert gap.min() < -1e-2  # and one does not
    assert hj.verify(found).verdict == "exact"


def test_infeasible_is_a_result_with_sorted_violations():
    problem = ending(lambda x: jnp.array([x[0] ** 2 + 1]), control_set=Box(-1.0, 1.0))
    found = hj.solve(problem, Direct(), key=jax.random.key(0), max_steps=60)
    assert found.result != hj.RESULTS.successful
    worst = found.stats["message"].split("; ")[1:]
    assert worst[0].startswith("terminal, sample")
    sizes = [float(w.rsplit(": ", 1)[1]) for w in worst]
    assert sizes == sorted(sizes, reverse=True)


def test_a_solution_s_costates_and_multipliers_are_those_of_the_program(met):
    """The transcribed program's Lagrangian is stationary at them: they are what IPOPT starts from."""
    t = as_nlp(met.problem, init=met.weights)
    x, g = t.nlp["x"], t.nlp["g"]
    lam = ca.MX.sym("lam", g.numel())
    slope = ca.Function("slope", [x, lam], [ca.gradient(t.nlp["f"] + ca.dot(lam, g), x)])
    at = lambda t: np.abs(np.array(slope(t.x0, t.lam_g0))).max()
    assert at(t.warmed(met.costate, met.terminal_multiplier)) < 1e-9
    assert at(t.warmed(met.costate)) > 1e-3  # the twins: without nu, and without any
    assert at(t) > 1e-3


def test_warm_start_from_a_solution_is_short(met):
    again = hj.solve(met.problem, Direct(), init=met)
    assert again.stats["num_steps"] < met.stats["num_steps"] / 4
    free = ending(None)
    newton = hj.solve(free, Newton(tol=1e-10), key=jax.random.key(0))
    assert hj.solve(free, Direct(), init=newton).stats["num_steps"] <= 2


def test_who_treats_a_terminal_constraint(met):
    with pytest.raises(
        ValueError, match=r"newton: it takes no constraint on the final states.*direct"
    ):
        hj.solve(met.problem, Newton(), key=jax.random.key(0))
    assert hj.solvers.select(met.problem).name == "direct"


@pytest.mark.parametrize("how", [{"backend": "bonmin"}, {"options": {"qpsol": "superscs"}}])
def test_plugins_known_to_be_wrong_are_refused_with_the_reason(met, how):
    name = how.get("backend", "superscs")
    with pytest.raises(ValueError, match=(REFUSED | REFUSED_QP)[name][:30]):
        hj.solve(met.problem, Direct(**how), key=jax.random.key(0))


def test_options_that_a_plugin_does_not_know_are_named(met):
    for options in ({"ipopt": {"no_such": 1}}, {"no_such": 1}):
        with pytest.raises(ValueError, match=r"these `options`: .*no_such"):
            hj.solve(met.problem, Direct(options=options), key=jax.random.key(0))


@pytest.mark.parametrize("backend", ["fatrop", "sqpmethod"])
def test_a_plugin_that_fails_says_what_is_missed_and_no_rounding(backend):
    """The first coordinate stays at 1, whatever the weights, and is asked to be 3."""
    problem = ControlProblem(
        [(lambda x, u: jnp.stack([x[0], x[1] + u[0]]), jnp.zeros(1))] * 4,
        jnp.ones((1, 2)),
        terminal=lambda x: jnp.sum(x**2),
        running=lambda x, u: u[0] ** 2,
        path=StateBox(lower=jnp.array([3.0, -9.0]), name="floor"),
    )
    found = hj.solve(problem, Direct(backend=backend), key=jax.random.key(0), max_steps=50)
    assert found.result != hj.RESULTS.successful
    assert "'floor' at depth" in found.stats["message"] or "F[0]" in found.stats["message"]
    sizes = [float(w.rsplit(": ", 1)[1]) for w in found.stats["message"].split("; ")[1:]]
    assert min(sizes) > 1e-10, found.stats["message"]


def pushed(path):
    step = lambda x, u: jnp.stack([x[0] + 0.1 * x[1], x[1] + 0.1 * u[0]])
    problem = ControlProblem(
        [(step, jnp.zeros(1))] * 10,
        jnp.array([[1.0, 0.0]]),
        terminal=lambda x: x @ x,
        path=path,
    )
    return hj.solve(problem, Direct(), key=jax.random.key(0))


@pytest.mark.parametrize(
    ("path", "size"),
    [
        (StateBox(upper=jnp.array([0.5, jnp.inf]), name="low"), "0.5"),
        (StateBall(0.5, name="low"), ""),
    ],
)
def test_a_constraint_on_states_is_named_though_the_plugin_breaks_the_dynamics(path, size):
    """The first step cannot reach it: x_1 begins with 1, whatever the weights."""
    found = pushed(path)
    assert bool(found.result == hj.RESULTS.infeasible)
    worst = found.stats["message"].split("; ")[1:]
    assert worst[0].startswith("'low' at depth 1, sample 0, coordinate 0"), worst
    assert worst[0].endswith(size)
    assert any(line.startswith("F[0] - x[1]") for line in worst), worst
    assert not any("coordinate 1" in line for line in worst)  # nothing bounds the speed


def test_a_gap_comes_before_a_constraint_that_is_hardly_missed():
    problem = pushed(StateBox(upper=jnp.array([2.0, jnp.inf]))).problem
    t = as_nlp(problem, init=problem.init(jax.random.key(0)))
    x = t.x0.copy()
    x[t.variables["x[5]"]] += jnp.array([1.0 + 1e-5, 0.0])  # a gap of 1, the box missed by 1e-5
    lines = t.violations(x, most=9, above=1e-9)
    assert [line[:6] for line in lines] == ["F[4] -", "F[5] -", "'state", "'state"], lines
    x[t.variables["x[5]"]] += jnp.array([1.0, 0.0])  # both are of a size
    lines = t.violations(x, most=9, above=1e-9)
    assert [line[:6] for line in lines] == ["'state", "'state", "F[4] -", "F[5] -"], lines

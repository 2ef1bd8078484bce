"""Verdicts do not depend on the unit of the cost; what has not converged is not called a verdict."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

import hjcontrol as hj
from hjcontrol.control import (
    Box,
    ByLeaf,
    ControlProblem,
    L2Ball,
    Nonnegative,
    Ridge,
    Simplex,
    WeightCost,
    least_squares,
)
from hjcontrol.networks import Dense, FreeStep, Residual, StepWeights
from hjcontrol.solvers import Direct, Newton
from hjcontrol.verification import conditions

KEY = jax.random.key(0)
X, Y = (jax.random.normal(jax.random.key(k), (12, 2)) for k in (0, 1))
SCALES = (1e-8, 1.0, 1e8)


def scaled(c, x, y):
    return c * least_squares(x, y)


def away(c, a, th):
    return 0.5 * c * jnp.sum((th - a) ** 2)


def still(x, th):
    return x


def paid_step(c, th):
    return c * (0.5 * th.h + 0.5 * jnp.sum(th.theta**2))


def network(c: float, **sets) -> ControlProblem:
    """The unit of the cost is a leaf: one program serves them all."""
    stages = [Residual(Dense(2, 2), 0.25)] * 2
    cost = Partial(scaled, jnp.asarray(c))
    return ControlProblem(stages, X, Y, terminal=cost, running=Ridge(1e-2 * c), **sets)


def rows(table) -> dict[str, str]:
    return {c.name: c.verdict for c in table.conditions} | {"all": table.verdict}


@pytest.fixture(scope="module")
def solutions():
    return {
        (kind, c): hj.solve(network(c, **sets), Newton(tol=1e-10), key=KEY)
        for kind, sets in (("free", {}), ("bounds", {"control_set": Box(-0.2, 0.2)}))
        for c in SCALES
    }


@pytest.mark.parametrize("kind", ["free", "bounds"])
@pytest.mark.parametrize("moved", [0.0, 1e-9, 1e-3])
def test_a_multiple_of_the_cost_has_the_same_verdicts(solutions, kind, moved):
    found = []
    for c in SCALES:
        s = solutions[kind, c]
        weights = jax.tree.map(lambda a: a - moved * jnp.sign(a), s.weights)
        found.append(rows(hj.verify(s.problem, weights, optimality=True).optimality))
    assert found[0] == found[1] == found[2]
    assert found[1]["all"] == ("not optimal" if moved == 1e-3 else "strict minimum")


def test_as_an_absolute_number_the_tolerance_lets_everything_pass(solutions):
    """The twin: what is violated by 1e-8 J is below the tolerance itself."""
    s = solutions["free", 1e-8]
    weights = jax.tree.map(lambda a: a + 1e-3, s.weights)
    table = hj.verify(s.problem, weights, optimality=True).optimality
    assert table["stationarity"] in table.violated
    assert table["stationarity"].value < table.tol
    assert "in units of dJ/dtheta, 1e-08" in " ".join(str(table).split())


@pytest.mark.parametrize("c", [1e-12, 1e-7, 1.0, 1e7])
def test_the_slope_of_a_parabola_is_no_minimum(c):
    stage = (lambda x, th: x + th, jnp.zeros(3))
    cost = lambda x: c * jnp.sum((x - 3.0) ** 2)
    problem = ControlProblem([stage], jnp.zeros((1, 3)), terminal=cost)
    at = lambda v: hj.verify(problem, (jnp.full((1, 3), v),), optimality=True).optimality
    slope, bottom = at(0.0), at(3.0)
    assert [row.name for row in slope.violated] == ["stationarity"]
    assert rows(bottom)["all"] == "strict minimum"
    assert rows(at(3.0 + 1e-9))["all"] == "strict minimum"
    assert rows(at(3.0 + 1e-2))["all"] == "not optimal"


@pytest.mark.parametrize("c", SCALES)
def test_multipliers_of_sets_are_zero_in_the_unit_of_the_cost(c):
    """J = c (|v - a|^2 / 2) on a ball, a simplex and v >= 0; a is inside, outside, and on the edge."""
    cost = lambda a: WeightCost(Partial(away, jnp.asarray(c), a))
    seen = []
    for of, a in (
        (L2Ball(1.0), jnp.asarray([0.3, 0.4])),
        (L2Ball(1.0), jnp.asarray([3.0, 4.0])),
        (Simplex(1.0), jnp.asarray([2.0, 0.5])),
        (Nonnegative(), jnp.asarray([1.0, -1.0])),
        (Nonnegative(), jnp.asarray([1.0, 0.0])),
    ):
        problem = ControlProblem(
            [(still, jnp.zeros(2))], X[:1], terminal=jnp.sum, running=cost(a), control_set=of
        )
        best = problem.control_set.project((a[None],))
        seen.append(hj.verify(problem, best, optimality=True).optimality.verdict)
        off = problem.control_set.project((a[None] + jnp.asarray([[-0.1, 0.05]]),))
        if not np.allclose(off[0], best[0]):
            assert hj.verify(problem, off, optimality=True).optimality.verdict == "not optimal"
    assert seen == ["strict minimum"] * 5


def test_free_steps_in_the_unit_of_the_cost():
    """The problem of `test_optimality`, its cost times c: h_k = 1/2, theta_k = -1/2, one stage idle."""
    drift = hj.networks.as_stage((lambda x, th: th, jnp.zeros(1)))
    for c in SCALES:
        paid = WeightCost(Partial(paid_step, jnp.asarray(c)))
        problem = ControlProblem(
            [FreeStep(drift)] * 3,
            jnp.full((1, 1), 1.5),
            jnp.zeros((1, 1)),
            terminal=Partial(scaled, jnp.asarray(c)),
            running=paid,
            control_set=ByLeaf(h=Nonnegative()),
        )
        for first, verdict in ((0.5, "holds"), (0.51, "violated")):
            at = (
                StepWeights(jnp.asarray([first, 0.5, 0.0]), jnp.asarray([[-0.5], [-0.5], [0.0]])),
            )
            row = hj.verify(problem, at, optimality=True).optimality["free steps"]
            assert row.verdict == verdict
            if verdict == "violated":
                np.testing.assert_allclose(row.value, 0.0025 * c, rtol=1e-9)


def test_dynamics_in_the_unit_of_the_states():
    """States of size 1e8 meet their dynamics to roundoff, 1e-8: no violation."""
    stage = (lambda x, th: x * (1 + th / 3), jnp.ones(1))
    cost = lambda x: jnp.sum((x / 1e8 - 1.0) ** 2)
    problem = ControlProblem([stage] * 2, 1e8 * jnp.ones((1, 1)), terminal=cost)
    solution = hj.solve(problem, Newton(), key=KEY)
    off = lambda by: eqx.tree_at(
        lambda s: s.trajectory.final, solution, solution.trajectory.final * (1 + by)
    )
    judge = lambda by: hj.verify(off(by), optimality=True).optimality["dynamics"].verdict
    assert judge(1e-13) == "holds"  # 1e-5, as an absolute number
    assert judge(1e-3) == "violated"


def spread(m: int, low: float, high: float = 1.0) -> ControlProblem:
    """J = sum_j d_j theta_j^2 / 2 with d from `low` to `high`, at its minimum 0."""
    d = jnp.concatenate([jnp.asarray([low]), jnp.linspace(0.1, high, m - 1) ** 4])
    paid = WeightCost(lambda th: 0.5 * jnp.sum(d * th**2))
    return ControlProblem([(lambda x, th: x, jnp.zeros(m))], X[:1], terminal=jnp.sum, running=paid)


def curvature(problem: ControlProblem):
    table = hj.verify(problem, problem.init(KEY), optimality=True).optimality
    return table.verdict, table["curvature of J"].verdict, table.curvature


def test_lanczos_that_has_not_converged_is_undecided():
    verdict, row, (value, bound) = curvature(spread(3000, 1e-5))
    assert value > 0.0
    assert bound > conditions.FLAT * 1e-6
    assert (verdict, row) == ("undecided", "undecided")
    few = curvature(spread(40, 1e-5))  # the twin: as many steps as weights
    assert few[:2] == ("strict minimum", "holds")


def test_negative_curvature_needs_no_convergence():
    verdict, row, (value, _) = curvature(spread(3000, -5.0))
    assert value < 0
    assert (verdict, row) == ("not optimal", "violated")


@pytest.fixture(scope="module")
def stopped():
    return {c: hj.solve(network(c), Direct(), key=KEY, max_steps=3) for c in SCALES}


@pytest.fixture(scope="module")
def ended():
    return hj.solve(network(1.0), Direct(), key=KEY)


WORDS = "multipliers not converged"


@pytest.mark.parametrize("c", SCALES)
def test_multipliers_of_an_unfinished_solve_are_not_refuted(stopped, c):
    found = hj.verify(stopped[c], optimality=True)
    assert found.verdict == "consistent"
    assert WORDS in str(found)
    pairs = {p.name: p for p in found.pairs}
    assert pairs["backprop|pairing"].verdict == "exact"
    assert pairs["backprop|pairing"].remark == ""
    for name in ("backprop|multipliers",):
        assert pairs[name].verdict == "consistent"
        assert pairs[name].remark.startswith(WORDS)
        assert pairs[name].disagreement > 1e-3  # the number is shown as it is
    assert found.optimality.verdict == "not optimal"


def test_a_wrong_multiplier_of_a_finished_solve_is_refuted(ended, stopped):
    assert hj.verify(ended).verdict == "exact"
    wrong = eqx.tree_at(lambda s: s.multipliers.final, ended, replace_fn=lambda p: 1.01 * p)
    found = hj.verify(wrong)
    assert found.verdict == "refuted"
    assert WORDS not in str(found)
    # Stopped by its limit at a point that is stationary: its multipliers claim to be the costates.
    late = dataclasses.replace(wrong, result=stopped[1.0].result)
    assert hj.verify(late).verdict == "refuted"
    # Multipliers from elsewhere are judged as they are, whatever the solution's result.
    other = hj.verify(stopped[1.0], multipliers=stopped[1.0].multipliers)
    assert other.verdict == "refuted"


def test_a_wrong_rule_is_refuted_though_multipliers_have_not_converged():
    @jax.custom_vjp
    def wrong(x):
        return jnp.tanh(x)

    wrong.defvjp(lambda x: (jnp.tanh(x), x), lambda x, g: (0.9 * g * (1 - jnp.tanh(x) ** 2),))
    stages = [Residual(Dense(2, 2), 0.25), lambda x: wrong(x)]
    problem = ControlProblem(stages, X, Y, terminal=least_squares, running=Ridge(1e-2))
    right = ControlProblem(
        [stages[0], lambda x: jnp.tanh(x)], X, Y, terminal=least_squares, running=Ridge(1e-2)
    )
    stopped = hj.solve(right, Direct(), key=KEY, max_steps=3)
    found = hj.verify(dataclasses.replace(stopped, problem=problem))
    assert found.verdict == "refuted"
    assert "backprop|pairing" in {f.pair for f in found.refuted}

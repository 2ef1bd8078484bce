"""Balls, simplices and bounds in the direct method: a cone solver's answer, multipliers in the cone."""

import casadi as ca
import cvxpy as cp
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hjcontrol as hj
from hjcontrol.control import (
    Box,
    ByLeaf,
    ByRun,
    GroupBall,
    L1Ball,
    L2Ball,
    Nonnegative,
    Ridge,
    Simplex,
)
from hjcontrol.solvers import Direct, as_nlp
from hjcontrol.solvers.lagrangian import derivatives
from hjcontrol.verification.kkt import residuals
from tests.agreement import assert_agree

RNG = np.random.default_rng(4)
TURN, MIX = 0.3 * RNG.normal(size=(3, 3)), 0.4 * RNG.normal(size=(2, 2, 3, 3))
X, Y = RNG.normal(size=(2, 4, 3))
FIRST = {"a": L1Ball(0.3), "b": L2Ball(0.2)}
LAST = {"a": Simplex(0.8), "b": Box(np.asarray([-0.2, -0.1, 0.0]), 0.15)}


def steered(control_set):
    """Controls enter additively, everything else is linear and quadratic: convex. Two runs."""
    push = [
        lambda x, th: x + TURN @ x + MIX[0, 0] @ th["a"] + MIX[0, 1] @ th["b"],
        lambda x, th: x + TURN @ x + MIX[1, 0] @ th["a"] + MIX[1, 1] @ th["b"],
    ]
    start = {"a": jnp.ones(3), "b": jnp.zeros(3)}
    return hj.ControlProblem(
        [(push[0], start)] * 2 + [(push[1], start)],
        X,
        Y,
        terminal=hj.control.least_squares,
        running=Ridge(0.1),
        control_set=control_set,
    )


def by_cones():
    """The same problem in cvxpy: its variables stage by stage, and the rows that have duals."""
    stages, x, cost, rows = [], cp.Constant(X), 0.0, {}
    for k, r in enumerate((0, 0, 1)):
        th = {name: cp.Variable(3) for name in "ab"}
        push = MIX[r, 0] @ th["a"] + MIX[r, 1] @ th["b"]
        x = x @ (np.eye(3) + TURN).T + cp.reshape(push, (1, 3), order="C")
        cost += 0.05 * (cp.sum_squares(th["a"]) + cp.sum_squares(th["b"]))
        if r == 0:
            rows[k] = {"a": cp.norm1(th["a"]) <= 0.3, "b": cp.norm(th["b"]) <= 0.2}
        else:
            rows[k] = {"a": cp.sum(th["a"]) == 0.8, "a+": th["a"] >= 0}
            rows[k] |= {"b+": th["b"] >= LAST["b"].lower, "b": th["b"] <= 0.15}
        stages.append(th)
    cost += 0.5 * cp.sum_squares(x - Y) / len(X)
    problem = cp.Problem(cp.Minimize(cost), [c for of in rows.values() for c in of.values()])
    problem.solve(cp.CLARABEL, tol_gap_abs=1e-12, tol_gap_rel=1e-12, tol_feas=1e-12)
    return problem.value, stages, rows


@pytest.fixture(scope="module")
def solved():
    problem = steered(ByRun((ByLeaf(FIRST), ByLeaf(LAST))))
    found = hj.solve(problem, Direct(), key=jax.random.key(0), throw=True)
    return found, by_cones()


def test_the_answer_is_the_cone_solvers(solved):
    found, (value, stages, _) = solved
    assert abs(float(found.objective) - value) < 1e-9
    ours = found.problem.chain.unstack(found.weights)
    for th, theirs in zip(ours, stages, strict=True):
        for name in "ab":
            np.testing.assert_allclose(th[name], theirs[name].value, atol=1e-6)
    assert found.stats["stationarity"] < 1e-9
    # The twin: with another radius it is no answer.
    gradient = jax.tree.map(jnp.negative, found.weight_multipliers)
    for name, other in (("a", L1Ball(0.4)), ("b", L2Ball(0.3))):
        wider = ByRun((ByLeaf(FIRST | {name: other}), ByLeaf(LAST)))
        assert float(wider.stationarity(found.weights, gradient)) > 1e-3


def test_multipliers_are_the_cone_solvers_in_our_sign(solved):
    found, (_, stages, rows) = solved
    lam = found.problem.chain.unstack(found.weight_multipliers)
    for k in (0, 1):
        nu = float(rows[k]["a"].dual_value)  # of |v|_1 <= r: the largest entry of lambda
        np.testing.assert_allclose(np.abs(lam[k]["a"]).max(), nu, atol=1e-6)
        assert min(nu, float(rows[k]["b"].dual_value)) > 1e-3
        unit = stages[k]["b"].value / np.linalg.norm(stages[k]["b"].value)
        np.testing.assert_allclose(lam[k]["b"], float(rows[k]["b"].dual_value) * unit, atol=1e-6)
    last = rows[2]
    for name in "ab":
        theirs = last[name].dual_value - last[name + "+"].dual_value
        np.testing.assert_allclose(lam[2][name], theirs, atol=1e-6)
        assert np.abs(theirs).max() > 1e-3


def test_multipliers_are_certified(solved):
    found, _ = solved
    gradient = jax.jit(jax.grad(found.problem.objective))(found.weights)
    judge = lambda claimed: residuals(found.problem, found.weights, gradient, claimed, 1e-6)
    right = judge(found.weight_multipliers)
    worst = lambda rows: float(jnp.max(jnp.stack([rows.stationarity, rows.dual])))
    assert worst(right) < 1e-9
    for name in "ab":  # the twin: another vector in place of one leaf's multiplier
        turned = found.weight_multipliers
        turned = ({**turned[0], name: turned[0][name][:, ::-1]}, turned[1])
        assert worst(judge(turned)) > 1e-4


def test_block_derivatives_of_the_sets_are_casadis_own(solved):
    problem = solved[0].problem
    t = as_nlp(problem, init=solved[0].weights)
    x, lam = t.nlp["x"], ca.MX.sym("lam", t.nlp["g"].numel())
    curved = ca.hessian(t.nlp["f"] + ca.dot(lam, t.nlp["g"]), x)[0]
    own = ca.Function("own", [x, lam], [ca.jacobian(t.nlp["g"], x), ca.triu(curved)])
    at, multipliers = RNG.normal(size=x.numel()), RNG.normal(size=lam.numel())
    blocks, (jacobian, hessian) = derivatives(t), own(at, multipliers)
    assert_agree(np.array(blocks["jac_g"](at, [])[1]), np.array(jacobian), 1e-14)
    assert_agree(np.array(blocks["hess_lag"](at, [], 1.0, multipliers)), np.array(hessian), 1e-13)
    far = t.violations(t.x0 + 1.0)
    assert any(
        "L1Ball of theta[0]['a'], row 6" in line for line in far + t.violations(t.x0 + 1.0, 99)
    )


def test_sets_without_smooth_constraints_are_refused_with_the_reason():
    for of in (GroupBall(1.0), ByLeaf(a=GroupBall(1.0), b=Nonnegative())):
        with pytest.raises(ValueError, match=r"'smooth'; found.*vanishing row.*adam"):
            hj.solve(steered(of), Direct(), key=jax.random.key(0))

"""Constraints along depth before the witness: each row, and the twins that must fail."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

import hjcontrol as hj
from hjcontrol.control import Box, ByRun, PathConstraint, StateBox, StateCost, TerminalConstraint


@pytest.fixture(scope="module")
def touching():
    """Bryson-Denham with 50 exact stages: x'' = u, x <= 1/9."""
    h = 1 / 50
    A, B = jnp.array([[1.0, h], [0.0, 1.0]]), jnp.array([h * h / 2, h])
    problem = hj.ControlProblem(
        [(lambda x, u: A @ x + B * u[0], jnp.zeros(1))] * 50,
        jnp.array([[0.0, 1.0]]),
        terminal=lambda x: 0.0 * x[0],
        running=StateCost(lambda x, u: h * u[0] ** 2 / 2),
        terminal_constraint=TerminalConstraint(lambda x: x - jnp.array([0.0, -1.0])),
        path=PathConstraint(lambda x: x[0] - 1 / 9, name="height"),
    )
    return hj.solve(problem, "direct", init=problem.init(jax.random.key(0)))


def verified(solution, change=lambda nu: nu):
    nu = change(solution.path_multipliers["height"])
    claimed = eqx.tree_at(lambda s: s.path_multipliers["height"], solution, nu)
    claimed = eqx.tree_at(  # the costate of these multipliers, not the one that came along
        lambda s: (s._trajectory, s._costate), claimed, (None, None)
    )
    claimed = eqx.tree_at(
        lambda s: s._costate,
        claimed,
        hj.control.costate(claimed.stated, claimed.weights)[0],
        is_leaf=lambda leaf: leaf is None,
    )
    return hj.verify(claimed, optimality=True)


def test_a_constrained_optimum_holds(touching):
    found = verified(touching)
    assert found.verdict == "exact"
    assert found.optimality.verdict == "strict minimum"
    assert found.optimality["jump of p"].value < 1e-9
    total = found.optimality["height: sum of mu"]
    assert abs(total.value - 36.081704) < 1e-5
    assert "4 of 51 active: depths 16, 17, 33, 34" in total.remark


@pytest.mark.parametrize(
    ("change", "rows"),
    [
        (lambda nu: 0.0 * nu, ("stationarity", "jump of p")),
        (lambda nu: -nu, ("stationarity", "jump of p", "height: sign")),
        (lambda nu: nu.at[0, 10].set(1.0), ("stationarity", "height: complementary")),
        (
            lambda nu: jnp.roll(nu, 5, axis=1),
            ("stationarity", "jump of p", "height: complementary"),
        ),
    ],
    ids=["dropped", "flipped", "where-nothing-is-met", "at-other-depths"],
)
def test_wrong_multipliers_are_refuted(touching, change, rows):
    found = verified(touching, change)
    assert found.verdict == "refuted"  # the multipliers of the dynamics are no costates of that
    assert found.optimality.verdict == "not optimal"
    for row in rows:
        assert found.optimality[row].verdict == "violated", row


def test_a_point_outside_is_not_feasible(touching):
    moved = eqx.tree_at(lambda s: s.weights[0], touching, 0.9 * touching.weights[0])
    row = hj.verify(moved, optimality=True).optimality["height: feasible"]
    assert row.verdict == "violated"


def test_negative_curvature_outside_the_critical_cone_refutes_nothing():
    """minimise u_0^2 - u_1^2 over x_2 = u_0 + u_1 with u_1 held by x_1, x_2: a minimum of the cone."""
    problem = hj.ControlProblem(
        [(lambda x, u: x + u, jnp.array([0.1]))] * 2,
        jnp.zeros((1, 1)),
        terminal=lambda x: -(x[0] ** 2),
        running=hj.control.WeightCost(lambda u: 0.6 * u[0] ** 2),
        path=PathConstraint(lambda x: x[0] - 1.0, last=2, first=2, name="lid"),
    )
    found = hj.solve(problem, "direct", init=problem.init(jax.random.key(0)))
    shadow = hj.control.lagrangian(problem, None, found.path_multipliers)
    H = jax.hessian(lambda v: shadow.objective((v[:, None],)))(found.weights[0][:, 0])
    assert float(jnp.linalg.eigvalsh(H)[0]) < -0.5
    optimal = hj.verify(found, optimality=True).optimality
    assert optimal.verdict == "strict minimum"
    assert abs(optimal["curvature of J"].value - 1.2) < 1e-6  # along u_0 = -u_1


def pushed(rule, path):
    """A free mass, 20 exact steps from 0 at speed 1, of least effort."""
    h = 1 / 20
    A, B = jnp.array([[1.0, h], [0.0, 1.0]]), jnp.array([h * h / 2, h])
    return hj.ControlProblem(
        [(lambda x, u: A @ x + B * u[0], jnp.zeros(1))] * 20,
        jnp.array([[0.0, 1.0]]),
        terminal=lambda x: 0.0 * x[0],
        running=StateCost(lambda x, u: h * u[0] ** 2 / 2),
        terminal_constraint=rule,
        path=path,
    )


@pytest.mark.parametrize("path", [None, StateBox(upper=100.0)], ids=["end alone", "slack box"])
def test_the_end_is_judged_whatever_else_is_constrained(path):
    """The twins: no push misses the end; a mass held back from where it may go has the wrong sign."""
    still = lambda tree: jax.tree.map(jnp.zeros_like, tree)
    found = hj.solve(
        pushed(TerminalConstraint(lambda x: x + jnp.array([0.0, 1.0])), path),
        "direct",
        key=jax.random.key(0),
    )
    assert hj.verify(found, optimality=True).optimality.verdict == "strict minimum"
    missed = dataclasses.replace(
        found,
        weights=still(found.weights),
        terminal_multiplier=still(found.terminal_multiplier),
        path_multipliers=still(found.path_multipliers),
        multipliers=None,
        weight_multipliers=None,
        _trajectory=found.problem.rollout(still(found.weights)),
        _costate=still(found._costate),
    )
    judged = hj.verify(missed, optimality=True).optimality
    assert judged.verdict == "not optimal"
    assert judged["terminal constraint: feasible"].verdict == "violated"
    short = lambda x: 0.5 - x[:1]
    held = hj.solve(pushed(TerminalConstraint(short), path), "direct", key=jax.random.key(0))
    free = eqx.tree_at(
        lambda s: s.problem.terminal_constraint,
        held,
        TerminalConstraint(short, "<="),
        is_leaf=lambda leaf: isinstance(leaf, TerminalConstraint),
    )
    judged = hj.verify(free, optimality=True).optimality
    assert judged["terminal constraint: sign"].verdict == "violated"
    assert judged.verdict == "not optimal"


@pytest.mark.parametrize("unit", [1.0, 1e-2])
def test_curvature_leaves_the_end_alone_in_any_unit(unit):
    """The least time of a double integrator: its end leaves no direction, however it is measured."""
    problem = hj.ControlProblem(
        hj.networks.free_horizon((lambda x, u: jnp.stack([x[1], u[0]]), jnp.zeros(1)), 4, 2.5),
        jnp.array([[1.0, 0.0]]),
        terminal=lambda x: x[-1],
        control_set=ByRun((Box(0.1, 9.0), Box(-1.0, 1.0))),
        terminal_constraint=TerminalConstraint(lambda x: unit * x[:2]),
    )
    found = hj.solve(problem, "direct", key=jax.random.key(0))
    assert abs(float(found.objective) - 2.0) < 1e-8
    assert hj.verify(found, optimality=True).optimality.verdict == "strict minimum"

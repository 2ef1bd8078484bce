"""Constraints along depth: published values, by the transcription and by an augmented Lagrangian.

Bryson-Denham and the double integrator: Bryson and Ho, Applied Optimal Control, section 3.11; the other
values are closed forms or dense quadratic programs, written beside the tests.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

import hjcontrol as hj
from hjcontrol.control import (
    Budget,
    Guess,
    PathConstraint,
    StateBall,
    StateBox,
    StateCost,
    TerminalConstraint,
)
from hjcontrol.solvers import AugmentedLagrangian, Newton, Riccati


def held(depth, path, start=(0.0, 1.0), end=(0.0, -1.0)):
    """x'' = u, exact for a held control; minimise the integral of u^2 / 2 over unit time."""
    h = 1.0 / depth
    A, B = jnp.array([[1.0, h], [0.0, 1.0]]), jnp.array([h * h / 2, h])
    return hj.ControlProblem(
        [(lambda x, u: A @ x + B * u[0], jnp.zeros(1))] * depth,
        jnp.array([start]),
        terminal=lambda x: 0.0 * x[0],
        running=StateCost(lambda x, u: h * u[0] ** 2 / 2),
        terminal_constraint=TerminalConstraint(lambda x: x - jnp.array(end)),
        path=path,
    )


def below(limit, **kw):
    return PathConstraint(lambda x: x[0] - limit, name="height", **kw)


def by_quadratic_program(depth, limit):
    """The same by SciPy: the states eliminated by hand, an exact active set."""
    h, n = 1.0 / depth, depth
    k, j = np.arange(1, n + 1)[:, None], np.arange(n)[None]
    X = np.where(j < k, h * h * (k - j - 0.5), 0.0)  # x_k = k h + X u
    free = k[:, 0] * h
    ends = np.stack([X[-1], np.full(n, h)]), np.array([-free[-1], -2.0])
    rules = [
        {"type": "eq", "fun": lambda u: ends[0] @ u - ends[1], "jac": lambda u: ends[0]},
        {"type": "ineq", "fun": lambda u: limit - free - X @ u, "jac": lambda u: -X},
    ]
    start = np.linalg.lstsq(ends[0], ends[1], rcond=None)[0]
    return scipy.optimize.minimize(
        lambda u: h * u @ u / 2,
        start,
        jac=lambda u: h * u,
        constraints=rules,
        method="SLSQP",
        options={"ftol": 1e-15, "maxiter": 500},
    ).fun


@pytest.fixture(scope="module")
def touching():
    """Bryson-Denham by Direct, 50 stages."""
    problem = held(50, below(1 / 9))
    return hj.solve(problem, "direct", init=problem.init(jax.random.key(0)))


def test_bryson_denham(touching):
    nu = touching.path_multipliers["height"]
    assert abs(float(touching.objective) - 4.003438057) < 1e-9
    assert abs(float(touching.objective) - by_quadratic_program(50, 1 / 9)) < 1e-7
    assert nu.shape == (1, 51, 1)
    assert abs(float(nu.sum()) - 36.081704) < 1e-6
    assert np.flatnonzero(np.asarray(nu[0, :, 0]) > 1e-6).tolist() == [16, 17, 33, 34]


def test_costates_are_the_multipliers_only_with_the_price(touching):
    gap = lambda a, b: max(float(jnp.max(jnp.abs(p - q))) for p, q in zip(a, b, strict=True))
    assert gap(touching.multipliers, touching.costate) < 1e-9
    unpriced = eqx.tree_at(
        lambda s: s.path_multipliers["height"],
        touching,
        jnp.zeros_like(touching.path_multipliers["height"]),
    )
    bare = hj.control.costate(unpriced.stated, unpriced.weights)[0]
    assert abs(gap(touching.multipliers, bare) - 36.0817) < 1e-3  # their sum, at the start


def test_the_sum_of_the_multipliers_is_the_slope_in_the_bound(touching):
    step = 1e-5
    costs = [
        float(hj.solve(held(50, below(1 / 9 + d)), "direct", init=touching.weights).objective)
        for d in (step, -step)
    ]
    slope = (costs[0] - costs[1]) / (2 * step)
    assert abs(slope + float(touching.path_multipliers["height"].sum())) < 1e-2


@pytest.mark.parametrize("transcription", ["multiple", "single"])
def test_a_state_box_is_the_same_constraint(touching, transcription):
    box = StateBox(upper=jnp.array([1 / 9, jnp.inf]), name="height")
    solver = hj.solvers.Direct(transcription=transcription)
    found = hj.solve(held(50, box), solver, init=touching.weights)
    assert abs(float(found.objective - touching.objective)) < 1e-10
    away = found.path_multipliers["height"] - touching.path_multipliers["height"]
    assert float(jnp.max(jnp.abs(away))) < 1e-6


@pytest.mark.parametrize(
    ("start", "end", "path", "value"),
    [
        ((0.0, 1.0), (0.0, -1.0), below(1 / 6), 8 / 3),
        ((0.0, 1.0), (0.0, -1.0), below(1 / 4), 2.0),
        ((-1.0, 0.0), (0.0, 0.0), (), 6.0),
        ((-1.0, 0.0), (0.0, 0.0), StateBox(upper=jnp.array([jnp.inf, 1.2])), 7.68),
    ],
    ids=["below-1/6", "below-1/4", "free", "speed"],
)
def test_closed_forms(start, end, path, value):
    problem = held(100, path, start, end)
    found = hj.solve(problem, "direct", init=problem.init(jax.random.key(0)))
    assert bool(found.result == hj.RESULTS.successful)
    assert abs(float(found.objective) / value - 1) < 1e-3


@pytest.mark.parametrize("inner", [Newton(), Riccati(curvature="ddp")], ids=["newton", "ddp"])
def test_an_augmented_lagrangian_agrees_with_direct(touching, inner):
    problem = touching.problem
    start = problem.init(jax.random.key(0))
    found = hj.solve(problem, AugmentedLagrangian(inner), init=start)
    assert bool(found.result == hj.RESULTS.successful)
    assert abs(float(found.objective - touching.objective)) < 1e-7
    height = found.trajectory.runs[0][..., 0]
    assert float(jnp.max(height)) - 1 / 9 < 1e-8
    away = found.path_multipliers["height"] - touching.path_multipliers["height"]
    assert float(jnp.max(jnp.abs(away))) < 1e-5
    again = hj.solve(problem, AugmentedLagrangian(inner, rho=20.0), init=start)
    assert again.stats["compile_seconds"] < 0.1  # other numbers, the same program
    assert abs(float(again.objective - touching.objective)) < 1e-7


def shared(path=(), depth=4):
    """x+ = x + theta / K, two samples that share theta; Phi = (x_K - 2)^2 / 2, cost sum theta^2 / 2K."""
    return hj.ControlProblem(
        [(lambda x, u: x + u / depth, jnp.zeros(1))] * depth,
        jnp.array([[0.0], [1.0]]),
        terminal=lambda x: 0.5 * (x[0] - 2.0) ** 2,
        running=hj.control.WeightCost(lambda u: 0.5 * u[0] ** 2 / depth),
        path=path,
    )


@pytest.mark.parametrize(
    "solver", ["direct", AugmentedLagrangian(Riccati())], ids=["direct", "riccati"]
)
def test_samples_that_share_weights(solver):
    bound = shared(StateBox(upper=1.6, name="lid"))
    start = bound.init(jax.random.key(0))
    found = hj.solve(bound, solver, init=start)
    assert abs(float(found.objective) - 0.71) < 1e-8
    assert float(jnp.max(jnp.abs(jnp.asarray(found.weights[0]) - 0.6))) < 1e-7
    want = np.zeros((2, 5, 1))
    want[1, 4] = 0.6  # at the second sample's final state alone
    assert np.max(np.abs(np.asarray(found.path_multipliers["lid"]) - want)) < 1e-6
    assert hj.verify(found).verdict == "exact"


def test_an_augmented_lagrangian_continues_with_its_multipliers():
    problem, method = shared(StateBox(upper=1.6, name="lid")), AugmentedLagrangian(Riccati())
    found = hj.solve(problem, method, init=problem.init(jax.random.key(0)))
    again = hj.solve(problem, method, init=found)
    assert bool(again.result == hj.RESULTS.successful)
    assert abs(float(again.objective) - 0.71) < 1e-8
    weights_alone = hj.solve(problem, method, init=found.weights)
    evaluations = [s.stats["num_evals"] for s in (again, weights_alone)]
    assert evaluations[0] < 0.5 * evaluations[1], evaluations
    other = shared(StateBox(upper=1.6, name="roof"))
    with pytest.raises(ValueError, match=r"solution of other constraints.*'roof'.*'lid'"):
        hj.solve(other, method, init=found)


def test_without_the_lid_the_optimum_is_lower():
    found = hj.solve(shared(), "direct", init=shared().init(jax.random.key(0)))
    assert abs(float(found.objective) - 0.6875) < 1e-9


def network(path, control_set=None):
    x = jax.random.normal(jax.random.key(1), (12, 2))
    y = jnp.sign(x[:, :1] * x[:, 1:])
    return hj.ControlProblem(
        [
            hj.networks.lift(2, 3),
            *[hj.networks.Residual(hj.networks.Dense(3, 3, jnp.tanh), 0.5)] * 3,
            hj.networks.readout(3, 1),
        ],
        x,
        y,
        terminal=hj.control.least_squares,
        running=hj.control.Ridge(1e-2),
        path=path,
        control_set=control_set,
    )


def test_every_hidden_state_in_a_ball():
    """The two answers are twins: Direct, begun at the other's answer, stays there."""
    problem = network(StateBall(1.5, last=4, name="ball"))
    solver = AugmentedLagrangian(Newton())
    found = hj.solve(problem, solver, key=jax.random.key(3))
    assert bool(found.result == hj.RESULTS.successful)
    nu = found.path_multipliers["ball"]
    assert int(jnp.sum(nu > 1e-6)) > 0
    sizes = jnp.concatenate([jnp.sum(run**2, -1) for run in found.trajectory.runs[1:]], axis=1)
    assert float(jnp.max(sizes)) - 1.5**2 < 1e-8
    twin = hj.solve(problem, hj.solvers.Direct(), init=found)
    assert abs(float(twin.objective - found.objective)) < 1e-7
    assert float(jnp.max(jnp.abs(twin.path_multipliers["ball"] - nu))) < 1e-5


def test_a_budget_of_weights():
    """minimise sum (theta_k - 1)^2 / 2 with sum theta_k^2 <= 1: theta = 1/2 of four, nu = 1/2."""
    problem = hj.ControlProblem(
        [(lambda x, u: x + u, jnp.zeros(1))] * 4,
        jnp.zeros((3, 1)),
        terminal=lambda x: 0.0 * x[0],
        running=hj.control.WeightCost(lambda u: 0.5 * (u[0] - 1.0) ** 2),
        path=Budget(1.0, name="energy"),
    )
    start = problem.init(jax.random.key(0))
    for solver in ("direct", AugmentedLagrangian(Newton())):
        found = hj.solve(problem, solver, init=start)
        assert float(jnp.max(jnp.abs(found.weights[0] - 0.5))) < 1e-7
        assert abs(float(found.path_multipliers["energy"]) - 0.5) < 1e-6
    with pytest.raises(ValueError, match="couples the weights of all stages"):
        hj.solve(problem, AugmentedLagrangian(Riccati()), init=start)


def around(side):
    """From (0, 0) to (1, 0) past a disc at (1/2, 0); the guess decides the side."""
    depth = 20
    problem = hj.ControlProblem(
        [(lambda x, u: x + u / depth, jnp.zeros(2))] * depth,
        jnp.zeros((1, 2)),
        terminal=lambda x: 0.0 * x[0],
        running=hj.control.WeightCost(lambda u: jnp.sum(u**2) / depth),
        terminal_constraint=TerminalConstraint(lambda x: x - jnp.array([1.0, 0.0])),
        path=PathConstraint(
            lambda x, r: r[2] ** 2 - jnp.sum((x - r[:2]) ** 2), on="states", name="disc"
        ),
        references=jnp.broadcast_to(jnp.array([0.5, 0.0, 0.2]), (1, depth + 1, 3)),
    )
    guess = Guess(None, lambda s: jnp.array([s, side * jnp.sin(jnp.pi * s)]))
    return hj.solve(problem, "direct", init=guess, key=jax.random.key(0))


def test_a_guess_of_states_decides_the_side_of_an_obstacle():
    over, under = around(0.5), around(-0.5)
    middle = [float(s.trajectory[10][0, 1]) for s in (over, under)]
    assert middle[0] > 0.1 > -0.1 > middle[1]
    assert abs(float(over.objective - under.objective)) < 1e-7
    assert bool(over.result == hj.RESULTS.successful)


def test_who_takes_a_constraint_along_depth():
    problem = held(4, below(0.3))
    start = problem.init(jax.random.key(0))
    for name in hj.solvers.NAMES:
        if hj.solvers.by_name(name).path:
            continue
        with pytest.raises(ValueError, match="direct, augmented-newton") as refused:
            hj.solve(problem, name, init=start)
        around = f"or hj.solvers.AugmentedLagrangian({name}) around it" in str(refused.value)
        assert around == hj.solvers.by_name(name).priced
    with pytest.raises(ValueError, match="no constraint; solve it by newton"):
        hj.solve(shared(), AugmentedLagrangian(Newton()), init=shared().init(jax.random.key(0)))
    with pytest.raises(ValueError, match="takes the constraints itself"):
        AugmentedLagrangian(hj.solvers.Direct())
    with pytest.raises(ValueError, match="must be Newton, Riccati"):
        AugmentedLagrangian(hj.solvers.Shooting())
    with pytest.raises(ValueError, match="cannot begin at states"):
        hj.solve(shared(), "newton", init=Guess(start, jnp.zeros((2, 5, 1))))
    with pytest.raises(ValueError, match="needs 5 entries along depth"):
        hj.solve(shared(), "direct", init=Guess(start, jnp.zeros((2, 4, 1))))


@pytest.mark.parametrize(
    "solver", ["direct", AugmentedLagrangian(Riccati())], ids=["direct", "riccati"]
)
def test_constraints_that_cannot_be_met_are_named(solver):
    never = shared(PathConstraint(lambda x: jnp.concatenate([x - 1.0, 2.0 - x]), name="both"))
    found = hj.solve(never, solver, init=never.init(jax.random.key(0)), max_steps=4000)
    assert not bool(found.result == hj.RESULTS.successful)
    assert found.stats["message"].count("'both' at depth") >= 3, found.stats["message"]


@pytest.mark.parametrize(("start", "end"), [(220.0, 219.0), (22.0, 21.9)])
def test_strength_does_not_grow_on_the_rounding_of_what_is_met(start, end):
    """States far from zero: the slope of rho c is c's rounding, which no update lowers. The strength went
    on growing to 1e32, and the multipliers with it."""
    h = 0.6
    A, B = jnp.array([[1.0, h], [0.0, 1.0]]), jnp.array([h * h / 2, h])
    problem = hj.ControlProblem(
        [(lambda x, u: A @ x + B * u[0], jnp.zeros(1))] * 15,
        jnp.array([[start, -1.0]]),
        terminal=lambda x: 0.0 * x[0],
        running=lambda x, u: 0.01 * h * u[0] ** 2 / 2,
        terminal_constraint=TerminalConstraint(lambda x: x - jnp.array([end, 0.0])),
    )
    found = hj.solve(problem, AugmentedLagrangian(Riccati()), key=jax.random.key(0))
    assert bool(found.result == hj.RESULTS.successful), found.stats
    assert found.stats["num_steps"] < 60
    twin = hj.solve(problem, "direct", key=jax.random.key(0))
    assert abs(float(found.objective - twin.objective)) < 1e-14
    away = found.terminal_multiplier - twin.terminal_multiplier
    assert float(jnp.max(jnp.abs(away))) < 1e-9

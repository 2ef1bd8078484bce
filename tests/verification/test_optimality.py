"""The certificate of optimality: each row against an independent witness, and a twin it must refute."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import lsq_linear

import hjcontrol as hj
from hjcontrol.control import Box, ControlProblem, Ridge, WeightCost, backpropagate, least_squares
from hjcontrol.networks import Dense, Flow, FreeStep, Residual, StepWeights, readout
from hjcontrol.verification.constancy import levels
from hjcontrol.verification.degree import degree
from hjcontrol.verification.exact_minimum import exact_gap
from hjcontrol.verification.free_steps import free_steps
from hjcontrol.verification.kkt import residuals

draw = np.random.default_rng(0)
X, Y = jnp.asarray(draw.normal(size=(6, 2))), jnp.asarray(draw.normal(size=(6, 2)))


@pytest.fixture(scope="module")
def solution():
    stages = [Residual(Dense(2, 2), 0.25)] * 4
    problem = ControlProblem(stages, X, Y, terminal=least_squares, running=Ridge(1e-2))
    return hj.solve(problem, hj.solvers.Newton(tol=1e-11), key=jax.random.key(0))


def test_a_minimum_meets_every_condition(solution):
    found = hj.verify(solution, optimality=True)
    table = found.optimality
    assert table.verdict == "strict minimum"
    assert table.violated == ()
    assert table["H constant to O(h)"].verdict == "yes"
    problem, h = solution.problem, 0.25
    slope = jax.grad(
        lambda s: eqx.tree_at(
            lambda p: p.chain.runs[0].stage.h, problem, jnp.full(4, s * h)
        ).objective(solution.weights)
    )(1.0)
    np.testing.assert_allclose(table["dJ/dT"].value, slope / (4 * h), rtol=1e-12)
    assert "Legendre-Clebsch" in str(found)


def _moved(solution):
    return eqx.tree_at(lambda s: s.weights[0].W, solution, replace_fn=lambda a: a.at[2].add(1e-3))


def _turned(solution):
    return eqx.tree_at(lambda s: s.costate.final, solution, replace_fn=jnp.negative)


def _scaled(solution):
    return eqx.tree_at(lambda s: s.costate.runs, solution, replace_fn=lambda r: (r[0] * 1.001,))


def _longer(solution):
    return eqx.tree_at(
        lambda s: s.problem.chain.runs[0].stage.h, solution, replace_fn=lambda h: h * 1.01
    )


@pytest.mark.parametrize(
    ("twin", "rows"),
    [
        (_moved, {"dynamics", "stationarity", "transversality", "claimed costates"}),
        (_turned, {"transversality", "claimed costates"}),
        (_scaled, {"claimed costates"}),
        (_longer, {"dynamics", "stationarity", "claimed costates"}),
    ],
)
def test_a_perturbed_twin_is_told_where(solution, twin, rows):
    table = hj.verify(twin(solution), optimality=True).optimality
    assert table.verdict == "not optimal"
    named = {c.name for c in table.violated}
    assert named <= rows
    assert named >= rows - {"transversality"}
    assert ("transversality" in named) == (twin is _turned)


@pytest.fixture(scope="module")
def bounded():
    """Ridge regression with bounded weights: solved by SciPy's active-set method, not by us."""
    A = np.concatenate([np.asarray(X), np.ones((6, 1))], axis=1)
    targets, rho, ends = np.asarray(Y[:, :1]), 0.1, (-0.15, 0.2)
    stacked = np.concatenate([A / np.sqrt(6), np.sqrt(rho) * np.eye(3)])
    b = np.concatenate([targets[:, 0] / np.sqrt(6), np.zeros(3)])
    answer = lsq_linear(stacked, b, bounds=ends, method="bvls", tol=1e-14)
    box = Box(jnp.asarray(ends[0]), jnp.asarray(ends[1]))
    problem = ControlProblem(
        [readout(2, 1)], X, Y[:, :1], terminal=least_squares, running=Ridge(rho), control_set=box
    )
    free = np.linalg.lstsq(stacked, b)[0]
    pack = lambda v: problem.chain.stack(
        [
            jax.tree.unflatten(
                jax.tree.structure(problem.init(jax.random.key(0))[0]),
                [jnp.asarray(v[:2])[None], jnp.asarray(v[2:])],
            )
        ]
    )
    hessian = A.T @ A / 6 + rho * np.eye(3)
    return problem, pack(answer.x), pack(np.clip(free, *ends)), answer.active_mask, hessian


def test_the_active_set_is_certified(bounded):
    problem, weights, clipped, active, hessian = bounded
    assert 0 < np.sum(active != 0) < 3
    table = hj.verify(problem, weights, optimality=True).optimality
    assert table.verdict == "strict minimum"
    assert table["complementarity"].value < 1e-12
    np.testing.assert_allclose(table.exact_gap, 0.0, atol=1e-12)
    np.testing.assert_allclose(table.legendre, 0.1, rtol=1e-12)
    face = hessian[np.ix_(active == 0, active == 0)]
    np.testing.assert_allclose(table.curvature[0], np.linalg.eigvalsh(face)[0], rtol=1e-9)
    twin = hj.verify(problem, clipped, optimality=True).optimality
    assert [c.name for c in twin.violated] == ["stationarity"]
    assert twin["H minimum, exact"].verdict == "no"


def test_claimed_multipliers_are_tested_as_they_are(bounded):
    problem, weights, *_ = bounded
    gradient = jax.grad(problem.objective)(weights)
    ask = lambda c: [float(jnp.max(r)) for r in residuals(problem, weights, gradient, c, 1e-6)]
    right = jax.tree.map(lambda g: jnp.where(jnp.abs(g) > 1e-6, -g, 0.0), gradient)
    assert max(ask(right)) < 1e-9
    stationarity, primal, dual, complementarity = ask(jax.tree.map(jnp.negative, right))
    assert primal == 0.0
    assert min(stationarity, dual, complementarity) > 1e-3
    inside = jax.tree.map(lambda g: jnp.where(jnp.abs(g) > 1e-6, -g, 0.1), gradient)
    assert ask(inside)[3] > 1e-3


def test_legendre_is_not_necessary_in_discrete_time():
    """J = (F - y)^2 / 2 + c theta, F = theta - theta^2/2: at 0, H'' = -p < 0 and J'' = 1 - p > 0."""
    problem = ControlProblem(
        [(lambda x, th: x + th - 0.5 * th**2, jnp.zeros(1))],
        jnp.zeros((1, 1)),
        jnp.full((1, 1), -0.5),
        terminal=least_squares,
        running=WeightCost(lambda th: -0.5 * jnp.sum(th)),
    )
    table = hj.verify(problem, problem.init(jax.random.key(0)), optimality=True).optimality
    np.testing.assert_allclose(table.legendre, -0.5, rtol=1e-12)
    assert table["Legendre-Clebsch"].verdict == "no"
    np.testing.assert_allclose(table.curvature[0], 0.5, rtol=1e-12)
    assert table.verdict == "strict minimum"
    assert np.isinf(table.exact_gap[0])  # H is unbounded below, and J is not


@pytest.mark.parametrize(
    ("f", "expected"),
    [
        (lambda a: jnp.sum(X @ a[0] + a[1][0]), 1),
        (lambda a: jnp.sum((X @ a[0]) * a[1][0]) / 3 + jnp.sum(a[0] ** 2), 2),
        (lambda a: jax.lax.scan(lambda c, x: (c + x @ a[0], None), 0.0, X)[0], 1),
        (lambda a: jax.lax.scan(lambda c, x: (c * a[1][0], None), 1.0, X)[0], np.inf),
        (lambda a: jnp.sum(jnp.tanh(a[0])), np.inf),
        (lambda a: jnp.sum(jnp.where(a[0] > 0, a[0], 0.0)), np.inf),
        (lambda a: jnp.exp(2.0), 0),
    ],
)
def test_degrees_are_read_off_the_program(f, expected):
    assert degree(f, (jnp.ones(2), jnp.ones(2))) == expected


def test_the_exact_minimum_is_the_brute_force_one():
    box = Box(jnp.asarray(-1.0), jnp.asarray(0.5))
    problem = ControlProblem([readout(2, 1)], X, terminal=jnp.sum, control_set=box)
    q, g = jnp.asarray([2.0, -1.0, 0.0]), jnp.asarray([0.3, 0.1, -0.2])
    value = lambda c: g @ c + 0.5 * jnp.sum(q * c * c)
    theta = jnp.asarray([0.2, 0.1, -0.4])
    side = np.linspace(-1.0, 0.5, 301)
    least = sum(np.min(g[j] * side + 0.5 * q[j] * side**2) for j in range(3))
    found = exact_gap(problem, value, theta, 1e-9)
    np.testing.assert_allclose(found, value(theta) - least, atol=2e-5)
    free = eqx.tree_at(lambda p: p.control_set, problem, hj.control.Free())
    M = jnp.asarray([[2.0, 0.5, 0.0], [0.5, 1.0, 0.0], [0.0, 0.0, 3.0]])
    bowl = lambda c: g @ c + 0.5 * c @ M @ c
    deep = bowl(-jnp.linalg.solve(M, g))
    np.testing.assert_allclose(exact_gap(free, bowl, theta, 1e-9), bowl(theta) - deep, rtol=1e-12)
    assert np.isinf(exact_gap(free, value, theta, 1e-9))
    assert np.isnan(exact_gap(free, lambda c: jnp.sum(jnp.cos(c)), theta, 1e-9))


def test_the_hamiltonian_of_an_optimum_is_constant_to_the_order_of_the_step():
    """Linear dynamics and a quartic cost, solved by plain Newton steps, at three depths."""
    drifts = {"optimal": [], "moved": []}
    for count in (16, 32, 64):
        h = 1.0 / count
        paid = lambda x, th, h=h: 0.5 * h * (jnp.sum(x**2 + x**4) + jnp.sum(th**2))
        drift = hj.networks.as_stage((lambda x, th: 0.5 * x[::-1] + th, jnp.zeros(2)))
        problem = ControlProblem(
            [Residual(drift, h)] * count, X[:1], terminal=lambda x: jnp.sum(x), running=paid
        )

        shape = (count, 2)
        value = lambda v, problem=problem, shape=shape: problem.objective((v.reshape(shape),))
        newton = jax.jit(lambda v, f=value: v - jnp.linalg.solve(jax.hessian(f)(v), jax.grad(f)(v)))

        @jax.jit
        def spread(v):
            weights = (v.reshape(shape),)
            _, states, costates, _ = backpropagate(problem, weights)
            (found,) = levels(problem, weights, states, costates)
            assert found is not None
            return jnp.ptp(found.first), jnp.ptp(found.second)

        best = jnp.zeros(2 * count)
        for _ in range(12):
            best = newton(best)
        for name, moved in (("optimal", 0.0), ("moved", jnp.linspace(0.0, 1.0, 2 * count))):
            drifts[name].append([float(a) for a in spread(best + moved)])
    slopes = -np.diff(np.log2(np.asarray(drifts["optimal"])), axis=0)[-1]
    np.testing.assert_allclose(slopes, [1.0, 2.0], atol=0.15)
    assert min(drifts["moved"][-1]) > 0.3  # not optimal: no refinement makes it constant


def test_a_flow_keeps_its_hamiltonian_and_its_end_is_the_slope_in_the_horizon():
    """Whatever the weights: theta is constant on the piece. dJ/dT = H(T) = p(T) . f(x(T))."""
    import diffrax

    flow = Flow(Dense(2, 2), 1.0, solver=diffrax.Heun(), dt0=0.05)
    problem = ControlProblem([flow], X, Y, terminal=least_squares)
    weights = jax.tree.map(lambda a: a + 0.3, problem.init(jax.random.key(3)))

    @eqx.filter_jit
    def ask(problem, weights):
        _, states, costates, _ = backpropagate(problem, weights)
        value = lambda t: eqx.tree_at(
            lambda p: p.chain.runs[0].stage.t1, problem, t[None]
        ).objective(weights)
        slope = jax.grad(value)(jnp.asarray(1.0))
        wrong = eqx.tree_at(lambda p: p.final, costates, replace_fn=lambda a: 1.1 * a)
        return (
            levels(problem, weights, states, costates),
            levels(problem, weights, states, wrong),
            slope,
        )

    (right,), (wrong,), slope = ask(problem, weights)
    assert right is not None
    assert wrong is not None
    np.testing.assert_allclose(right.first, right.second, rtol=2e-3)
    np.testing.assert_allclose(right.slope, slope[None], rtol=2e-3)
    assert abs(wrong.first[0] / wrong.second[0] - 1) > 0.05


def test_a_tolerance_that_is_none(solution):
    with pytest.raises(ValueError, match="positive tolerance; found -1"):
        hj.verify(solution, optimality=-1.0)


def test_free_steps_are_where_their_hamiltonian_vanishes_or_idle():
    """x_K = x + sum h_k theta_k, J = |x_K - y|^2 / 2 + sum_k (h_k / 2 + theta_k^2 / 2). By hand: p = 1,
    theta = -h p and dJ/dh = p theta + 1/2 = 0 at h = 1/2; a third stage idles, dJ/dh = 1/2 there."""
    problem = ControlProblem(
        [FreeStep(hj.networks.as_stage((lambda x, th: th, jnp.zeros(1))))] * 3,
        jnp.full((1, 1), 1.5),
        jnp.zeros((1, 1)),
        terminal=least_squares,
        running=WeightCost(lambda th: 0.5 * th.h + 0.5 * jnp.sum(th.theta**2)),
        control_set=hj.control.ByLeaf(h=hj.control.Nonnegative()),
    )
    at = lambda h, theta: (StepWeights(jnp.asarray(h), jnp.asarray(theta)[:, None]),)
    optimal = at([0.5, 0.5, 0.0], [-0.5, -0.5, 0.0])
    row = lambda w: hj.verify(problem, w, optimality=True).optimality["free steps"]
    found = row(optimal)
    assert found.verdict == "holds"
    assert found.value < 1e-15
    assert "1 of 3 idle" in found.remark
    longer = row(at([0.51, 0.5, 0.0], [-0.5, -0.5, 0.0]))
    assert longer.verdict == "violated"
    np.testing.assert_allclose(longer.value, 0.0025, rtol=1e-12)  # p has fallen to 0.995
    woken = row(at([0.5, 0.5, 0.0], [-0.5, -0.5, -0.6]))
    assert (woken.verdict, woken.where[0]) == ("violated", "2")
    assert "dJ/dh = -1.0e-01" in woken.remark

    @jax.jit
    def claimed(scale):
        _, states, costates, gradient = backpropagate(problem, optimal)
        turned = jax.tree.map(lambda p: scale * p, costates)
        return free_steps(problem, optimal, states, turned), gradient[0].h

    steps, gradient = claimed(1.0)
    np.testing.assert_allclose(steps.slope, gradient, atol=1e-15)
    np.testing.assert_allclose(claimed(1.1)[0].violation, [0.05, 0.05, 0.0], atol=1e-15)

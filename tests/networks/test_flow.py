"""Laws of continuous depth: the solver's order, what is conserved, what is refused, what failure says."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.linalg import expm

import hjcontrol as hj
from hjcontrol.control import backpropagate
from hjcontrol.control.capability import complaint, require
from hjcontrol.networks import Chain, Dense, Flow, FunctionStage, Residual
from hjcontrol.networks.flow_numerics import CAPABILITIES, DERIVATIVES, Numerics, capable, probe
from tests.agreement import assert_agree

A = jnp.asarray(np.random.default_rng(0).normal(size=(3, 3)))
X = jnp.asarray(np.random.default_rng(1).normal(size=(4, 3)))


def linear(x, theta):
    return theta @ x


def half_square(x):
    return jnp.sum(x**2) / 2


def test_one_euler_step_a_piece_is_the_residual_chain():
    drift = Dense(3, 3)
    flow = Chain(Flow.pieces(drift, 1.0, 4, solver=diffrax.Euler()), X[0])
    residual = Chain([Residual(drift, 0.25)] * 4, X[0])
    assert [run.length for run in flow.runs] == [4]  # equal stages, scanned
    theta = residual.init(jax.random.key(0))
    both = jax.jit(lambda th: [jax.vmap(c, in_axes=(None, 0))(th, X) for c in (flow, residual)])
    ours, theirs = both(theta)
    assert np.array_equal(ours, theirs)


@pytest.mark.parametrize(("solver", "order"), [(diffrax.Heun(), 2), (diffrax.Tsit5(), 5)])
def test_the_error_falls_at_the_solvers_order(solver, order):
    flow = Flow((linear, A), 1.0, solver=solver, dt0=0.1)
    steps = jnp.asarray([0.05, 0.025])
    at = lambda h: flow.using(flow.numerics.at(h)).step(X[0], A)
    ends = np.asarray(jax.jit(jax.vmap(at))(steps))
    errors = np.linalg.norm(ends - expm(np.asarray(A)) @ np.asarray(X[0]), axis=1)
    slope = np.log2(errors[0] / errors[1])
    assert abs(slope - order) < 0.35
    assert abs(slope - (order + 1)) > 0.5


def test_the_hamiltonian_of_an_autonomous_flow_drifts_at_the_solvers_order():
    drift = Dense(3, 3)
    theta = drift.init(jax.random.key(3))

    @jax.jit
    def spread(h):
        pieces = Flow.pieces(drift, 1.0, 4, solver=diffrax.Heun(), dt0=0.25)
        chain = Chain(pieces, X[0])
        run = eqx.tree_at(lambda r: r.stage.numerics.dt0, chain.runs[0], jnp.full(4, h))
        problem = hj.ControlProblem(
            eqx.tree_at(lambda c: c.runs, chain, (run,)), X, terminal=half_square
        )
        same = (jax.tree.map(lambda a: jnp.broadcast_to(a, (4, *a.shape)), theta),)
        _, states, costates, _ = backpropagate(problem, same)
        f = jax.vmap(lambda x: drift.step(x, theta))
        H = jnp.stack([jnp.sum(p * f(x)) for x, p in zip(states, costates, strict=True)])
        broken = jnp.stack([jnp.sum(p * x) for x, p in zip(states, costates, strict=True)])
        return jnp.ptp(H) / jnp.abs(H[0]), jnp.ptp(broken) / jnp.abs(broken[0])

    (coarse, other), (fine, still) = spread(0.125), spread(0.0625)
    assert fine < 1e-3
    assert 3 < coarse / fine < 5.5  # h^2
    assert other / still < 1.5  # the twin: p.x is not conserved


def test_interpolated_controls():
    times = lambda x, theta: theta  # x' = theta(t): the integral of the control
    knots = jnp.asarray([[0.0], [1.0], [0.5]])
    flow = Flow(
        (times, jnp.ones(1)), 2.0, control="linear", knots=3, solver=diffrax.Heun(), dt0=1.0
    )
    cubic = Flow(
        (times, jnp.ones(1)), 2.0, control="cubic", knots=3, solver=diffrax.Heun(), dt0=1.0
    )
    start = jnp.zeros(1)
    ours, smooth = jax.jit(lambda k: (flow.step(start, k), cubic.step(start, jnp.ones((3, 1)))))(
        knots
    )
    assert_agree(ours, jnp.asarray([1.25]))
    assert_agree(smooth, jnp.asarray([2.0]))
    assert flow.init(jax.random.key(0)).shape == (3, 1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"t1": 0.0}, "t0 < t1"),
        ({"t1": 1.0, "t0": 2.0}, "t0 = 2.0"),
        ({"t1": float("nan")}, "finite"),
        ({"control": "quartic"}, "linear"),
        ({"knots": 1}, ">= 2"),
        ({"solver": "tsit5"}, "diffrax solver"),
        ({"solver": diffrax.SemiImplicitEuler()}, "terms"),
        ({"solver": diffrax.ItoMilstein()}, "terms"),
        ({"stepsize_controller": 1e-3}, "step size controller"),
        (
            {
                "solver": diffrax.Euler(),
                "stepsize_controller": diffrax.PIDController(rtol=1e-3, atol=1e-3),
            },
            "error estimate",
        ),
        ({"stepsize_controller": diffrax.PIDController(rtol=-1e-3, atol=1e-3)}, "rtol"),
        ({"adjoint": "bakcsolve"}, "checkpoint, twice, direct, backsolve"),
        ({"adjoint": diffrax.Tsit5()}, "adjoint"),
        ({"dt0": -0.1}, "positive"),
        ({"max_steps": 0}, "max_steps"),
    ],
    ids=str,
)
def test_bad_input_is_refused_at_once(options, words):
    with pytest.raises(ValueError, match=words):
        Flow(Dense(3, 3), **options)


def test_controls_of_the_wrong_length_are_refused():
    flow = Flow((linear, A), control="linear", knots=3)
    with pytest.raises(ValueError, match="3 knots"):
        flow.step(X[0], jnp.zeros((2, 3, 3)))
    with pytest.raises(ValueError, match="count"):
        Flow.pieces(linear, 1.0, 0)


@pytest.mark.parametrize("adjoint", sorted(set(CAPABILITIES) - {"ImplicitAdjoint"}))
def test_the_table_of_derivatives_tells_the_truth(adjoint):
    numerics = Numerics(diffrax.Heun(), adjoint=getattr(diffrax, adjoint)(), max_steps=4)
    assert {d for d in DERIVATIVES if probe(numerics, d)} == set(CAPABILITIES[adjoint])


def test_one_stage_a_step_has_second_derivatives_through_the_default_adjoint():
    numerics = Numerics(diffrax.Euler(), max_steps=4)
    assert capable(numerics, "forward-over-reverse")
    assert not capable(Numerics(diffrax.Heun(), max_steps=4), "forward-over-reverse")


def test_a_derivative_that_does_not_exist_is_refused_before_anything_is_solved():
    stages = lambda adjoint: Flow.pieces(
        (linear, A), 1.0, 2, solver=diffrax.Heun(), adjoint=adjoint
    )
    problem = lambda adjoint: hj.ControlProblem(stages(adjoint), X, terminal=half_square)
    with pytest.raises(ValueError, match=r"stage 0 \(Flow\).*adjoint='twice'.*'direct'"):
        hj.solve(problem("checkpoint"), hj.solvers.Newton(), key=jax.random.key(0))
    with pytest.raises(ValueError, match="adjoint='checkpoint'"):
        hj.solve(problem("forward"), hj.solvers.Gradient(optax.sgd(0.1)), key=jax.random.key(0))
    require(problem("direct"), "forward-over-reverse", "newton")


def test_a_solve_that_fails_says_where_and_why():
    blow_up = FunctionStage(lambda x, w: w * x**3, jnp.ones(3))
    how = {"solver": diffrax.Heun(), "max_steps": 32}
    tol = diffrax.PIDController(rtol=1e-3, atol=1e-3)
    pieces = Flow.pieces(blow_up, 1.0, 2, stepsize_controller=tol, **how)
    problem = hj.ControlProblem(pieces, X, terminal=half_square)
    weights = problem.init(jax.random.key(0))
    words = complaint(problem, weights)
    assert words.startswith("stage 0 (Flow): the flow over t = 0 .. 0.5 failed for")
    assert "32 of `max_steps=32`" in words
    assert "stiff" in words
    assert complaint(problem, jax.tree.map(lambda a: -a, weights)) is None
    with pytest.raises(RuntimeError, match=r"verify: stage 0 .*Usual causes"):
        hj.verify(problem, weights)
    solution = hj.solve(problem, hj.solvers.Gradient(optax.sgd(0.1)), init=weights)
    assert solution.result == hj.RESULTS.nonfinite
    assert "stage 0 (Flow)" in solution.stats["message"]


def test_newton_on_a_flow():
    problem = hj.ControlProblem(
        Flow.pieces(Dense(3, 3), 1.0, 2, solver=diffrax.Euler(), adjoint="direct"),
        X,
        terminal=half_square,
        running=hj.control.Ridge(1e-1),
    )
    solution = hj.solve(problem, hj.solvers.Newton(), key=jax.random.key(0))
    assert solution.result == hj.RESULTS.successful
    assert solution.stats["stationarity"] < 1e-8


@pytest.mark.any_precision
def test_a_flow_runs_in_the_callers_precision():
    flow = Flow(Dense(3, 3), 1.0, solver=diffrax.Heun(), dt0=1.0 / 64)
    theta = jax.tree.map(lambda a: a.astype(jnp.float32), flow.init(jax.random.key(0)))
    at = lambda h: flow.using(flow.numerics.at(h)).step(X[0].astype(jnp.float32), theta)
    coarse, fine = jax.jit(jax.vmap(at))(jnp.asarray([1.0 / 64, 1.0 / 128]))
    assert fine.dtype == jnp.float32
    assert_agree(coarse, fine, 1e-4)  # h^2

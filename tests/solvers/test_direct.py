"""The direct method: its program is the problem, its multipliers are costates."""

import os
import signal
import subprocess
import sys
import threading

import casadi as ca
import equinox as eqx
import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest

from hjcontrol._ground.results import RESULTS
from hjcontrol.control import (
    Box,
    ControlProblem,
    Ridge,
    StateCost,
    least_squares,
    softmax_cross_entropy,
)
from hjcontrol.networks import Dense, Residual, lift, readout
from hjcontrol.solvers.direct import Direct, as_nlp, loadable_backends
from hjcontrol.solvers.driver import solve
from hjcontrol.solvers.lagrangian import derivatives
from tests.agreement import assert_agree, disagreement

RNG = np.random.default_rng(3)
X, LABELS = jnp.asarray(RNG.normal(size=(6, 3))), jnp.asarray([0, 1, 2, 1, 0, 2])


class Gate(eqx.Module):
    """A user's own module."""

    A: jax.Array

    def __call__(self, x):
        return x * jax.nn.sigmoid(self.A @ x)


def twist(x, theta):
    return x + theta["gain"] * jnp.sin(x)


def classify(depth=2, control_set=None, **options):
    stages = [lift(3, 2), *[Residual(Dense(2, 2), 0.25)] * depth, readout(2, 3)]
    running = [Ridge(1e-2), StateCost(lambda x, theta: 0.01 * jnp.sum(x**2))]
    return ControlProblem(
        stages,
        X,
        LABELS,
        terminal=softmax_cross_entropy,
        running=running,
        control_set=control_set,
        **options,
    )


def regress():
    """Linear least squares with ridge: one minimiser."""
    return ControlProblem(
        [readout(3, 2)], X, X[:, :2] ** 2, terminal=least_squares, running=Ridge(0.1)
    )


def own_pieces():
    gate = Gate(jnp.asarray(RNG.normal(size=(3, 3))))
    pieces = [gate, lambda x: 0.5 * x, (twist, {"gain": jnp.full(3, 0.3)}), readout(3, 3)]
    return ControlProblem(pieces, X, LABELS, terminal=softmax_cross_entropy, running=Ridge(1e-2))


PROBLEMS = {"classify": classify, "regress": regress, "own pieces": own_pieces}


@pytest.fixture(scope="module")
def solved():
    """Multiple shooting on each problem."""
    key = jax.random.key(5)
    return {name: solve(make(), Direct(), key=key) for name, make in PROBLEMS.items()}


@pytest.mark.parametrize("transcription", ["multiple", "single"])
@pytest.mark.parametrize("name", PROBLEMS)
def test_program_at_the_start(name, transcription, key):
    problem = PROBLEMS[name]()
    weights = problem.init(key)
    t = as_nlp(problem, init=weights, transcription=transcription)
    f, g = ca.Function("at", [t.nlp["x"]], [t.nlp["f"], t.nlp["g"]])(t.x0)
    assert_agree(float(f), problem.objective(weights), 1e-13)
    assert np.abs(np.array(g)).max(initial=0.0) <= 1e-15
    assert disagreement(t.weights(t.x0), weights) == 0.0
    if transcription == "multiple":
        assert_agree(t.states(t.x0), problem.rollout(weights), 1e-14)


def test_constraints_are_named():
    t = as_nlp(classify(1), init=classify(1).init(jax.random.key(0)))
    assert list(t.constraints) == ["F[0] - x[1]", "F[1] - x[2]", "F[2] - x[3]"]
    assert t.constraints["F[2] - x[3]"] == slice(24, 42)
    assert list(t.variables)[:3] == ["theta[0]", "theta[1]", "theta[2]"]


def test_a_narrow_last_stage_stands_in_the_terminal_cost():
    """`own_pieces` ends with as many outputs as inputs; `classify` widens from two to three."""
    problem = own_pieces()
    t = as_nlp(problem, init=problem.init(jax.random.key(0)))
    assert "x[4]" not in t.variables
    assert list(t.constraints)[-1] == "F[2] - x[3]"


def test_violations_are_sorted_and_placed():
    """State 2 of sample 4, coordinate 1, moved by 0.5: it misses its own step, and spoils the next."""
    t = as_nlp(classify(1), init=classify(1).init(jax.random.key(0)))
    x = t.x0.copy()
    x[t.variables["x[2]"].start + 4 * 2 + 1] += 0.5
    found = t.violations(x)
    assert all("sample 4" in line for line in found[:2])
    sizes = [float(line.rsplit(" ", 1)[1]) for line in found]
    assert sizes == sorted(sizes, reverse=True)
    assert "F[1] - x[2], sample 4, coordinate 1: 0.5" in found
    assert all(float(v.rsplit(" ", 1)[1]) < 1e-14 for v in t.violations(t.x0))


@pytest.mark.parametrize("make", [classify, own_pieces])
def test_block_derivatives_are_casadis_own(make):
    problem = make()
    t = as_nlp(problem, init=problem.init(jax.random.key(0)))
    x, lam, s = t.nlp["x"], ca.MX.sym("lam", t.nlp["g"].numel()), ca.MX.sym("s")
    lagrangian = s * t.nlp["f"] + ca.dot(lam, t.nlp["g"])
    own = ca.Function(
        "own",
        [x, s, lam],
        [ca.jacobian(t.nlp["g"], x), ca.triu(ca.hessian(lagrangian, x)[0])],
    )
    at, multipliers = RNG.normal(size=x.numel()), RNG.normal(size=lam.numel())
    jacobian, hessian = own(at, 0.7, multipliers)
    blocks = derivatives(t)
    assert_agree(np.array(blocks["jac_g"](at, [])[1]), np.array(jacobian), 1e-14)
    assert_agree(np.array(blocks["hess_lag"](at, [], 0.7, multipliers)), np.array(hessian), 1e-14)


def relative(multipliers, costates, sign=1.0):
    worst = 0.0
    for a, b in zip(multipliers, costates, strict=True):
        worst = max(worst, float(jnp.max(jnp.abs(sign * a - b)) / jnp.max(jnp.abs(b))))
    return worst


@pytest.mark.parametrize("name", PROBLEMS)
def test_multipliers_are_costates(name, solved):
    """Against backprop at the same weights; with the sign flipped the law fails."""
    solution = solved[name]
    assert bool(solution.result == RESULTS.successful)
    assert solution.stats["stationarity"] <= 1e-10
    assert relative(solution.multipliers, solution.costate) <= 1e-9
    assert relative(solution.multipliers, solution.costate, sign=-1.0) > 1.0


def test_the_same_minimum_by_single_shooting(solved):
    single = solve(regress(), Direct(transcription="single"), key=jax.random.key(5))
    assert single.multipliers is None
    assert_agree(single.weights, solved["regress"].weights, 1e-9)
    assert_agree(single.objective, solved["regress"].objective, 1e-12)


def test_box(solved):
    free = jnp.max(jnp.abs(jax.flatten_util.ravel_pytree(solved["classify"].weights)[0]))
    bound = 0.5 * float(free)
    solution = solve(classify(control_set=Box(-bound, bound)), Direct(), key=jax.random.key(5))
    weights = jax.flatten_util.ravel_pytree(solution.weights)[0]
    assert bool(solution.result == RESULTS.successful)
    assert float(jnp.max(jnp.abs(weights))) <= bound
    assert int(jnp.sum(jnp.abs(weights) >= bound - 1e-8)) > 0
    assert solution.stats["stationarity"] <= 1e-9
    assert relative(solution.multipliers, solution.costate) <= 1e-9


def test_steps_are_reported_and_limited(key):
    seen = []
    solution = solve(
        classify(), Direct(), key=key, max_steps=2, progress=lambda *row: seen.append(row)
    )
    assert [row[0] for row in seen] == [1, 2]
    assert all(np.isfinite(row).all() for row in seen)
    assert bool(solution.result == RESULTS.max_steps_reached)
    assert solution.stats["message"].startswith("Maximum_Iterations_Exceeded; F[")


@pytest.mark.parametrize("backend", ["sqpmethod", "qrsqp", "fatrop"])
def test_other_plugins(backend, solved):
    solution = solve(regress(), Direct(backend=backend, tol=1e-9), key=jax.random.key(5))
    assert bool(solution.result == RESULTS.successful), solution.stats
    assert_agree(solution.weights, solved["regress"].weights, 1e-7)
    assert relative(solution.multipliers, solution.costate) <= 1e-6


def test_user_options_are_merged(key):
    options = {"ipopt": {"max_iter": 1}}
    solution = solve(classify(), Direct(options=options), key=key)
    assert solution.stats["num_steps"] == 1
    assert bool(solution.result == RESULTS.max_steps_reached)


def test_interrupt_is_an_interrupt(key):
    """A signal in the middle of IPOPT ends as KeyboardInterrupt."""

    def press(*row):
        if row[0] == 2:
            threading.Thread(target=os.kill, args=(os.getpid(), signal.SIGINT)).start()

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        solve(classify(), Direct(tol=1e-14), key=key, progress=press)
    assert signal.getsignal(signal.SIGINT) is before


def test_an_error_in_progress_is_raised(key):
    def fail(*row):
        raise OSError("the terminal is gone")

    with pytest.raises(OSError, match="terminal is gone"):
        solve(classify(), Direct(), key=key, progress=fail)


def test_errors(key, unchecked):
    problem = classify()
    with pytest.raises(ValueError, match="'knitro' does not load here; these do: ipopt"):
        solve(problem, Direct(backend="knitro"), key=key)
    with pytest.raises(
        ValueError,
        match=r"'bonmin' is not offered: .* multipliers that are NaN",
    ):
        solve(problem, Direct(backend="bonmin"), key=key)
    with pytest.raises(
        ValueError, match="'superscs' is not offered: it is known to report success at a wrong"
    ):
        solve(problem, Direct(backend="sqpmethod", options={"qpsol": "superscs"}), key=key)
    with pytest.raises(ValueError, match="one of 'multiple', 'single'"):
        Direct(transcription="triple")
    with pytest.raises(ValueError, match="positive"):
        Direct(tol=0.0)
    spectrum = lambda x: jnp.abs(jnp.fft.fft(x))
    sounding = ControlProblem(
        [lift(3, 2), spectrum], X, X[:, :2], terminal=least_squares, running=Ridge(1e-2)
    )
    words = r"stage 1 \(FunctionStage\).*`fft`.*CasADi has no complex numbers"
    with pytest.raises(ValueError, match=words):
        solve(sounding, Direct(), key=key)


def test_states_in_a_dict_are_those_in_an_array(key):
    """Joined into one array by hand: the same minimum, states and multipliers."""

    def pair(s, u):
        return {"q": s["q"] + 0.1 * s["v"], "v": s["v"] + 0.1 * (u - jnp.sin(s["q"]))}

    def joined(s, u):
        return s + 0.1 * jnp.concatenate([s[2:], u - jnp.sin(s[:2])])

    q, v = X[:3, :2], X[:3, 1:]
    stated = lambda f, x, terminal: ControlProblem(
        [(f, jnp.zeros(2))] * 4, x, terminal=terminal, running=Ridge(0.1)
    )
    both = lambda s: jnp.sum(s["q"] ** 2) + jnp.sum(s["v"] ** 2)
    a = solve(stated(pair, {"q": q, "v": v}, both), Direct(), key=key)
    ends = lambda s: jnp.sum(s**2)
    b = solve(stated(joined, jnp.concatenate([q, v], 1), ends), Direct(), key=key)
    np.testing.assert_allclose(a.objective, b.objective, atol=1e-12)
    for kind in ("multipliers", "trajectory"):
        one, other = getattr(a, kind), getattr(b, kind)
        for k in range(len(other)):
            together = jnp.concatenate([one[k]["q"], one[k]["v"]], 1)
            np.testing.assert_allclose(together, other[k], atol=1e-9)


def test_plugins_are_listed():
    found = loadable_backends()
    assert found["ipopt"] is True
    assert isinstance(found["knitro"], str)


def test_casadi_is_imported_lazily():
    program = (
        "import sys, hjcontrol.solvers, hjcontrol.solvers.direct; sys.exit('casadi' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0

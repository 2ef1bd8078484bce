"""Riccati sweeps on ensembles: Gauss-Newton and Newton in another order, and the methods made of them."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import hjcontrol as hj
from hjcontrol.control import backpropagate, costate, curvature, gauss_newton_curvature
from hjcontrol.networks import Tied
from hjcontrol.solvers import Riccati
from hjcontrol.solvers.riccati import ensemble, lqr
from hjcontrol.solvers.riccati.factored import Sweep, closed_loop, matrix, steps_along
from hjcontrol.solvers.riccati.stages import flat_weights, linearise
from tests.control.problems import regression
from tests.solvers.problems import rings

EXACT = {False: jnp.asarray(False), True: jnp.asarray(True)}  # traced: one program for both


@eqx.filter_jit
def in_weight_space(problem, weights, exact):
    """The step -H^{-1} g by Hessian-vector products alone, packed in order of depth, and H."""
    flat, unravel = ravel_pytree(weights)
    newton, gauss = curvature(problem, weights), gauss_newton_curvature(problem, weights)
    product = lambda v: jax.tree.map(lambda a, b: jnp.where(exact, a, b), newton(v), gauss(v))
    pack = lambda w: flat_weights(problem, w)
    basis = jax.vmap(unravel)(jnp.eye(flat.size))
    H = jax.vmap(lambda v: pack(product(v)))(basis)
    H = jax.vmap(pack)(basis).T @ H
    return -jnp.linalg.solve(H, pack(jax.grad(problem.objective)(weights))), H


@eqx.filter_jit
def factored_sweep(problem, weights, exact):
    _, states, costates, gradient = backpropagate(problem, weights)
    runs = linearise(problem, weights, states, costates, exact)
    lower = jnp.tril(matrix(runs))
    M = lower + jnp.tril(lower, -1).T
    size = jnp.mean(jnp.abs(jnp.diag(M)))
    sweep = Sweep(runs, jnp.linalg.cholesky(M), flat_weights(problem, gradient), size)
    rolled = closed_loop(problem, weights, states.runs, sweep, jnp.ones(()))
    return sweep, M[::-1, ::-1], sweep.open_loop(), flat_weights(problem, rolled)


dense_sweep = eqx.filter_jit(ensemble.step)


@pytest.fixture(scope="module", params=["affine stages", "general stages"])
def case(request):
    """A problem whose exact curvature is positive, at weights where nothing vanishes."""
    if request.param == "affine stages":
        problem = rings(samples=6, ridge=1.5)
    else:  # a running cost reads the weights: they enter not only by `W x + b`
        problem = regression()
        costs = [hj.control.Ridge(2.0), *problem.running[1:]]
        problem = eqx.tree_at(lambda p: p.running, problem, tuple(costs))
    draw = lambda a: a + 0.1 * jax.random.normal(jax.random.key(5), a.shape)
    return problem, jax.tree.map(draw, problem.init(jax.random.key(3)))


def test_one_open_loop_sweep_is_one_step_in_weight_space(case):
    """Gauss-Newton by Riccati, dense and factored, and Newton by stagewise DDP: 1e-9 and better."""
    (problem, weights), steps = case, {}
    for exact in (False, True):
        step, H = in_weight_space(problem, weights, EXACT[exact])
        assert np.linalg.eigvalsh(H)[0] > 0
        by_riccati, _ = dense_sweep(problem, weights, EXACT[exact])
        _, M, by_factors, _ = factored_sweep(problem, weights, EXACT[exact])
        np.testing.assert_allclose(M, H, atol=1e-12)
        np.testing.assert_allclose(by_riccati, step, atol=1e-11)
        np.testing.assert_allclose(by_factors, step, atol=1e-11)
        steps[exact] = step
    # The twin: without the dynamics' second derivatives DDP's step is not Newton's.
    assert np.abs(steps[True] - steps[False]).max() > 1e-4


@pytest.mark.parametrize("case", ["affine stages"], indirect=True)
def test_the_factored_value_function_is_the_dense_one(case):
    """P_k = blockdiag(D_k) - U_k M_{>=k}^{-1} U_k', every depth's first stage of a run."""
    problem, weights = case
    for exact in (False, True):
        _, P = dense_sweep(problem, weights, EXACT[exact])
        sweep, M, _, _ = factored_sweep(problem, weights, EXACT[exact])
        depth = below = 0
        for r, run in enumerate(sweep.runs):
            length, n, _, d = run.A.shape
            if r > 0:
                basis = jnp.eye(n * d).reshape(n * d, n, d)
                U = jax.vmap(lambda dx, r=r: sweep.bent(r, jnp.asarray(0), dx))(basis)[:, below:]
                D = jax.scipy.linalg.block_diag(*run.D[0])
                low_rank = U @ jnp.linalg.solve(M[below:, below:], U.T)
                np.testing.assert_allclose(D - low_rank, P[depth], atol=1e-12)
                assert np.abs(low_rank).max() > 1e-6  # the twin: the coupling is not nothing
            depth, below = depth + length, below + length * run.curvature.shape[-1]


@pytest.mark.parametrize("case", ["affine stages"], indirect=True)
def test_textbook_ddp_is_not_newton(case):
    """With the slope of the new value function in place of the costate, the open loop is not Newton's."""
    problem, weights = case

    @eqx.filter_jit
    def textbook(problem, weights):
        states, exact = problem.rollout(weights), EXACT[True]
        costates, _ = costate(problem, weights, states)
        about = ensemble.Stacked(problem, weights, states, costates, exact)
        (P, p), found = about.terminal(), []
        thetas = problem.chain.unstack(weights)
        for k in reversed(range(len(problem.chain))):
            slope = p.reshape(jax.tree.leaves(states[k + 1])[0].shape)
            given = (problem.chain[k], thetas[k], None, states[k], slope, exact)
            bent = ensemble.model(problem, *given)
            P, p, K, offset = lqr.before(bent, P, p)
            found.insert(0, (bent, K, offset))
        x, moves = jnp.zeros(found[0][0].A.shape[1]), []
        for bent, K, offset in found:
            moves.append(K @ x + offset)
            x = bent.A @ x + bent.B @ moves[-1]
        run = lambda a, b: jnp.stack(moves[a:b])
        ends = np.cumsum([0, *[r.length for r in problem.chain.runs]])
        by_run = [run(a, b) for a, b in itertools.pairwise(ends)]
        return ensemble.ordered(problem, weights, by_run)

    step, _ = in_weight_space(problem, weights, EXACT[True])
    assert np.abs(textbook(problem, weights) - step).max() > 1e-4


@pytest.mark.parametrize("case", ["affine stages"], indirect=True)
def test_the_closed_loop_differs_from_the_open_one_to_second_order(case):
    """Feedback answers what linearisation left out, so it vanishes with the square of the step."""
    problem, weights = case

    @eqx.filter_jit
    def apart(alpha):
        sweep, _, step, _ = factored_sweep(problem, weights, True)
        states = problem.rollout(weights)
        rolled = closed_loop(problem, weights, states.runs, sweep, alpha)
        straight = steps_along(problem, weights, alpha * step)
        gaps = jax.tree.map(lambda a, b: jnp.max(jnp.abs(a - b)), rolled, straight)
        return jax.tree.reduce(jnp.maximum, gaps)

    gaps = [float(apart(jnp.asarray(a))) for a in (1e-2, 1e-3)]
    assert 1.9 < np.log10(gaps[0] / gaps[1]) < 2.1


@pytest.fixture(scope="module")
def solved():
    return hj.solve(rings(), Riccati(curvature="ddp", tol=1e-12), key=jax.random.key(1))


def test_ddp_converges_quadratically_to_roundoff(solved):
    assert solved.result == hj.RESULTS.successful
    _, _, _, gradient = backpropagate(solved.problem, solved.weights)
    assert max(float(jnp.abs(g).max()) for g in jax.tree.leaves(gradient)) <= 1e-12
    assert solved.stats["num_steps"] < 120
    assert np.all(np.diff(solved.history.objective) <= 1e-14)
    before, last = solved.history.stationarity[-2:]
    assert last < max(10 * before**2, 1e-12)  # or roundoff


def test_gauss_newton_descends_from_where_ddp_began(solved):
    problem = solved.problem
    start = problem.init(jax.random.key(1))
    found = hj.solve(problem, Riccati(tol=1e-2), init=start)
    assert found.result == hj.RESULTS.successful
    assert found.stats["num_steps"] < 60
    again = hj.solve(problem, Riccati(tol=1e-2), init=start, max_steps=2)
    assert again.result == hj.RESULTS.max_steps_reached


def test_unreachable_tolerance_is_stagnation(solved):
    again = hj.solve(solved.problem, Riccati(curvature="ddp", tol=0.0), init=solved, max_steps=200)
    assert again.result == hj.RESULTS.stagnated
    assert again.stats["stationarity"] < 1e-12


def test_values_that_are_not_finite_are_a_result():
    problem = rings()
    broken = jax.tree.map(lambda a: jnp.full_like(a, jnp.nan), problem.init(jax.random.key(0)))
    found = hj.solve(problem, Riccati(curvature="ddp", tol=1e-12), init=broken)
    assert found.result == hj.RESULTS.nonfinite


def test_what_cannot_be_treated_is_refused_with_a_remedy():
    boxed = rings(control_set=hj.control.Box(-1.0, 1.0))
    with pytest.raises(ValueError, match=r"at most 64 states.*Use `Newton`"):
        hj.solve(boxed, Riccati(curvature="ddp"), key=jax.random.key(0))
    ball = rings(control_set=hj.control.L2Ball(1.0))
    with pytest.raises(
        ValueError, match=r"ddp: it treats control sets.*'bounds'; found a L2Ball.*adam"
    ):
        hj.solve(ball, Riccati(curvature="ddp"), key=jax.random.key(0))
    cell = Tied(lambda x: jnp.tanh(x), 3)
    x = jnp.ones((2, 3))
    tied = hj.ControlProblem([cell], x, terminal=lambda x: jnp.sum(x**2))
    with pytest.raises(ValueError, match=r"stages 0 to 2 are tied\. Use `Newton`"):
        Riccati().check(tied)
    bare = hj.ControlProblem([jnp.tanh], x, terminal=lambda x: jnp.sum(x**2))
    with pytest.raises(ValueError, match="must be 1 to 12000; found 0"):
        Riccati().check(bare)


def test_unknown_curvature(unchecked):
    with pytest.raises(ValueError, match="'gauss_newton', 'ddp'; found 'exact'"):
        Riccati(curvature="exact")  # pyright: ignore[reportArgumentType]


def test_float32_stays_float32():
    problem = rings()
    single = hj.ControlProblem(
        problem.chain,
        problem.inputs.astype(jnp.float32),
        problem.targets,
        terminal=problem.terminal,
        running=problem.running,
    )
    found = hj.solve(single, Riccati(curvature="ddp", tol=1e-5), key=jax.random.key(1))
    assert found.result == hj.RESULTS.successful
    assert {a.dtype.name for a in jax.tree.leaves(found.weights)} == {"float32"}

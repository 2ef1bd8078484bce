"""The one loop: limits, non-finite values, history, the clock, restarts, bad input."""

import time

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hjcontrol as hj
from hjcontrol.control.solution import STATS
from hjcontrol.control.units import measured
from hjcontrol.solvers import NAMES, Gradient, Newton, by_name, loop
from hjcontrol.solvers.selection import admit
from tests.solvers.problems import linear_regression, rings

SGD = optax.sgd(0.1)
ADAM = optax.adam(1e-2)
LBFGS = optax.lbfgs()


@pytest.mark.parametrize("optimiser", [SGD, ADAM, LBFGS], ids=["sgd", "adam", "lbfgs"])
def test_any_optax_transformation_descends(optimiser):
    problem = rings()
    solution = hj.solve(
        problem, Gradient(optimiser, tol=1e-6), key=jax.random.key(0), max_steps=400
    )
    assert float(solution.objective) < solution.history.objective[0]
    assert set(STATS) <= set(solution.stats)
    reached = solution.stats["stationarity"] <= 1e-6
    assert (solution.result == hj.RESULTS.successful) == reached


def test_gradient_steps_are_the_textbook_ones():
    problem = rings()
    weights = problem.init(jax.random.key(0))
    solution = hj.solve(problem, Gradient(SGD), init=weights, max_steps=5)
    for _ in range(5):
        slope = jax.grad(problem.objective)(weights)
        weights = jax.tree.map(lambda w, g: w - 0.1 * g, weights, slope)
    for a, b in zip(jax.tree.leaves(weights), jax.tree.leaves(solution.weights), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-14)


def test_step_limit_is_said():
    solution = hj.solve(rings(), Gradient(SGD), key=jax.random.key(0), max_steps=7)
    assert solution.result == hj.RESULTS.max_steps_reached
    assert solution.stats["num_steps"] == 7
    assert "Raise `max_steps`" in str(solution)
    with pytest.raises(RuntimeError, match="step limit was reached"):
        hj.solve(rings(), Gradient(SGD), key=jax.random.key(0), max_steps=7, throw=True)


def test_divergence_is_a_result_with_the_last_finite_weights():
    problem = rings()
    solution = hj.solve(problem, Gradient(optax.sgd(1e200)), key=jax.random.key(0), max_steps=20)
    assert solution.result == hj.RESULTS.nonfinite
    assert all(bool(jnp.isfinite(a).all()) for a in jax.tree.leaves(solution.weights))
    assert bool(jnp.isfinite(problem.objective(solution.weights)))


def test_a_step_that_fails_is_undone_to_the_bit():
    """J grows by 1e40 a step: the step that fails stands inside a chunk of several."""
    problem = linear_regression()
    start, method = problem.init(jax.random.key(0)), Gradient(optax.sgd(1e20))
    failed = hj.solve(problem, method, init=start, max_steps=50)
    steps = failed.stats["num_steps"]
    assert failed.result == hj.RESULTS.nonfinite
    assert steps > 4
    before = hj.solve(problem, method, init=start, max_steps=steps - 1)
    assert before.result == hj.RESULTS.max_steps_reached
    assert bool(jnp.isfinite(problem.objective(failed.weights)))
    for a, b in zip(*map(jax.tree.leaves, (failed.weights, before.weights)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_history_starts_at_the_start_and_ends_at_the_end():
    problem = rings()
    weights = problem.init(jax.random.key(0))
    solution = hj.solve(problem, Newton(), init=weights)
    history = solution.history
    assert len(history.objective) == solution.stats["num_steps"] + 1
    np.testing.assert_allclose(history.objective[0], problem.objective(weights), rtol=1e-14)
    np.testing.assert_allclose(history.objective[-1], solution.objective, rtol=1e-14)
    assert np.all(np.diff(history.seconds) >= 0)


def test_continuing_is_the_same_as_not_stopping():
    problem = rings()
    weights = problem.init(jax.random.key(0))
    whole = hj.solve(problem, Gradient(SGD), init=weights, max_steps=20)
    half = hj.solve(problem, Gradient(SGD), init=weights, max_steps=10)
    rest = hj.solve(problem, Gradient(SGD), init=half, max_steps=10)
    np.testing.assert_array_equal(whole.weights[1].W, rest.weights[1].W)


def test_minibatches_need_a_key_and_never_claim_convergence():
    problem = rings()
    method = Gradient(SGD, batch_size=8, tol=1e9)
    with pytest.raises(ValueError, match="minibatches need `key="):
        hj.solve(problem, method, init=problem.init(jax.random.key(0)))
    solution = hj.solve(problem, method, key=jax.random.key(0), max_steps=30)
    assert solution.result == hj.RESULTS.max_steps_reached
    again = hj.solve(problem, method, key=jax.random.key(0), max_steps=30)
    np.testing.assert_array_equal(solution.weights[0].W, again.weights[0].W)


def test_an_epoch_of_minibatches_visits_every_sample_once():
    problem = rings()
    drawing = hj.control.minibatch(problem, 8, jax.random.key(5), "test")
    seen = []
    for _ in range(5):
        batch, drawing = drawing.draw(problem, 8)
        seen.append(np.asarray(batch.inputs))
    rows = np.concatenate(seen)
    assert len(np.unique(rows, axis=0)) == 40
    np.testing.assert_allclose(np.sort(rows[:, 0]), np.sort(np.asarray(problem.inputs)[:, 0]))


def test_box_is_kept_by_projection_with_a_line_search_too():
    problem = rings(control_set=hj.control.Box(-0.3, 0.3))
    solution = hj.solve(problem, Gradient(ADAM, tol=1e-6), key=jax.random.key(0), max_steps=4000)
    assert max(float(jnp.abs(a).max()) for a in jax.tree.leaves(solution.weights)) <= 0.3
    # On the boundary the gradient itself does not vanish; the projected step does.
    slope = jax.grad(problem.objective)(solution.weights)
    assert max(float(jnp.abs(a).max()) for a in jax.tree.leaves(slope)) > 1e-3
    assert solution.stats["stationarity"] < 1e-3
    searched = hj.solve(problem, Gradient(LBFGS, tol=1e-6), init=solution)
    assert bool(searched.result == hj.RESULTS.successful)
    assert max(float(jnp.abs(a).max()) for a in jax.tree.leaves(searched.weights)) <= 0.3
    assert float(searched.objective) <= float(solution.objective) + 1e-12
    with pytest.raises(ValueError, match="needs all samples"):
        hj.solve(problem, Gradient(LBFGS, batch_size=8), key=jax.random.key(0))


def test_progress_is_shown_while_solving():
    lines = []
    solution = hj.solve(
        rings(),
        Gradient(SGD),
        key=jax.random.key(0),
        max_steps=50,
        progress=lambda *a: lines.append(a),
    )
    steps = [line[0] for line in lines]
    assert steps == sorted(steps)
    assert steps[-1] == 50
    np.testing.assert_allclose(lines[-1][1], solution.objective, rtol=1e-13)


def test_sweeps_do_not_recompile():
    key = jax.random.key(0)
    hj.solve(rings(ridge=1e-2), Gradient(SGD), key=key, max_steps=3)
    with jax.log_compiles(False):
        from hjcontrol.solvers import driver

        before = driver.advance._cached._cache_size()
        hj.solve(rings(ridge=3e-2), Gradient(SGD, tol=1e-3), key=key, max_steps=3)
        assert driver.advance._cached._cache_size() == before


SHAPES = {
    "free": {},
    "wide": {"width": 16},  # too many weights for a whole Hessian
    "bounded": {"control_set": hj.control.Box(-3.0, 3.0)},
}
KINDS = {name: by_name(name) for name in NAMES} | {"batches": Gradient(SGD, batch_size=4)}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", [name for name, solver in KINDS.items() if solver.traceable])
def test_the_loop_returns_what_it_took_to_the_weak_types(name, shape):
    """Else its program is compiled anew at the second chunk."""
    problem, key = rings(**SHAPES[shape]), jax.random.key(0)
    try:
        admit(problem, KINDS[name])
    except ValueError as error:
        pytest.skip(str(error))
    weights = problem.init(key)
    solver = KINDS[name].measuring(measured(problem, weights))
    begun = eqx.filter_eval_shape(loop.initial, solver, problem, weights, key)
    advanced = lambda state: loop.advance(solver, problem, state, jnp.asarray(1))[0]
    assert typed(eqx.filter_eval_shape(advanced, begun)) == typed(begun)


def typed(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    arrays = [(jax.tree_util.keystr(k), a) for k, a in leaves if hasattr(a, "weak_type")]
    return {path: (a.shape, a.dtype, a.weak_type) for path, a in arrays}


def test_bad_starts():
    problem = rings()
    with pytest.raises(ValueError, match="a start is needed"):
        hj.solve(problem, Newton())
    with pytest.raises(ValueError, match="shaped as"):
        hj.solve(problem, Newton(), init=(jnp.zeros(3),))
    wrong = jax.tree.map(lambda a: a[..., None], problem.init(jax.random.key(0)))
    with pytest.raises(ValueError, match="found"):
        hj.solve(problem, Newton(), init=wrong)
    with pytest.raises(ValueError, match="max_steps"):
        hj.solve(problem, Newton(), key=jax.random.key(0), max_steps=-1)
    with pytest.raises(ValueError, match="batch_size"):
        hj.solve(problem, Gradient(SGD, batch_size=41), key=jax.random.key(0))


@pytest.mark.parametrize("name", NAMES)
def test_every_name_has_a_method(name):
    assert by_name(name).name == name


def test_unknown_name():
    with pytest.raises(ValueError, match="unknown solver 'sgdd'; the solvers are gradient"):
        by_name("sgdd")


@pytest.mark.parametrize("solver", ["adam", "direct"])
def test_the_three_times_are_the_calls_own(solver):
    problem = rings()
    with pytest.raises(ValueError, match="max_steps"):  # the first call of all builds its checks
        hj.solve(problem, solver, key=jax.random.key(0), max_steps=-1)
    began = time.perf_counter()
    solution = hj.solve(problem, solver, key=jax.random.key(0), max_steps=3)
    wall = time.perf_counter() - began
    parts = [solution.stats[f"{name}_seconds"] for name in ("compile", "solve", "other")]
    assert min(parts) >= 0
    assert sum(parts) == pytest.approx(wall, abs=0.02)

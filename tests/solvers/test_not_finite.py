"""Constraints of several rows, and whatever is not a finite number where a solve begins."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hjcontrol as hj
from hjcontrol.control import Budget, Guess, PathConstraint, TerminalConstraint, least_squares
from hjcontrol.networks import as_stage

WALLS = np.array([[0.5, 2.0], [9.0, -1.0]])
AIM = np.array([1.0, 1.0, 3.0, 4.0])
METHODS = {
    "direct": lambda: hj.solvers.Direct(),
    "augmented": lambda: hj.solvers.AugmentedLagrangian(hj.Newton()),
}


def projection(path):
    """min |u - AIM|^2 / 2 with the walls: u = min(AIM, walls), nu = max(AIM - walls, 0), by hand."""
    return hj.ControlProblem(
        [(lambda x, u: x + u, jnp.zeros(4))],
        jnp.zeros((1, 4)),
        jnp.asarray(AIM)[None],
        terminal=least_squares,
        path=path,
    )


@pytest.mark.parametrize("method", METHODS)
def test_a_matrix_of_conditions_is_read_row_by_row(method):
    matrix = PathConstraint(lambda x: x.reshape(2, 2) - jnp.asarray(WALLS), name="walls")
    turned = PathConstraint(lambda x: (x.reshape(2, 2) - jnp.asarray(WALLS)).T, name="walls")
    wanted = np.maximum(AIM.reshape(2, 2) - WALLS, 0)
    for constraint, nu in ((matrix, wanted), (turned, wanted.T)):
        solution = hj.solve(projection(constraint), METHODS[method](), key=jax.random.key(0))
        assert solution.result == hj.RESULTS.successful
        found = np.asarray(solution.path_multipliers["walls"])
        assert found.shape == (1, 2, 4)
        np.testing.assert_allclose(found[0, 1], nu.ravel(), atol=1e-7)
        certificate = hj.verify(solution, optimality=True)
        rows = [c for c in certificate.optimality.conditions if "walls" in c.name]
        assert rows
        assert all(c.verdict == "holds" for c in rows if c.necessary)
    moved = {"walls": solution.path_multipliers["walls"][..., ::-1]}
    slopes = [
        hj.control.costate(hj.control.lagrangian(solution.problem, None, p), solution.weights)[1]
        for p in (solution.path_multipliers, moved)
    ]
    size = [max(float(jnp.abs(a).max()) for a in jax.tree.leaves(s)) for s in slopes]
    assert size[0] < 1e-6 < 1e-1 < size[1]  # multipliers in another order price another row


def steered(start=1.0, **options):
    own = {"terminal": lambda x, y: jnp.sum((x - y) ** 2), "running": hj.control.Ridge(0.1)}
    return hj.ControlProblem(
        [(lambda x, u: x + 0.5 * u, start * jnp.ones(2))] * 3,
        jnp.array([[0.0, 1.0], [2.0, -1.0]]),
        jnp.array([[1.0], [2.0]]),
        **(own | options),
    )


# At u = 1: x_0 = 0 and 2, x_1 = 0.5 and 2.5, x_2 = 1 and 3, x_3 = 1.5 and 3.5.
BROKEN = {
    "root": (
        PathConstraint(lambda x: jnp.sqrt(2.75 - x[0]) - 9, name="root"),
        "nan at depth 2 of sample 1",
    ),
    "pole": (PathConstraint(lambda x: 1 / (x[0] - 1.0), name="root"), "inf at depth 2 of sample 0"),
    "stages": (
        PathConstraint(lambda x, u: jnp.log(x[0] * u[0]) - 9, name="root"),
        "-inf at depth 0 of sample 0",
    ),
    "budget": (Budget(1.0, lambda u: jnp.log(-u[0]), name="root"), "is nan at the start"),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", BROKEN)
def test_a_start_at_which_a_constraint_is_no_number_is_refused(method, name):
    constraint, words = BROKEN[name]
    problem = steered(path=constraint)
    with pytest.raises(ValueError, match=f"'root' is {words}|'root' {words}"):
        hj.solve(problem, METHODS[method](), init=problem.init(jax.random.key(0)))


def test_the_end_too_and_states_that_are_guessed_in_place_of_a_rollout():
    problem = steered(terminal_constraint=TerminalConstraint(lambda x, y: jnp.sqrt(3.0 - x[:1])))
    with pytest.raises(ValueError, match="terminal constraint is nan at depth 3 of sample 1"):
        hj.solve(problem, METHODS["augmented"](), init=problem.init(jax.random.key(0)))
    root = PathConstraint(lambda x: jnp.sqrt(2.75 - x[0]) - 9, name="root")
    problem, near = steered(path=root), jnp.ones((2, 4, 2))
    begun = hj.solve(problem, "direct", init=Guess(None, near), key=jax.random.key(0))
    assert begun.result == hj.RESULTS.successful
    far = Guess(None, near.at[0, 3].set(4.0))
    with pytest.raises(ValueError, match="'root' is nan at depth 3 of sample 0"):
        hj.solve(problem, "direct", init=far, key=jax.random.key(0))


def test_a_start_within_the_domain_is_taken():
    root = PathConstraint(lambda x: jnp.sqrt(9.0 - x[0]) - 9, name="root")
    problem = steered(path=root)
    for method in METHODS.values():
        solution = hj.solve(problem, method(), key=jax.random.key(0))
        assert solution.result == hj.RESULTS.successful


SAID = {
    "running": (
        {"running": lambda x, u: jnp.log(x[0] - 0.5)},
        "The running cost is nan at depth 0 of sample 0",
    ),
    "terminal": (
        {"terminal": lambda x, y: jnp.sqrt(3.0 - x[0])},
        "terminal cost is nan at depth 3 of sample 1",
    ),
    "weights": ({"start": jnp.nan}, "The weights are not finite"),
}


@pytest.mark.parametrize("method", ["newton", "direct"])
@pytest.mark.parametrize("name", SAID)
def test_a_cost_that_is_no_number_is_named_in_the_result(method, name):
    options, words = SAID[name]
    problem = steered(**options)
    solution = hj.solve(problem, method, init=problem.init(jax.random.key(0)), max_steps=5)
    assert solution.result == hj.RESULTS.nonfinite
    assert words in solution.stats["message"]


def test_data_that_is_no_number_is_named_in_the_result():
    problem = hj.ControlProblem(
        [as_stage((lambda x, u: x + u, jnp.zeros(1)))],
        jnp.array([[0.0], [1.0], [jnp.nan]]),
        jnp.zeros((3, 1)),
        terminal=least_squares,
    )
    solution = hj.solve(problem, "newton", key=jax.random.key(0))
    assert solution.result == hj.RESULTS.nonfinite
    assert "`inputs` of sample 2" in solution.stats["message"]


def test_a_guess_is_finite_where_it_is_used_and_an_array_of_it_has_its_samples_in_front():
    problem, states = steered(), np.ones((2, 4, 2))
    states[:, 0] = np.nan  # x_0 is given: this entry is not used
    assert len(Guess(None, states).along(problem)) == 4
    states[1, 2] = np.inf
    with pytest.raises(ValueError, match="depth 2 of sample 1 is not finite"):
        Guess(None, states).along(problem)
    with pytest.raises(ValueError, match=r"depth 1 must have shape \(2, 2\); found \(2,\)"):
        Guess(None, np.ones((2, 4))).along(problem)  # two samples, and no coordinates
    assert Guess(None, lambda s: jnp.ones(2)).along(problem)[1].shape == (2, 2)

"""A sweep: closed forms at every point, one program for what differs in numbers alone, executors."""

from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hjcontrol as hj
from hjcontrol.solvers import sweeping

KEY = jax.random.key(0)
SOLVER = hj.Gradient(optax.sgd(0.2), tol=1e-13)


def data(width, samples=12):
    rng = np.random.default_rng(width)
    return rng.normal(size=(samples, width)), rng.normal(size=(samples, 2))


def made(ridge, width=2):
    x, y = data(width)  # a new array for every point, of equal values
    stages = [hj.readout(width, 2)]
    return hj.ControlProblem(
        stages, x, y, terminal=lambda a, b: hj.least_squares(a, b), running=hj.Ridge(ridge)
    )


def closed(ridge, width=2):
    """The least objective, by NumPy."""
    x, y = data(width)
    A = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    M = A.T @ A / len(x) + ridge * np.eye(width + 1)
    theta = np.linalg.solve(M, A.T @ y / len(x))
    return 0.5 * np.sum((A @ theta - y) ** 2) / len(x) + 0.5 * ridge * np.sum(theta**2)


GRID = {"ridge": [0.1, 0.5, 2.0], "width": [2, 3]}


def test_every_point_is_its_closed_form_in_two_programs():
    found = hj.sweep(made, GRID, SOLVER, key=KEY, max_steps=5000)
    assert found.num_programs == 2  # widths differ in shape, ridges in a number
    assert [p["ridge"] for p in found.points] == [0.1, 0.1, 0.5, 0.5, 2.0, 2.0]
    for point, run in zip(found.points, found.runs, strict=True):
        assert bool(run.result == hj.RESULTS.successful)
        np.testing.assert_allclose(run.objective, closed(**point), rtol=1e-12)
    assert found.best == int(np.argmin([closed(**p) for p in found.points]))
    assert abs(float(found.runs[0].objective) - closed(0.5, 2)) > 1e-3  # the twin
    assert "6 of 6 points solved" in str(found)


def test_equal_arrays_are_held_once():
    stated = [sweeping._stated(made, {"ridge": r}, KEY) for r in (0.1, 0.5)]
    (group,) = sweeping._groups(stated)
    first, second = (leaves for _, (leaves, _) in group)
    assert [a is b for a, b in zip(first, second, strict=True)].count(False) == 1  # the ridge


class Counting(ThreadPoolExecutor):
    """Two threads, and how many jobs they had."""

    jobs = 0

    def submit(self, fn, /, *args, **kwargs):
        self.jobs += 1
        return super().submit(fn, *args, **kwargs)


def test_programs_go_to_an_executor():
    with Counting(2) as executor:
        found = hj.sweep(made, GRID, SOLVER, executor, key=KEY, max_steps=5000)
    assert executor.jobs == 2
    for point, run in zip(found.points, found.runs, strict=True):
        np.testing.assert_allclose(run.objective, closed(**point), rtol=1e-12)


def test_a_start_of_ones_own_and_seeds():
    def seeded(seed):
        problem = made(0.5)
        return problem, problem.init(jax.random.key(seed))

    found = hj.sweep(seeded, [{"seed": 0}, {"seed": 1}], SOLVER, max_steps=0)
    assert found.num_programs == 1
    assert not np.array_equal(found.runs[0].weights[0].W, found.runs[1].weights[0].W)


def test_bad_sweeps_are_refused():
    with pytest.raises(ValueError, match="`grid` must have a point"):
        hj.sweep(made, [], SOLVER, key=KEY)
    with pytest.raises(ValueError, match=r"a start is needed"):
        hj.sweep(made, {"ridge": [0.1]}, SOLVER)
    with pytest.raises(ValueError, match="must give a ControlProblem"):
        hj.sweep(lambda a: jnp.ones(a), {"a": [1]}, SOLVER, key=KEY)

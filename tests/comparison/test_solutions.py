"""The jury: the same solution is recognised, different ones are told apart, faults are refuted."""

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

import hjcontrol as hj
from hjcontrol.solvers import Newton
from tests.comparison.test_symmetry import make, scramble


def test_scrambled_solution_is_the_same_one():
    problem = make()
    first = hj.solve(problem, Newton(tol=1e-12), key=jax.random.key(0))
    start = scramble(problem, first.weights, 3)
    start = jax.tree.map(lambda a: a + 1e-4, start)  # polishing has to find its way back
    second = hj.solve(problem, Newton(tol=1e-12), init=start, max_steps=0)
    found = hj.crosscheck(problem, first, second)
    assert found.same == [("newton", "newton 2")]
    assert found.verdict == "exact"
    assert found.weight_distance[0, 1] < 1e-7
    assert found.costate_distance[0, 1] < 1e-6
    assert "the same solution" in str(found)


def test_other_minima_are_told_apart_without_being_refuted():
    problem = make(residual=False)
    solutions = [hj.solve(problem, Newton(tol=1e-12), key=jax.random.key(k)) for k in (0, 1)]
    at_zero = jax.tree.map(jnp.zeros_like, solutions[0].weights)
    rest = hj.solve(problem, Newton(tol=1e-12), init=at_zero, max_steps=0)
    found = hj.crosscheck(problem, solutions[0], rest)
    assert found.same == []
    assert "different stationary points" in str(found)


def test_too_few_and_foreign_solutions():
    problem = make()
    one = hj.solve(problem, Newton(), key=jax.random.key(0), max_steps=1)
    with pytest.raises(ValueError, match="two solutions or more are needed; found 1"):
        hj.crosscheck(problem, one)
    other = hj.solve(make(residual=False), Newton(), key=jax.random.key(0), max_steps=1)
    with pytest.raises(ValueError, match="weights of other shapes"):
        hj.crosscheck(problem, one, other)


def test_verdict_is_the_worst_of_the_certificates():
    problem = make()
    one = hj.solve(problem, Newton(tol=1e-12), key=jax.random.key(0))
    found = hj.crosscheck(problem, one, one)
    wrong = eqx.tree_at(lambda t: t.final, one.costate, replace_fn=jnp.negative)
    refuted = hj.verify(problem, one.weights, multipliers=wrong)
    assert refuted.verdict == "refuted"
    again = hj.crosscheck(problem, one, one, certificates=[found.certificates[0], refuted])
    assert again.verdict == "refuted"

"""Two- and three-valued weights: kept exactly, the rule is the minimiser, rounding is reported."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hjcontrol as hj
from hjcontrol.control import Binary, Box, Ternary, rounded
from hjcontrol.solvers.msa import DiscreteMSA
from hjcontrol.solvers.msa.discrete import _least

SETS = [Binary(), Ternary()]
VALUES = {Binary: (-1.0, 1.0), Ternary: (-1.0, 0.0, 1.0)}


def signs(control_set, width=4):
    """A narrow network without biases; inputs and targets by a hidden one of the same kind."""

    def layer(x, W):
        return jnp.tanh(W @ x / 2.0)

    x = np.random.default_rng(0).normal(size=(30, width))
    rule = np.sign(np.random.default_rng(1).normal(size=(2, width, width)))
    y = x
    for W in rule:
        y = np.tanh(y @ W.T / 2.0)
    start = np.sign(np.random.default_rng(2).normal(size=(2, width, width)))
    problem = hj.ControlProblem(
        [(layer, jnp.zeros((width, width)))] * 2,
        jnp.asarray(x),
        jnp.asarray(y),
        terminal=hj.control.least_squares,
        control_set=control_set,
    )
    return problem, (jnp.asarray(start),)


@pytest.mark.parametrize("control_set", SETS, ids=["binary", "ternary"])
def test_weights_stay_in_the_set_bit_for_bit_and_descend(control_set):
    problem, start = signs(control_set)
    solution = hj.solve(problem, DiscreteMSA(), init=start, max_steps=200)
    assert set(np.unique(solution.weights[0])) <= set(VALUES[type(control_set)])
    assert np.all(np.diff(solution.history.objective) <= 0)
    assert solution.history.objective[-1] < 0.8 * solution.history.objective[0]
    assert (np.asarray(solution.weights[0]) != np.asarray(start[0])).any()
    assert solution.result == hj.RESULTS.successful
    # The twin: a relaxed method leaves the set at once.
    relaxed = jax.tree.map(lambda w, g: w - 0.1 * g, start, jax.grad(problem.objective)(start))
    assert not set(np.unique(relaxed[0])) <= set(VALUES[type(control_set)])


@pytest.mark.parametrize("control_set", SETS, ids=["binary", "ternary"])
def test_the_rule_is_the_minimiser_by_every_combination(control_set):
    solver = DiscreteMSA(rho=0.4, sparsity=0.05)
    draw = np.random.default_rng(3).normal
    slopes = draw(size=(12, 5))  # a stage each: the gate is the largest slope of a stage's array
    thetas = np.asarray(control_set.project((jnp.asarray(draw(size=(12, 5))),))[0])
    new = _least(solver, control_set, jnp.asarray(thetas), jnp.asarray(slopes), solver.rho)
    every = np.array(list(itertools.product(VALUES[type(control_set)], repeat=5)))
    moved = 0
    for slope, theta, found in zip(slopes, thetas, np.asarray(new), strict=True):
        tau = 0.4 * np.abs(slope).max()
        cost = (every - theta) @ slope + tau * np.abs(every - theta).sum(1)
        cost += 0.05 * (every != 0).sum(1)
        np.testing.assert_array_equal(found, every[cost.argmin()])
        moved += (found != theta).sum()
    assert 5 < moved < 40  # the gate lets some go and holds others


def test_a_price_makes_zeros():
    problem, start = signs(Ternary())
    free = hj.solve(problem, DiscreteMSA(), init=start, max_steps=200)
    priced = hj.solve(problem, DiscreteMSA(sparsity=0.02), init=start, max_steps=200)
    zeros = lambda s: float(np.mean(np.asarray(s.weights[0]) == 0))
    assert zeros(free) == 0.0
    assert zeros(priced) > 0.1


def test_rounding_reports_what_it_costs():
    problem, start = signs(Box(-1.0, 1.0))
    solution = hj.solve(problem, hj.solvers.ExtendedMSA(), init=start, max_steps=20)
    report = rounded(problem, solution.weights, Ternary())
    assert set(np.unique(report.weights[0])) <= {-1.0, 0.0, 1.0}
    assert float(report.gap) == pytest.approx(
        float(problem.objective(report.weights)) - float(solution.objective), abs=1e-14
    )
    assert float(report.gap) > 0
    assert float(report.moved) > 0
    again = rounded(problem, report.weights, Ternary())
    assert float(again.gap) == 0.0
    assert float(again.moved) == 0.0


def test_minibatches_stay_in_the_set_and_repeat():
    problem, start = signs(Binary())
    solver = DiscreteMSA(batch_size=10)
    runs = [hj.solve(problem, solver, init=start, key=jax.random.key(1), max_steps=9) for _ in "ab"]
    np.testing.assert_array_equal(runs[0].weights[0], runs[1].weights[0])
    assert set(np.unique(runs[0].weights[0])) <= {-1.0, 1.0}


def test_other_sets_and_gates_are_refused():
    problem, start = signs(Box(-1.0, 1.0))
    with pytest.raises(ValueError, match="must be `Binary"):
        hj.solve(problem, DiscreteMSA(), init=start)
    with pytest.raises(ValueError, match="must lie in"):
        DiscreteMSA(rho=1.0)

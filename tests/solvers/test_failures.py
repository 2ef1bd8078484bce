"""Every declared solver on problems without an answer: a result comes back, nothing is raised."""

import jax
import jax.numpy as jnp
import pytest

import hjcontrol as hj
from hjcontrol.control import Box, ControlProblem, Free, Ternary
from hjcontrol.networks import AbstractStage
from hjcontrol.solvers import NAMES, by_name
from hjcontrol.solvers.solver import SETS


class Shift(AbstractStage):
    """x + theta."""

    def step(self, x, theta):
        return x + theta

    def init(self, key):
        return jnp.zeros(1)


def endless(slope, control_set):
    """J = slope x_K: unbounded below for a slope, not finite for NaN."""
    return ControlProblem(
        [Shift()] * 2,
        jnp.ones((2, 1)),
        jnp.full((2, 1), slope),
        terminal=lambda x, y: jnp.sum(x * y),
        control_set=control_set,
    )


CLASSES = {type(by_name(name)): name for name in reversed(NAMES)}  # one name of each
CLASSES.pop(hj.solvers.AugmentedLagrangian)  # without a constraint it is refused


@pytest.mark.parametrize("name", sorted(CLASSES.values()))
def test_without_an_answer_there_is_a_result(name):
    method = by_name(name)
    control_set = Free() if SETS[method.sets](Free()) else Ternary()
    if name == "discrete-msa":
        control_set = Ternary()
    init = endless(1.0, control_set).init(jax.random.key(0))
    for slope in (jnp.nan, 1.0):
        found = hj.solve(endless(slope, control_set), method, init=init, max_steps=12)
        if name != "discrete-msa" or slope != 1.0:  # on a finite set a slope has its corner
            assert found.result != hj.RESULTS.successful, (name, slope)
        assert hj.RESULTS[found.result] or name == "discrete-msa"
        assert "result" in str(found)


def test_a_bounded_twin_is_solved():
    found = hj.solve(endless(1.0, Box(-1.0, 1.0)), by_name("newton"), key=jax.random.key(0))
    assert found.result == hj.RESULTS.successful
    assert float(found.objective) == -1.0

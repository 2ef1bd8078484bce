"""In 32 bits: default solves end `successful`, say to what, and are as close as they say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hjcontrol as hj
from hjcontrol.control import backpropagate
from hjcontrol.solvers import by_name

X, Y = (np.random.default_rng(k).normal(size=(24, 2)) for k in (0, 1))


def problem(dtype):
    stages = [hj.Residual(hj.Dense(2, 2), 0.5)] * 2
    x, y = jnp.asarray(X, dtype), jnp.asarray(Y, dtype)
    return hj.ControlProblem(stages, x, y, terminal=hj.least_squares, running=hj.Ridge(0.05))


def solved(solver):
    """As whoever never switched 64 bits on."""
    with jax.enable_x64(False):
        stated = problem(jnp.float32)
        return hj.solve(stated, solver(), init=stated.init(jax.random.key(0)))


@pytest.mark.parametrize("name", ["gradient", "newton", "riccati", "ddp", "emsa"])
def test_a_default_solve_ends_successful_and_says_to_what(name):
    solution = solved(lambda: by_name(name))
    assert bool(solution.result == hj.RESULTS.successful)
    assert solution.weights[0].W.dtype == jnp.float32
    said = solution.stats["message"]
    tolerance = float(said.split("<= ")[1].rstrip("."))
    assert "float32" in said
    wide = jax.tree.map(lambda a: a.astype(jnp.float64), solution.weights)
    exact = backpropagate(problem(jnp.float64), wide)[3]
    size = max(float(jnp.abs(g).max()) for g in jax.tree.leaves(exact))
    assert size <= 2 * tolerance  # by the gradient in 64 bits
    assert tolerance < 0.03


def test_a_tolerance_of_ones_own_is_meant():
    """The twin: what no 32 bits reach is not called reached."""
    solution = solved(lambda: hj.Newton(tol=1e-12))
    assert not bool(solution.result == hj.RESULTS.successful)

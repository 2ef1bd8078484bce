"""The witness beside `hj_reachability`, where that is installed (extra `bench`): one inviscid problem.

It steps `V_t = -H` backwards in time: ours is its `-|p|^2/2` with a negative target time.
"""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hjcontrol.hamilton_jacobi import HalfQuadratic
from hjcontrol.hamilton_jacobi.grid import Grid
from hjcontrol.hamilton_jacobi.grid_planning import GridScheme
from hjcontrol.hamilton_jacobi.grid_solver import grid_solve

N, T = 51, 0.5
GRID = Grid(-3.0, 3.0, N)
x = GRID.points[:, 0]


@pytest.fixture(scope="module")
def theirs():
    """Their solution from `|x|`, as a function of the sign of H and the target time."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        hj = pytest.importorskip("hj_reachability")

    class Dynamics(hj.ControlAndDisturbanceAffineDynamics):
        def __init__(self, sign):
            none = hj.sets.Box(jnp.zeros(1), jnp.zeros(1))
            super().__init__("min", "max", none, none)
            self.sign = sign

        def open_loop_dynamics(self, state, time):
            return jnp.zeros_like(state)

        def control_jacobian(self, state, time):
            return jnp.zeros((1, 1))

        def disturbance_jacobian(self, state, time):
            return jnp.zeros((1, 1))

        def hamiltonian(self, state, time, value, grad_value):
            return self.sign * jnp.sum(grad_value**2) / 2

        def partial_max_magnitudes(self, state, time, value, grad_value_box):
            return jnp.maximum(jnp.abs(grad_value_box.lo), jnp.abs(grad_value_box.hi))

    box = hj.sets.Box(np.array([-3.0]), np.array([3.0]))
    grid = hj.Grid.from_lattice_parameters_and_boundary_conditions(
        box, (N,), boundary_conditions=(hj.boundary_conditions.extrapolate,)
    )
    settings = hj.SolverSettings.with_accuracy("low")
    g = jnp.abs(grid.states[..., 0])

    def solve(sign, target):
        with warnings.catch_warnings(), jax.numpy_rank_promotion("allow"):
            warnings.simplefilter("ignore")
            u = hj.step(settings, Dynamics(sign), grid, 0.0, g, target, progress_bar=False)
        return np.asarray(u)

    return solve


def test_two_first_order_solvers_make_the_same_error(theirs):  #: 0.1262 and 0.1260; apart by 4e-3
    inside = np.abs(np.asarray(x)) <= 2
    ours = grid_solve(
        jnp.abs(x), T, HalfQuadratic(), 0.0, GRID, scheme=GridScheme("first", "global")
    ).u
    truth = np.where(np.abs(x) <= T, x**2 / (2 * T), np.abs(x) - T / 2)
    peer = theirs(-1.0, -T)
    errors = [np.abs(np.asarray(u) - truth)[inside].max() for u in (ours, peer)]
    assert np.abs(np.subtract(*errors)) < 5e-3
    assert np.abs(np.asarray(ours) - peer)[inside].max() < 0.01
    twin = theirs(1.0, -T)  # the sign that its own convention would have
    assert np.abs(np.asarray(ours) - twin)[inside].max() > 0.3

r"""The witness in reverse: derivatives in g, eps, t and the parameters of H, in bounded memory.

du/dg is the transpose of a stochastic matrix for the monotone scheme: it is positive and sums to one.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hjcontrol.hamilton_jacobi import Anisotropic, Norm
from hjcontrol.hamilton_jacobi.grid import Grid
from hjcontrol.hamilton_jacobi.grid_planning import GridScheme
from hjcontrol.hamilton_jacobi.grid_solver import grid_solve
from tests.agreement import assert_agree, disagreement

LINE = Grid(-1.0, 1.0, 16)
PLANE = Grid((-1, -1), (1, 1), (8, 9), periodic=(True, False))
x = LINE.points[:, 0]
TORUS = Grid((-1, -1), (1, 1), (8, 9), periodic=True)
ROUGH = jax.random.normal(jax.random.key(5), PLANE.shape)
# Data at which no two candidates for a speed nearly tie: elsewhere the flux has kinks, and a difference
# across one means nothing. In two dimensions WENO makes such ties at a boundary that extrapolates.
CASES = {
    "first 1-D": (GridScheme("first", "upwind"), LINE, jnp.sin(2 * x) + 0.1 * x**2),
    "weno5 1-D": (GridScheme("weno5", "local"), LINE, jnp.sin(2 * x) + 0.1 * x**2),
    "first 2-D": (GridScheme("first", "local"), PLANE, ROUGH),
    "weno5 2-D": (GridScheme("weno5", "local"), TORUS, ROUGH),
}
MATRIX = jnp.asarray([[0.7, 0.2], [0.2, 0.4]])


@functools.cache
def loss(name):
    """A smooth function of everything that may be varied, with its gradient: one program a case."""
    scheme, grid, _ = CASES[name]

    def J(g, eps, t, matrix):
        u = grid_solve(g, t, Anisotropic(matrix), eps, grid, scheme=scheme, steps=4).u
        return jnp.sum(u * jnp.cos(jnp.arange(u.size).reshape(u.shape)))

    return jax.jit(jax.value_and_grad(J, argnums=(0, 1, 2, 3)))


def problem(name):
    """Data, viscosity, time and the matrix of H."""
    _, grid, g = CASES[name]
    d = grid.dimension
    return [g, jnp.asarray(0.05), jnp.asarray(0.06 if d == 1 else 0.02), MATRIX[:d, :d]]


def central(name, at, direction, h=1e-6):
    """A difference of fourth order. A short one: a speed that changes its candidate makes a kink."""
    J_at = lambda s: loss(name)(*[a + s * h * v for a, v in zip(at, direction, strict=True)])[0]
    return (8 * (J_at(1) - J_at(-1)) - (J_at(2) - J_at(-2))) / (12 * h)


@pytest.mark.parametrize("name", CASES)
def test_gradient_in_data_viscosity_time_and_hamiltonian(name):  #: 3e-9
    at = problem(name)
    gradient = loss(name)(*at)[1]
    keys = jax.random.split(jax.random.key(2), 4)
    for i, a in enumerate(at):
        v = [jnp.zeros_like(b) for b in at]
        v[i] = jax.random.normal(keys[i], a.shape)
        v[i] = v[i] + v[i].T if i == 3 else v[i]
        found, differences = jnp.sum(gradient[i] * v[i]), central(name, at, v)
        assert abs(float(found)) > 1e-3
        assert_agree(found, differences, "differences")
        assert disagreement(0.99 * found, differences) > 1e-6  # twin


@pytest.mark.parametrize("name", CASES)
def test_flats_lines_and_steps_leave_the_gradient_finite(name):
    """Where WENO's smoothness indicators vanish, some or all; in the others the gradient is the limit."""
    at = problem(name)
    grid, side = CASES[name][1], CASES[name][1].points[..., -1]
    for g in jnp.stack([0 * side, side, 0.1 * (side > 0.1), jnp.abs(side)]):
        value, gradient = loss(name)(g, *at[1:])
        assert all(np.isfinite(np.asarray(a)).all() for a in (value, *gradient))
    still = loss(name)(jnp.full(grid.shape, 2.0), *at[1:])[1]
    assert_agree(jnp.stack(still[1:3]), jnp.zeros(2))  # a constant stays, whatever eps and t


@pytest.mark.parametrize("eps", [0.0, 0.1])
def test_what_a_monotone_scheme_hands_back_is_a_probability(eps):
    """Every u_i is an average over where its characteristics came from, whatever the flux does."""
    scheme = GridScheme("first", "upwind")
    u = lambda g: grid_solve(g, 0.2, Norm(2.0), eps, LINE, scheme=scheme, steps=8).u[5]
    weights = jax.jit(jax.grad(u))(jnp.abs(x - 0.13))
    assert float(weights.min()) > -1e-14
    assert_agree(jnp.sum(weights), jnp.asarray(1.0))
    assert float(weights.max()) < 1


def test_slope_in_the_viscosity_is_the_closed_forms():  #: 1e-4
    """g = x^2/2, u = x^2/(2(1+2t)) + (eps/2) log(1+2t)."""
    grid, t = Grid(-2.0, 2.0, 33, extrapolation=2), 0.5
    g = grid.points[:, 0] ** 2 / 2
    scheme = GridScheme("weno5", "upwind")
    H = lambda p: jnp.sum(p * p)
    u = lambda eps: grid_solve(g, t, H, eps, grid, scheme=scheme, steps=64).u[16]
    assert_agree(jax.jit(jax.grad(u))(0.2), jnp.asarray(np.log(1 + 2 * t) / 2), 1e-3)


def test_memory_of_the_reverse_pass_grows_like_the_root_of_the_steps():
    scheme = GridScheme("first", "upwind")
    grid = Grid(-1.0, 1.0, 4096)

    def held(steps):
        u = lambda g: jnp.sum(
            grid_solve(g, 0.01, lambda p: jnp.sum(p * p), 0.0, grid, scheme=scheme, steps=steps).u
        )
        program = jax.jit(jax.grad(u)).lower(jnp.ones(4096)).compile()
        account = program.memory_analysis()
        assert account is not None
        return account.temp_size_in_bytes

    few, many = held(64), held(64 * 64)
    assert many < 10 * few  # 8 times; storing every step would be 64 times
    assert many < 64 * 64 * 4096 * 8 / 4

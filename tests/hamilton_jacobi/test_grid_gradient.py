r"""The witness in reverse: derivatives in g, eps, t and the parameters of H, in bounded memory.

du/dg is the transpose of a stochastic matrix for the monotone scheme: it is positive and sums to one.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hjcontrol.hamilton_jacobi import Anisotropic, Norm
from hjcontrol.hamilton_jacobi.grid import Grid
from hjcontrol.hamilton_jacobi.grid_plan import GridScheme
from hjcontrol.hamilton_jacobi.grid_solver import grid_solve
from tests.agreement import assert_agree, disagreement

pytestmark = pytest.mark.slow

LINE = Grid(-1.0, 1.0, 16)
PLANE = Grid((-1, -1), (1, 1), (8, 9), periodic=(True, False))
x = LINE.points[:, 0]
SCHEMES = {
    "first upwind": GridScheme("first", "upwind"),
    "weno5 local": GridScheme("weno5", "local"),
}


def loss(scheme, grid, steps):
    """A smooth function of everything that may be varied."""

    def J(g, eps, t, matrix):
        u = grid_solve(g, t, Anisotropic(matrix), eps, grid, scheme=scheme, steps=steps).u
        return jnp.sum(u * jnp.cos(jnp.arange(u.size).reshape(u.shape)))

    return jax.jit(J), jax.jit(jax.grad(J, argnums=(0, 1, 2, 3)))


def central(J, at, direction, h=1e-5):
    """A difference of fourth order: the schemes' third derivatives are large near a change of weights."""
    J_at = lambda s: J(*[a + s * h * v for a, v in zip(at, direction, strict=True)])
    return (8 * (J_at(1) - J_at(-1)) - (J_at(2) - J_at(-2))) / (12 * h)


@pytest.mark.parametrize("name", SCHEMES)
def test_gradient_in_data_viscosity_time_and_hamiltonian(name):  #: 3e-10
    J, dJ = loss(SCHEMES[name], LINE, 6)
    at = [jnp.sin(2 * x) + 0.1 * x**2, jnp.asarray(0.05), jnp.asarray(0.1), jnp.asarray([[0.7]])]
    gradient = dJ(*at)
    keys = jax.random.split(jax.random.key(2), 4)
    for i, a in enumerate(at):
        v = [jnp.zeros_like(b) for b in at]
        v[i] = jax.random.normal(keys[i], a.shape)
        found = jnp.sum(gradient[i] * v[i])
        assert abs(float(found)) > 1e-3
        assert_agree(found, central(J, at, v), "differences")
        assert disagreement(0.99 * found, central(J, at, v)) > 1e-6


def test_gradient_in_two_dimensions():
    J, dJ = loss(GridScheme("first", "local"), PLANE, 4)
    g = jnp.sin(np.pi * PLANE.points[..., 0]) * (1 + PLANE.points[..., 1])
    at = [g, jnp.asarray(0.05), jnp.asarray(0.02), jnp.asarray([[0.7, 0.2], [0.2, 0.4]])]
    v = [jax.random.normal(jax.random.key(3), a.shape) for a in at]
    v[3] = (v[3] + v[3].T) / 2
    found = sum(jnp.sum(a * b) for a, b in zip(dJ(*at), v, strict=True))
    assert_agree(found, central(J, at, v), "differences")


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
        return program.memory_analysis().temp_size_in_bytes

    few, many = held(64), held(64 * 64)
    assert many < 10 * few  # 8 times; storing every step would be 64 times
    assert many < 64 * 64 * 4096 * 8 / 4

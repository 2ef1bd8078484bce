r"""Pieces of the witness, each against what it is made to reproduce.

extension    exact for straight lines or parabolas; periodic data repeat
slopes       order 1 and 5; no slope is read across a kink
exponential  the heat flow of the discrete Laplacian: positive, keeps constants
flux         consistent, monotone
"""

import pathlib

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from hjcontrol.hamilton_jacobi import grid_differences
from hjcontrol.hamilton_jacobi.grid import GHOSTS, Grid
from hjcontrol.hamilton_jacobi.grid_flux import (
    NODES,
    admits_upwind,
    momenta,
    numerical_hamiltonian,
    refined_speeds,
    speeds,
)
from hjcontrol.hamilton_jacobi.grid_solver import _exponential
from tests.agreement import assert_agree

laplacian_matrix = grid_differences.laplacian_matrix
exponential = jax.jit(_exponential)
rising = jax.jit(jax.grad(lambda s, A: _exponential(s, A)[3, 4]))
slopes = eqx.filter_jit(grid_differences.slopes)
square = lambda p: jnp.sum(p * p)
TILTED = jnp.asarray([[1.0, 0.4], [0.4, 0.6]])
HAMILTONIANS = {
    "square": square,
    "tilted": lambda p: p @ TILTED @ p,
    "relativistic": lambda p: jnp.sqrt(1 + jnp.sum(p * p)),
    "cosine": lambda p: -jnp.cos(p[0] + 1) + p[1] ** 2,  # not convex
}


def line(n, periodic=False, extrapolation=1):
    return Grid(0.0, 2 * np.pi, n, periodic=periodic, extrapolation=extrapolation)


# ------------------------------------------------------------------------------------ the grid


@pytest.mark.smoke
@pytest.mark.parametrize("periodic", [False, True])
def test_points_cover_the_box_once(periodic):
    grid = Grid((0, -1), (1, 1), (10, 8), periodic=periodic)
    points = np.asarray(grid.points)
    assert points.shape == (10, 8, 2)
    assert_agree(points[0, 0], np.array([0.0, -1.0]))
    last = (1 - 0.1, 1 - 0.25) if periodic else (1, 1)
    assert_agree(points[-1, -1], np.array(last))
    assert_agree(np.array(grid.spacing), points[1, 1] - points[0, 0])


@pytest.mark.parametrize("extrapolation", [1, 2])
@pytest.mark.parametrize("degree", [1, 2, 3])
def test_extrapolation_is_exact_up_to_its_degree_and_no_further(extrapolation, degree):
    grid = line(9, extrapolation=extrapolation)
    h = grid.spacing[0]
    longer = h * np.arange(-GHOSTS, 9 + GHOSTS) - 1.0
    u = jnp.asarray(longer[GHOSTS:-GHOSTS] ** degree)
    gap = np.abs(np.asarray(grid.extended(u, 0)) - longer**degree).max()
    assert (gap < 1e-12) == (degree <= extrapolation)


def test_a_periodic_axis_repeats_and_the_other_does_not():
    grid = Grid((0, 0), (1, 1), (8, 9), periodic=(True, False))
    u = jax.random.normal(jax.random.key(0), grid.shape)
    wrapped = np.asarray(grid.extended(u, 0))
    assert_agree(wrapped, np.pad(np.asarray(u), ((GHOSTS, GHOSTS), (0, 0)), mode="wrap"), 0.0)
    assert grid.extended(u, 1).shape == (8, 9 + 2 * GHOSTS)


# ------------------------------------------------------------------------------------ differences


@pytest.mark.parametrize(("order", "expected"), [("first", 1.0), ("weno5", 5.0)])
def test_slopes_have_their_order_where_data_are_smooth(order, expected):  #: 1.00, 5.02
    errors = []
    for n in (32, 64):
        grid = line(n, periodic=True)
        x = grid.points[:, 0]
        left, right = slopes(jnp.sin(x), grid, order)
        errors.append(max(float(jnp.abs(p[:, 0] - jnp.cos(x)).max()) for p in (left, right)))
    assert abs(np.log2(errors[0] / errors[1]) - expected) < 0.2


@pytest.mark.parametrize("order", ["first", "weno5"])
def test_no_slope_is_read_across_a_kink(order):  #: 3e-8
    grid = Grid(-1.0, 1.0, 41)
    x = grid.points[:, 0]
    left, right = (p[:, 0] for p in slopes(jnp.abs(x), grid, order))
    away = jnp.abs(x) > 1e-9
    for p in (left, right):
        assert float(jnp.abs(p - jnp.sign(x))[away].max()) < 1e-6
    wide = (jnp.abs(x + 0.1) - jnp.abs(x - 0.1)) / 0.2  # a stencil that does read across
    assert float(jnp.abs(wide - jnp.sign(x))[away].max()) > 0.4
    kink = int(jnp.argmin(jnp.abs(x)))
    assert abs(float(left[kink]) + 1) < 1e-6
    assert abs(float(right[kink]) - 1) < 1e-6


@pytest.mark.parametrize(("order", "expected"), [("first", 2.0), ("weno5", 6.0)])
def test_the_laplacian_has_its_order(order, expected):
    errors = []
    for n in (16, 32):
        grid = line(n, periodic=True)
        u = np.sin(np.asarray(grid.points[:, 0]))
        lap = laplacian_matrix(grid, order, 0) @ u / grid.spacing[0] ** 2
        errors.append(np.abs(lap + u).max())
    assert abs(np.log2(errors[0] / errors[1]) - expected) < 0.1


@pytest.mark.parametrize("periodic", [False, True])
@pytest.mark.parametrize("order", ["first", "weno5"])
def test_heat_is_the_exponential_keeps_constants_and_shrinks(order, periodic):  #: 4e-13, at s = 300
    A = laplacian_matrix(line(16, periodic), order, 0)
    for s in (0.0, 1e-3, 0.3, 10.0, 300.0):
        E = np.asarray(exponential(jnp.asarray(s), jnp.asarray(A)))
        assert_agree(E, scipy.linalg.expm(s * A), 1e-11)
        assert_agree(E.sum(axis=1), np.ones(16), 1e-11)
        if order == "first":
            assert E.min() > -1e-15  # a positive matrix: the scheme stays monotone
    explicit = np.eye(16) + 10.0 * A  # what an explicit step would be, far above its limit
    assert explicit.min() < -1
    found = rising(jnp.asarray(0.3), jnp.asarray(A))
    assert_agree(found, jnp.asarray((A @ scipy.linalg.expm(0.3 * A))[3, 4]))


def test_the_derivative_of_the_weights_is_jaxs_own():  #: 3e-14
    v, dv = jax.random.normal(jax.random.key(4), (2, 5, 40))
    along = lambda f: jax.jit(lambda v, dv: jax.jvp(f, tuple(v), tuple(dv)))(v, dv)
    assert_agree(along(grid_differences._weno), along(grid_differences.weno_by_definition))
    frozen = lambda *v: grid_differences.weno_by_definition(*jax.lax.stop_gradient(v))
    assert float(jnp.abs(along(frozen)[1]).max()) == 0.0


FLATS = np.array(
    [[0, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 0, 1, 0], [2, 2, 2, 2, 2], [1, 1, 1, 0, 0.0]]
)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_weights_stay_finite_where_indicators_vanish(dtype):
    """A step's neighbours have slopes 0, 1, 0, 0, 0: their ratio of indicators must not overflow."""
    v = jnp.asarray(FLATS.T, dtype)
    slope = jax.jit(lambda *v: jax.vjp(grid_differences._weno, *v)[1](jnp.ones_like(v[0])))(*v)
    value = grid_differences._weno(*v)
    assert np.isfinite(np.asarray([value, *slope])).all()
    assert_agree(value[jnp.array([0, 1, 3])], jnp.asarray([0.0, 0.0, 2.0], dtype), "float32")

    def bare(a, b, c, d, e):  # twin: the weights as they are usually written
        tiny = float(jnp.finfo(dtype).tiny)
        beta = 13 / 12 * (c - 2 * d + e) ** 2 + (3 * c - 4 * d + e) ** 2 / 4
        spread = 13 / 12 * (a - 2 * b + c) ** 2 + (a - 4 * b + 3 * c) ** 2 / 4 - beta
        weight = 0.3 * (1 + (spread / (beta + tiny)) ** 2)
        return weight * (c / 3 + 5 / 6 * d - e / 6) / weight

    assert np.isnan(np.asarray(bare(*v))[1])


# ------------------------------------------------------------------------------------ flux


MONOTONE = [
    *(("global", name) for name in HAMILTONIANS),
    ("local", "square"),
    ("upwind", "square"),
    ("upwind", "relativistic"),
]


def least_rise(flux, name):
    """The least change of the flux when a slope p- grows or a slope p+ falls; and of h(p, p) - H(p)."""
    H = HAMILTONIANS[name]
    left, right = 2 * jax.random.normal(jax.random.key(1), (2, 50, 2))
    fastest = jax.jit(lambda a, b: refined_speeds(H, a, b))(left - 1e-3, right + 1e-3)
    h = jax.jit(lambda a, b: numerical_hamiltonian(H, a, b, flux, fastest))
    same = jnp.abs(left) if flux == "upwind" else left  # H(p) = H(|p|) there
    changes = []
    for i in range(2):
        more = 1e-4 * jnp.eye(2)[i][None]
        changes += [h(left + more, right) - h(left, right), h(left, right) - h(left, right + more)]
    return float(jnp.stack(changes).min()), float(jnp.abs(h(left, left) - jax.vmap(H)(same)).max())


@pytest.mark.parametrize(("flux", "name"), MONOTONE, ids=str)
def test_a_flux_is_consistent_and_monotone(flux, name):
    rise, inconsistency = least_rise(flux, name)
    assert inconsistency < 1e-14
    assert rise > -1e-7  # the second difference


@pytest.mark.parametrize("name", ["tilted", "cosine"])
def test_the_local_flux_is_not_quite_monotone_where_coordinates_mix_or_bend(name):
    assert least_rise("local", name)[0] < -1e-6


def test_a_speed_that_peaks_between_samples_is_found():
    H = lambda p: -jnp.cos(7 * p[0])  # fastest where sin(7p) = 1, between the samples
    ends = jnp.asarray([[-0.9]]), jnp.asarray([[1.0]])
    missed = lambda found: 1 - float(found[0]) / 7
    half_a_cell = 7 * 1.9 / (NODES - 1) ** 2
    assert missed(refined_speeds(H, *ends)) <= half_a_cell**2 / 2
    assert missed(speeds(H, *ends)) > half_a_cell**2 / 2


def test_without_dissipation_no_flux_is_monotone():
    left, right = 2 * jax.random.normal(jax.random.key(1), (2, 50, 2))
    central = lambda a, b: jax.vmap(square)((a + b) / 2)
    more = 1e-4 * jnp.eye(2)[:1]
    assert float((central(left + more, right) - central(left, right)).min()) < -1e-5


@pytest.mark.parametrize("name", HAMILTONIANS)
def test_upwind_is_admitted_only_where_it_is_godunov(name):
    p = momenta(jnp.asarray([-2.0, -2.0]), jnp.asarray([1.5, 2.0]))
    assert admits_upwind(HAMILTONIANS[name], p) == (name in ("square", "relativistic"))


# ------------------------------------------------------------------------------------ independence


@pytest.mark.smoke
def test_the_analytic_room_never_imports_its_witness():
    room = pathlib.Path(grid_differences.__file__).parent
    reads = {p.name: "hamilton_jacobi.grid" in p.read_text() for p in room.glob("*.py")}
    readers = {name for name, read in reads.items() if read}
    assert {"__init__.py", "grid_solver.py"} <= readers
    assert all(name == "__init__.py" or name.startswith("grid_") for name in readers)

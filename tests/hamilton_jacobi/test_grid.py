r"""The witness against closed forms and fine sums that share nothing with it.

eps > 0   Hopf-Cole: order 1 (`first`) and 3 (`weno5`) in h, at fixed Courant number
eps = 0   Hopf-Lax: order 1 at kinks, for every Hamiltonian of the room
laws      comparison, contraction, constants, slopes that do not grow, semigroup
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hjcontrol import hamilton_jacobi as room
from hjcontrol._ground.results import RESULTS
from hjcontrol.hamilton_jacobi.grid import Grid
from hjcontrol.hamilton_jacobi.grid_planning import GridScheme, grid_plan
from hjcontrol.hamilton_jacobi.grid_solver import _run, grid_solve
from tests.agreement import assert_agree
from tests.oracles import hamilton_jacobi_line as oracle

FIRST, WENO = GridScheme("first", "global"), GridScheme("weno5")
square = lambda p: jnp.sum(p * p)
CIRCLE = 2 * np.pi
wave = lambda x: 0.5 * jnp.cos(x)
numpy_wave = lambda x: 0.5 * np.cos(x)


def circle(n):
    return Grid(0.0, CIRCLE, n, periodic=True)


def slope(errors):
    return np.log2(errors[0] / errors[1])


def error(solution, truth, where=slice(None)):
    assert solution.result == RESULTS.successful
    return float(np.abs(np.asarray(solution.u).ravel() - truth)[where].max())


# ------------------------------------------------------------------------------------ viscous


@pytest.mark.parametrize("eps", [0.3, 10.0])
@pytest.mark.parametrize(("scheme", "order"), [(FIRST, 1.0), (WENO, 3.0)], ids=["first", "weno5"])
def test_order_against_hopf_cole(scheme, order, eps):  #: 1.0 and 3.2 .. 5
    errors = []
    for n, steps in ((24, 9), (48, 18)):  # dt / h fixed
        x = circle(n).points
        truth = oracle.hopf_cole(numpy_wave, np.asarray(x), 0.6, eps)
        solution = grid_solve(
            wave(x[:, 0]), 0.6, square, eps, circle(n), scheme=scheme, steps=steps
        )
        errors.append(error(solution, truth))
    assert slope(errors) > order - 0.35
    wrong = oracle.hopf_cole(numpy_wave, np.asarray(x), 0.6, 0.9 * eps)
    assert scheme is FIRST or errors[1] < 0.05 * np.abs(wrong - truth).max()


def test_viscosity_sets_no_limit_to_the_step():
    grid, x = circle(48), circle(48).points[:, 0]
    with_it = grid_plan(wave(x), 0.6, square, 10.0, grid)
    assert with_it.steps == grid_plan(wave(x), 0.6, square, 0.0, grid).steps
    assert 10.0 * with_it.dt / grid.spacing[0] ** 2 > 5  # ten times what an explicit step allows


@pytest.mark.parametrize(("extrapolation", "good"), [(1, False), (2, True)])
def test_a_parabola_needs_the_parabolic_boundary(extrapolation, good):  #: 3e-6 against 4e-2
    grid, eps, t = Grid(-2.0, 2.0, 33, extrapolation=extrapolation), 0.2, 0.5
    x = np.asarray(grid.points[:, 0])
    truth = x**2 / 2 / (1 + 2 * t) + eps / 2 * np.log(1 + 2 * t)
    scheme = GridScheme("weno5", "upwind")
    solution = grid_solve(jnp.asarray(x**2 / 2), t, square, eps, grid, scheme=scheme)
    assert (error(solution, truth) < 1e-4) == good


def test_two_dimensions_reproduce_one_along_the_diagonal():  #: 2e-4
    """g(x + y): then u(x, y, t) = v(x + y, t) with v_t + 2 v_s^2 = 2 eps v_ss, so v at time 2t."""
    grid, line, eps = Grid((0, 0), (CIRCLE, CIRCLE), (32, 32), periodic=True), circle(32), 0.25
    scheme = GridScheme("weno5", "upwind")
    s = jnp.sum(grid.points, axis=-1)
    u = grid_solve(wave(s), 0.2, square, eps, grid, scheme=scheme)
    v = grid_solve(wave(line.points[:, 0]), 0.4, square, eps, line, scheme=scheme)
    index = (np.arange(32)[:, None] + np.arange(32)) % 32
    assert u.result == v.result == RESULTS.successful
    assert np.abs(np.asarray(u.u) - np.asarray(v.u)[index]).max() < 2e-3
    assert np.abs(np.asarray(u.u) - np.asarray(wave(s))).max() > 3e-2  # and something has happened


# ------------------------------------------------------------------------------------ inviscid

# Hamiltonian, its Lagrangian where finite, the greatest speed that this reaches, the flux
ROOM = {
    "anisotropic": (room.Anisotropic([[0.7]]), lambda v: v**2 / 2.8, 4.0, "upwind"),
    "power": (room.Power(1.5), lambda v: np.abs(v) ** 3 / 3, 4.0, "upwind"),
    "norm": (room.Norm(2.0), lambda v: 0 * v, 1.0, "upwind"),
    "relativistic": (room.Relativistic(), lambda v: -np.sqrt(1 - v**2), 1.0, "upwind"),
    "sum": (
        room.Sum(room.Scaled(room.HalfQuadratic(), 0.6), room.Drift([0.5])),
        lambda v: (v - 0.5) ** 2 / 1.2,
        4.0,
        "local",
    ),
}


@pytest.mark.parametrize("name", ROOM)
def test_hamiltonians_of_the_room_against_hopf_lax(name):  #: errors 4e-3 .. 3e-2, h = 0.05
    (H, lagrangian, speed, flux), grid, t = ROOM[name], Grid(-3.0, 3.0, 121), 0.5
    g = lambda x: np.abs(np.abs(x) - 1)  # kinks of both kinds: two spread, one stays
    x = np.asarray(grid.points[:, 0])
    truth = oracle.hopf_lax(g, lagrangian, x, t, speed * t, 8001)
    inside = np.abs(x) < 2
    scheme = GridScheme("first" if flux == "upwind" else "weno5", flux)
    solution = grid_solve(jnp.asarray(g(x)), t, H, 0.0, grid, scheme=scheme)
    assert error(solution, truth, inside) < 0.03
    assert np.abs(g(x) - truth)[inside].max() > 0.1  # doing nothing would not pass


@pytest.mark.parametrize(("order", "flux"), [("first", "upwind"), ("weno5", "local")])
def test_first_order_at_a_kink_that_spreads(order, flux):
    t, errors = 0.5, []
    for n in (81, 161):
        grid = Grid(-2.0, 2.0, n)
        x = np.asarray(grid.points[:, 0])
        truth = np.where(np.abs(x) < t, x**2 / (2 * t), np.abs(x) - t / 2)
        scheme = GridScheme(order, flux)
        errors.append(
            error(
                grid_solve(
                    jnp.abs(jnp.asarray(x)), t, room.HalfQuadratic(), 0.0, grid, scheme=scheme
                ),
                truth,
            )
        )
    assert 0.5 < slope(errors) < 1.6
    assert errors[1] < 0.06


class Signed(eqx.Module):
    """`c |p|^2`; the sign is data, so that both signs are one program."""

    c: jax.Array

    def __call__(self, p):
        return self.c * jnp.sum(p * p)


def test_a_shock_stays_where_it_is():
    """-|x| is concave: its kink stays, and the whole sinks at the rate H(+-1)."""
    grid = Grid(-1.0, 1.0, 41)
    x = np.asarray(grid.points[:, 0])
    sunk = lambda c: grid_solve(
        jnp.asarray(-np.abs(x)), 0.3, Signed(jnp.asarray(c)), 0.0, grid, scheme=FIRST
    )
    assert error(sunk(1.0), -np.abs(x) - 0.3) < 0.05  # within a point of the kink
    assert error(sunk(-1.0), -np.abs(x) - 0.3) > 0.3


# ------------------------------------------------------------------------------------ laws


@pytest.mark.parametrize("eps", [0.0, 0.3])
@pytest.mark.any_precision
def test_the_monotone_scheme_compares_and_contracts(eps):
    grid = circle(24)
    x = grid.points[:, 0]
    u = wave(x) + 0.3 * jnp.sin(2 * x)
    v = u + 0.1 * (1 + jnp.sin(3 * x))  # u <= v <= u + 0.2
    steps = max(grid_plan(g, 0.5, square, eps, grid, scheme=FIRST).steps for g in (u, v))
    run = lambda g: grid_solve(g, 0.5, square, eps, grid, scheme=FIRST, steps=steps)
    Su, Sv = run(u).u, run(v).u
    roundoff = 50 * float(jnp.finfo(u.dtype).eps)
    assert Su.dtype == u.dtype
    assert float((Sv - Su).min()) >= -roundoff
    assert float((Sv - Su).max()) <= float((v - u).max()) + roundoff
    assert_agree(run(u + 2.0).u, Su + 2.0, 4 * roundoff)
    steepest = lambda g: float(jnp.abs(jnp.diff(g)).max())
    assert steepest(Su) <= steepest(u) + roundoff


def test_beyond_the_limit_contraction_is_lost_and_the_result_says_so():
    grid = circle(24)
    x = grid.points[:, 0]
    u = wave(x) + 0.3 * jnp.sin(2 * x)
    least = grid_plan(u, 2.0, square, 0.0, grid, scheme=FIRST).least_steps
    far = lambda g: _run(
        g, jnp.asarray(2.0), square, jnp.asarray(0.0), grid, FIRST, 1, least // 3, False
    )
    assert far(u).result == RESULTS.courant_exceeded
    assert float(far(u).courant) > 2
    gap = float(jnp.abs(far(u + 1e-3 * jnp.cos(12 * x)).u - far(u).u).max())
    assert gap > 2e-3


@pytest.mark.parametrize("eps", [0.0, 0.3])
def test_semigroup(eps):
    grid = circle(48)
    u = wave(grid.points[:, 0])
    flow = lambda g, t: (
        grid_solve(g, t, square, eps, grid, scheme=GridScheme(flux="upwind"), steps=9).u
    )
    assert_agree(flow(flow(u, 0.2), 0.3), flow(u, 0.5), 2e-5)
    assert float(jnp.abs(flow(flow(u, 0.2), 0.25) - flow(u, 0.5)).max()) > 1e-3


# ------------------------------------------------------------------------------------ the plan


def test_the_plan_is_the_limit_computed_from_the_data():
    grid = Grid((-1, -1), (1, 1), (21, 41))
    g = jnp.abs(grid.points[..., 0]) + 2 * jnp.abs(grid.points[..., 1])
    plan = grid_plan(g, 0.3, square, 0.1, grid, scheme=FIRST)
    assert_agree(np.array(plan.slopes), np.array([[-1.0, 1.0], [-2.0, 2.0]]))
    assert_agree(np.array(plan.speeds), np.array([2.0, 4.0]))
    assert_agree(plan.courant, plan.dt * (2 / 0.1 + 4 / 0.05))
    assert 0.8 < plan.courant <= 0.9
    assert plan.least_steps == 30
    assert grid_plan(g, 0.3, square, 0.1, grid, scheme=FIRST, steps=30).courant <= 1 + 1e-9
    with pytest.raises(ValueError, match="at least 30 steps"):
        grid_plan(g, 0.3, square, 0.1, grid, scheme=FIRST, steps=29)


def test_speeds_are_found_inside_the_box_of_slopes():
    """|p| is fastest along an axis, where the other slope vanishes: no corner of the box knows."""
    grid = Grid((-1, -1), (1, 1), (21, 21))
    g = jnp.abs(grid.points[..., 0]) + jnp.abs(grid.points[..., 1])
    plan = grid_plan(g, 0.3, room.Norm(2.0), 0.0, grid)
    assert_agree(np.array(plan.speeds), np.ones(2))


G8 = Grid(0.0, 1.0, 8)
ZERO, RAMP = jnp.zeros(8), G8.points[:, 0]
BAD = {
    "shape": (lambda: grid_solve(jnp.zeros(9), 0.1, square, 0.0, G8), r"shape \(8,\).*found \(9,\)"),
    "time": (lambda: grid_solve(ZERO, 0.0, square, 0.0, G8), "t` must be > 0; found 0.0"),
    "infinite time": (lambda: grid_solve(ZERO, jnp.inf, square, 0.0, G8), "found inf"),
    "viscosity": (lambda: grid_solve(ZERO, 0.1, square, -0.1, G8), "eps` must be >= 0; found -0.1"),
    "many times": (lambda: grid_solve(ZERO, jnp.ones(2), square, 0.0, G8), r"t` must be a real number"),
    "nan": (lambda: grid_solve(ZERO.at[2].set(jnp.nan), 0.1, square, 0.0, G8), r"first g\[2\] = nan"),
    "vector H": (lambda: grid_solve(ZERO, 0.1, lambda p: p, 0.0, G8), "to a scalar"),
    "kink of H": (
        lambda: grid_solve(ZERO, 0.1, lambda p: jnp.sqrt(jnp.sum(p * p)), 0.0, G8),
        "subgradient at its kinks",
    ),
    "domain of H": (
        lambda: grid_solve(G8.points[:, 0] * 2, 0.1, room.BoxIndicator(0.0, 1.0), 0.0, G8),
        "inside its domain",
    ),
    "upwind": (
        lambda: grid_solve(RAMP, 0.1, lambda p: p[0], 0.0, G8, scheme=GridScheme(flux="upwind")),
        "Use flux='local'",
    ),
    "few steps": (lambda: grid_solve(RAMP, 1.0, square, 0.0, G8, steps=3), "at least 19 steps"),
    "no steps": (lambda: grid_solve(ZERO, 1.0, square, 0.0, G8, steps=0), "at least one step"),
    "too many": (
        lambda: grid_solve(G8.points[:, 0], 1.0, square, 0.0, G8, max_steps=10),
        "more than max_steps = 10",
    ),
    "traced": (
        lambda: jax.jit(lambda g: grid_solve(g, 0.1, square, 0.0, G8).u)(ZERO),
        "pass `steps=plan.steps`",
    ),
    "order": (lambda: GridScheme("second"), "'second'"),
    "fraction": (lambda: GridScheme(fraction=1.5), "found 1.5"),
    "three axes": (lambda: Grid((0, 0, 0), (1, 1, 1), (8, 8, 8)), "one or two axes"),
    "bounds": (lambda: Grid(1.0, 0.0, 8), "lower < upper"),
    "few points": (lambda: Grid(0.0, 1.0, 4), "at least 8 points"),
    "extrapolation": (lambda: Grid(0.0, 1.0, 8, extrapolation=3), "found 3"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_says_what_was_found(unchecked, case):
    run, words = BAD[case]
    with pytest.raises(ValueError, match=words):
        run()


def test_a_box_indicator_lets_slopes_inside_it_be():
    H, x = room.BoxIndicator(-1.1, 2.0), G8.points[:, 0]
    assert_agree(grid_solve(jnp.abs(x - 0.4), 0.5, H, 0.0, G8).u, jnp.abs(x - 0.4))


def test_failure_inside_a_program_is_a_result_and_throws_when_asked():
    run = eqx.filter_jit(lambda g, throw: grid_solve(g, 1.0, square, 0.0, G8, steps=4, throw=throw))
    steep = 3 * G8.points[:, 0]
    assert run(steep, False).result == RESULTS.courant_exceeded
    assert run(steep * jnp.nan, False).result == RESULTS.blown_up
    with pytest.raises(RuntimeError, match="Courant number"):
        run(steep, True)

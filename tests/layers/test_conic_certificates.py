"""Certificates of cone programs with known multipliers; no solver takes part.

Candidates beside the optimum *on* the cone meet every constraint, and their gap is of second order.
"""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

from hjcontrol.layers import Cones, ConicProgram, QuadraticProgram, certify

OFF = 1e-5


def turned(angle, size=1.0):
    return size * np.array([np.cos(angle), np.sin(angle)])


def ball(off):
    """min -q.x on |x| <= 1: x = q/|q|, s = (1, x), z = |q| (1, -x)."""
    A = -np.vstack([np.zeros(2), np.eye(2)])
    program = np.zeros((2, 2)), -turned(0.3, 2.0), A, np.array([1.0, 0, 0]), Cones(soc=(3,))
    return program, turned(0.3 + off), np.array([2.0, *-turned(0.3, 2.0)])


def exponential(off):
    """min w - c x on e^x <= w: x = log c; s = (x, 1, w), z = (-c, -(1 - x) c, 1)."""
    A, c = -np.array([[1.0, 0], [0, 0], [0, 1]]), 2.5
    x, r = np.log(c) + off, np.log(c)
    program = np.zeros((2, 2)), np.array([-c, 1]), A, np.array([0.0, 1, 0]), Cones(exp=1)
    return program, np.array([x, np.exp(x)]), np.array([-c, -(1 - r) * c, 1.0])


def power(off):
    """max w on x^a y^(1-a) >= w, x + y = 1: x = a, and the multipliers of x, y are w."""
    a, A = 0.3, np.vstack([[1.0, 1, 0], -np.eye(3)])
    x, best = a + off, a**a * (1 - a) ** (1 - a)
    program = np.zeros((3, 3)), np.array([0.0, 0, -1]), A, np.array([1.0, 0, 0, 0])
    point = np.array([x, 1 - x, x**a * (1 - x) ** (1 - a)])
    return (*program, Cones(zero=1, power=(a,))), point, np.array([best, best, best, -1])


def spectral(off):
    """min tr(M X), tr X = 1: the lowest eigenvector's v v', z = M - lowest; upper triangles."""
    v = turned(0.4 + off)
    flat = lambda X: np.array([X[0, 0], np.sqrt(2) * X[0, 1], X[1, 1]])
    best = np.outer(turned(0.4), turned(0.4))
    M = np.eye(2) * 3 - 2 * best
    A = np.vstack([[1.0, 0, 1], -np.eye(3)])
    program = np.zeros((3, 3)), flat(M), A, np.array([1.0, 0, 0, 0]), Cones(zero=1, psd=(2,))
    return program, flat(np.outer(v, v)), np.array([-1, *flat(M - np.eye(2))])


@pytest.mark.parametrize("make", [ball, exponential, power, spectral])
def test_a_point_beside_the_optimum_on_a_curved_cone_is_not_optimal(make):
    for unit in (1.0, 1e-12):
        for off, verdict in ((0.0, "optimal"), (OFF, "near-optimal")):
            (P, q, A, b, cones), x, z = make(off)
            arrays = (jnp.asarray(v) for v in (P, unit * q, A, b))
            found = certify(ConicProgram(*arrays, cones), x, unit * z)
            assert found.verdict == verdict, str(found)
    assert float(found.measures["gap"]) <= 1e-9  # the twin: the gap alone accepts it
    assert found.offender()[0] == "complementarity"


def test_a_column_that_no_force_holds_is_judged_at_any_offset():
    """The projection (1/2) |y|^2, y = x - c, on a box: inside it y = 0, so that no force acts, and an
    offset of the equalities leaves nothing but its roundoff there."""
    c = np.array([0.1, 2.0])
    P = np.diag([0.0, 0, 1, 1])
    A = np.block([[np.eye(2), -np.eye(2)], [np.eye(2), np.zeros((2, 2))]])
    b, q, nu = np.array([*c, 0.5, 0.5]), np.zeros(4), np.array([0, -1.5])
    right, wrong = np.array([0.1, 0.5, 0, -1.5]), np.array([0.1 + OFF, 0.5, OFF, -1.5])
    for offset in (0.0, 1.0, 1e4, 1e8):
        shift = offset * np.array([0.3, -0.7])
        arrays = (jnp.asarray(v) for v in (P, q + A[:2].T @ shift, A, b))
        program, z = (
            ConicProgram(*arrays, Cones(zero=2, nonneg=2)),
            np.array([*(nu - shift), 0, 1.5]),
        )
        assert certify(program, right, z, tol=1e-7).verdict == "optimal", offset
        assert certify(program, wrong, z, tol=1e-7).verdict not in ("optimal", "near-optimal")


def test_an_optimum_of_zero_without_a_right_hand_side():
    """b = 0 and x = 0: nothing in the data or in the answer has a size."""
    c = jnp.array([1.0, 0.5, 0.7])
    nonneg = QuadraticProgram(jnp.zeros((3, 3)), c, G=-jnp.eye(3), h=jnp.zeros(3))
    bent = QuadraticProgram(jnp.eye(3), c, G=-jnp.eye(3), h=jnp.zeros(3))
    flat = np.zeros((3, 3)), c, -jnp.eye(3), jnp.zeros(3)
    apex = ConicProgram(*flat, Cones(soc=(3,)))
    none = ConicProgram(*flat, Cones(psd=(2,)))  # M = [[1, .35], [.35, .7]]
    for program in (nonneg, bent, apex, none):
        found = eqx.filter_jit(lambda p: p.solve())(program)
        assert bool(found.converged), program
        assert not np.any(found.x), program
        assert certify(program, found.x, found).verdict == "optimal"
        assert certify(program, found.x.at[0].add(1e-3), found).verdict != "optimal"


def test_an_optimum_that_is_the_centre_of_its_equalities():
    """y = x - 1, sum x = 1: the equalities' point next to 0 is the optimum, and no difference is left."""
    P, A = np.diag([0.0, 0, 1, 1]), np.array([[1.0, 0, -1, 0], [0, 1, 0, -1], [1, 1, 0, 0]])
    program = ConicProgram(P, np.zeros(4), A, np.ones(3), Cones(zero=3))
    right, dual = np.array([0.5, 0.5, -0.5, -0.5]), np.array([-0.5, -0.5, 0.5])
    assert certify(program, right, dual).verdict == "optimal"
    for wrong in (1.00001 * right, right + 1e-5 * np.array([1, -1, 1, -1])):
        assert not certify(program, wrong, dual).certified


def test_a_cost_that_no_point_feels_leaves_all_undecided():
    """sum x on the simplex: any point, and the answer says so instead of not converging."""
    simplex = np.ones((1, 3)), np.ones(1), -np.eye(3), np.zeros(3)
    found = QuadraticProgram(np.zeros((3, 3)), np.ones(3), *simplex).solve()
    assert bool(found.converged)
    assert np.all(found.loose)

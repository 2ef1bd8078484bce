r"""Programs with a known answer and a known derivative, in every unit.

Expected values: closed forms (softmax, projections, Moreau), perturbation theory of eigenvectors, or 60
digits of the scalar equation that the program reduces to. Each is solved as stated, with the objective
times 1e-12 and 1e12, and in units of 1e-12: same answer, same verdict.
"""

from typing import NamedTuple

import cvxpy as cp
import equinox as eqx
import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

from hjcontrol.layers import ConicProgram, ProgramLayer, QuadraticProgram, certify
from hjcontrol.layers.conic.optimum import Data, optimum


class Case(NamedTuple):
    problem: cp.Problem
    theta: list
    answer: np.ndarray
    along: (
        tuple | list
    ) = ()  # (direction of the first parameter, entries of the answer's derivative)
    J: np.ndarray | None = None
    relative: bool = False  # each entry by itself


def variable(n, **attributes):
    return cp.Variable(n, name="p", **attributes)


def parameter(n=(), **attributes):
    return cp.Parameter(n, name="z", **attributes)


def entropic(n, eps):
    p, z = variable(n), parameter(n)
    return cp.Problem(cp.Minimize(-z @ p - eps * cp.sum(cp.entr(p))), [cp.sum(p) == 1])


def transport():
    T, M = variable((2, 2)), parameter((2, 2))
    cost = cp.sum(cp.multiply(M, T)) - 0.1 * cp.sum(cp.entr(T))
    return cp.Problem(cp.Minimize(cost), [cp.sum(T, 0) == 0.5, cp.sum(T, 1) == 0.5])


def subset():
    p, z = variable(4), parameter(4)
    cost = -z @ p - cp.sum(cp.entr(p)) - cp.sum(cp.entr(1 - p))
    return cp.Problem(cp.Minimize(cost), [cp.sum(p) == 2])


def capped():
    z, p, u = parameter(4), variable(4), cp.Parameter(4, name="u")
    cost = -z @ p - cp.sum(cp.entr(p))
    return cp.Problem(cp.Minimize(cost), [cp.sum(p) == 1, p <= u])


def ball():
    y, x = variable(2), parameter(2)
    return cp.Problem(cp.Minimize(cp.sum_squares(y - x)), [cp.norm(y) <= 1])


def prox():
    y, x = variable(2), parameter(2)
    return cp.Problem(cp.Minimize(0.5 * cp.sum_squares(y - x) + cp.norm(y)))


def semidefinite():
    X, N = variable((2, 2), symmetric=True), parameter((2, 2), symmetric=True)
    return cp.Problem(cp.Minimize(cp.sum_squares(X - N)), [X >> 0])


def spectral():
    X, N = variable((3, 3), PSD=True), parameter((3, 3), symmetric=True)
    return cp.Problem(cp.Minimize(cp.trace(N @ X)), [cp.trace(X) == 1])


def covariance():
    X, N = variable((2, 2), PSD=True), parameter((2, 2), symmetric=True)
    return cp.Problem(cp.Minimize(-cp.log_det(X) + cp.trace(N @ X)))


def twice(inequality):
    w, q = variable(3), parameter(3)
    rows = [cp.sum(w), 2 * cp.sum(w)]
    sides = [r <= c if inequality else r == c for r, c in zip(rows, (1, 2), strict=True)]
    return cp.Problem(cp.Minimize(cp.sum_squares(w - q)), sides)


def signed():
    w, q = variable(3, nonneg=True), parameter(3)
    return cp.Problem(cp.Minimize(cp.sum_squares(w - q)))


def divergence():
    w, q = variable(3), parameter(3)
    cost = cp.sum(cp.kl_div(w, np.array([0.2, 0.5, 0.3]))) + q @ w
    return cp.Problem(cp.Minimize(cost), [cp.sum(w) == 1])


def barrier():
    p, z = variable(4), parameter(4)
    return cp.Problem(cp.Maximize(cp.sum(cp.log(p)) + z @ p), [cp.sum(p) == 1])


def cubes():
    x, c = variable(3), parameter(3)
    return cp.Problem(cp.Minimize(cp.sum(cp.power(x, 3, approx=False)) - c @ x))


def power_cone():
    x, c = variable(3), parameter(3)
    cone = cp.constraints.PowCone3D(x[0], x[1], x[2], 0.3)
    return cp.Problem(cp.Minimize(0.5 * cp.sum_squares(x - c)), [cone])


def vertex():
    w, q = variable(2), parameter(2)
    return cp.Problem(cp.Minimize(q @ w), [cp.sum(w) == 1, w >= 0])


STAR = np.array([1.0, -1, -1, -1])
CUBED = np.array([1.0, 2, 0.5])
MIX = np.zeros((3, 3))
MIX[0, 1] = MIX[1, 0] = 1.0
EYE = np.eye(3) - 1 / 3
THIRDS = np.array([-2 / 3, 1 / 3, 4 / 3])
SOFT = np.array(
    [4.139936280977881e-8, 9.357619718922084e-14, 0.9999996526983294, 3.059022142614388e-7]
)
PULLED = [
    -4.139934209962481e-7,
    -2.807285447558924e-12,
    5.002527911918381e-6,
    -4.588531683636686e-6,
]
GROUPS: dict[str, tuple] = {
    "softmax": (
        entropic(4, 0.1),
        [
            Case(
                None,
                [np.array([0.3, -1, 2, 0.5])],
                SOFT,
                [(STAR * 0 + [1.0, -1, 2, 0.5], np.array(PULLED))],
                relative=True,
            )
        ],
    ),
    "a probability of 1e-25": (
        entropic(2, 0.1),
        [
            Case(
                None,
                [np.array([0, -5.7564627324851142])],
                np.array([1.0, 1e-25]),
                J=1e-24 * np.array([[1.0, -1], [-1, 1]]),
                relative=True,
            )
        ],
    ),
    "transport": (
        transport(),
        [
            Case(
                None,
                [np.array([[0.0, 1], [1, 0]])],
                np.array(
                    [
                        [0.4999773010656488, 2.26989343512172e-5],
                        [2.26989343512172e-5, 0.4999773010656488],
                    ]
                ),
                [(np.diag([1.0, 0]), -1.134895193398792e-4 * np.array([[1.0, -1], [-1, 1]]))],
            )
        ],
    ),
    "two of four": (
        subset(),
        [
            Case(
                None,
                [STAR],
                np.array([0.8260896634074602, *[0.3913034455308466] * 3]),
                [(np.eye(4)[0], np.array([0.1196160244423133, *[-0.03987200814743777] * 3]))],
            )
        ],
    ),
    "capped": (
        capped(),
        [
            Case(
                None,
                [STAR, np.array([0.3, 0.3, 0.4, 0.5])],
                np.array([0.3, *[0.7 / 3] * 3]),
                [(np.eye(4)[0], np.zeros(4))],
            )
        ],
    ),
    "ball": (
        ball(),
        [
            Case(
                None,
                [np.array([3.0, 4])],
                np.array([0.6, 0.8]),
                J=np.array([[0.128, -0.096], [-0.096, 0.072]]),
            ),
            Case(None, [np.array([0.1, 0.2])], np.array([0.1, 0.2]), J=np.eye(2)),
        ],
    ),
    "prox of the norm": (
        prox(),
        [
            Case(
                None,
                [np.array([3.0, 4])],
                np.array([2.4, 3.2]),
                J=np.array([[0.872, 0.096], [0.096, 0.928]]),
            ),
            Case(None, [np.array([0.3, 0.4])], np.zeros(2), J=np.zeros((2, 2))),
        ],
    ),
    "projection on matrices": (
        semidefinite(),
        [
            Case(
                None,
                [np.array([[0.0, 1], [1, 0]])],
                np.full((2, 2), 0.5),
                [(np.diag([1.0, -1]), np.diag([0.5, -0.5]))],
            )
        ],
    ),
    "lowest eigenvector": (
        spectral(),
        [Case(None, [np.diag([1.0, 2, 3])], np.diag([1.0, 0, 0]), [(MIX, -MIX)])],
    ),
    "covariance": (
        covariance(),
        [
            Case(
                None,
                [np.diag([2.0, 4])],
                np.diag([0.5, 0.25]),
                [(MIX[:2, :2], -0.125 * MIX[:2, :2])],
            )
        ],
    ),
    "an equality twice": (twice(False), [Case(None, [np.array([1.0, 2, 3])], THIRDS, J=EYE)]),
    "an inequality twice": (twice(True), [Case(None, [np.array([1.0, 2, 3])], THIRDS, J=EYE)]),
    "nonneg": (
        signed(),
        [Case(None, [np.array([1, -1, 0.5])], np.array([1.0, 0, 0.5]), J=np.diag([1.0, 0, 1]))],
    ),
    "divergence": (
        divergence(),
        [
            Case(
                None,
                [np.array([1.0, -1, 0])],
                np.array([0.04246273143405103, 0.7843987617000725, 0.1731385068658764]),
            )
        ],
    ),
    "barrier": (
        barrier(),
        [Case(None, [STAR], np.array([0.3660254037844386, *[0.2113248654051871] * 3]))],
    ),
    "cubes": (  # x = sqrt(c/3), x' = 1/(2 sqrt(3 c))
        cubes(),
        [Case(None, [CUBED], np.sqrt(CUBED / 3), J=np.diag(0.5 / np.sqrt(3 * CUBED)))],
    ),
    "power cone": (  # its apex, and the flat face along y: |z|^(1/0.3) does not bend at 0
        power_cone(),
        [
            Case(None, [np.array([-1.0, -1, 0.2])], np.zeros(3), J=np.zeros((3, 3))),
            Case(None, [np.array([-1.0, 1, 0])], np.array([0.0, 1, 0]), J=np.diag([0.0, 1, 1])),
        ],
    ),
    "vertex": (
        vertex(),
        [Case(None, [np.array([1.0, 2])], np.array([1.0, 0]), J=np.zeros((2, 2)))],
    ),
}
UNITS = ((1.0, 1.0), (1e-12, 1.0), (1e12, 1.0), (1.0, 1e-12))


def close(found, wanted, relative, tol=1e-10):
    size = np.abs(wanted) if relative else np.max(np.abs(wanted)) or 1e-3
    assert np.all(np.abs(np.asarray(found) - wanted) <= tol * size), (found, wanted)


@pytest.mark.parametrize("name", GROUPS)
def test_answer_and_derivative_in_every_unit(name):
    problem, cases = GROUPS[name]
    layer = ProgramLayer(problem)

    def solved(first, others, cost, unit):
        d = layer.reading.data(jnp.concatenate([first.ravel(), *others, jnp.ones(1)]))
        scaled = Data(d.P * cost / unit**2, d.q * cost / unit, d.A, d.b * unit)
        point = optimum(scaled, layer.reading.cones)
        return layer.reading.variables(point.x)["p"] / unit, (scaled, point)

    @jax.jit
    def both(first, others, directions, probe, cost, unit):
        f = lambda first: solved(first, others, cost, unit)
        push = lambda d: jax.jvp(lambda v: f(v)[0], (first,), (d,))[1]
        p, pull, (scaled, point) = jax.vjp(f, first, has_aux=True)
        program = ConicProgram(scaled.P, scaled.q, scaled.A, scaled.b, layer.reading.cones)
        ended = point.converged, point.loose, certify(program, point.x, point)
        return p, ended, jax.vmap(push)(directions), pull(probe)[0]

    for case in cases:
        first, *others = (jnp.asarray(v) for v in case.theta)
        if case.J is not None:
            directions, wanted = np.eye(first.size).reshape(-1, *first.shape), case.J.T
        else:
            directions = np.asarray([d for d, _ in case.along] or np.zeros((1, *first.shape)))
            wanted = [w for _, w in case.along]
        shape = case.answer.shape
        probe = directions[0] if name == "softmax" else np.cos(np.arange(case.answer.size))
        probe = jnp.asarray(probe).reshape(shape)
        plain = None
        for cost, unit in UNITS:
            p, (converged, loose, judged), forward, pulled = both(
                first, others, jnp.asarray(directions), probe, cost, unit
            )
            assert converged
            assert judged.verdict == "optimal"
            plain = p if plain is None else plain
            close(p, np.asarray(plain), False, 1e-12)
            assert not np.any(np.asarray(loose) & layer.reading.named())
            close(p, case.answer, case.relative)
            if name == "softmax" and (cost, unit) == UNITS[0]:  # J is symmetric
                close(pulled, wanted[0], True)
            for got, want in zip(forward, wanted, strict=False):
                close(jnp.ravel(got), np.ravel(want), False, 1e-9 if "1e-25" in name else 1e-10)
            for d, got in zip(directions, forward, strict=True):  # the two modes are one map
                size = (
                    np.max(np.abs(got)) if np.max(np.abs(got)) > 1e-14 or "1e-25" in name else 1.0
                )
                gap = jnp.sum(jnp.ravel(d) * jnp.ravel(pulled)) - jnp.sum(got * probe)
                assert abs(gap) <= 1e-10 * size


def test_softmax_of_a_hundred_at_a_small_temperature():
    """The derivative against the closed rule (p g - p p.g)/eps in 60 digits; p down to 1e-150."""
    layer = ProgramLayer(entropic(100, 0.01))
    rng = np.random.default_rng(0)
    Z, G = rng.standard_normal((6, 100)), rng.standard_normal((6, 100))
    pull = lambda z, g: jax.vjp(lambda z: layer.solve(z).variables["p"], z)[1](g)[0]
    found = jax.jit(jax.vmap(pull))(jnp.asarray(Z), jnp.asarray(G))
    for z, g, got in zip(Z, G, np.asarray(found), strict=True):
        with mpmath.workdps(60):
            e = [mpmath.exp((mpmath.mpf(v) - mpmath.mpf(max(z))) / mpmath.mpf(0.01)) for v in z]
            p = [v / mpmath.fsum(e) for v in e]
            mean = mpmath.fdot(p, g)
            want = [
                a * (mpmath.mpf(b) - mean) / mpmath.mpf(0.01) for a, b in zip(p, g, strict=True)
            ]
            off = mpmath.norm([mpmath.mpf(a) - b for a, b in zip(got, want, strict=True)])
            assert off <= 1e-12 * mpmath.norm(want)


def test_a_cap_moves_the_others_and_the_sum_has_its_multiplier():
    """Caps (.3, .3, .4, .5), z = (1, -1, -1, -1): each other entry takes a third of what the cap gives
    up. max sum log p + z.p on sum p = 1: 1/p_j + z_j = 2 + sqrt 3."""
    layer, caps = ProgramLayer(capped()), jnp.array([0.3, 0.3, 0.4, 0.5])
    slope = jax.jit(jax.jacrev(lambda u: layer.solve(jnp.asarray(STAR), u).variables["p"]))(caps)
    close(slope[1:, 0], np.full(3, -1 / 3), True)
    layer = ProgramLayer(barrier())
    point = layer.solve(STAR).point
    close(point.z[:1] + point.centre[:1], np.array([3.732050807568877]), True)


@pytest.mark.parametrize(("cost", "unit"), UNITS)
def test_no_optimum_or_more_than_one_in_every_unit(cost, unit):
    one = jnp.ones(1)
    bounds = jnp.array([[-1.0], [1.0]])
    made = lambda q, G, h: QuadraticProgram(jnp.zeros((1, 1)), q * cost / unit, G=G, h=h * unit)
    between = made(0 * one, bounds, jnp.array([-1.0, 0.0])).solve()
    below = made(one, bounds[1:], jnp.ones(1)).solve()
    loose = made(0 * one, bounds, jnp.array([0.0, 1.0])).solve()
    assert bool(between.infeasible), "w >= 1, w <= 0"
    assert bool(below.unbounded), "min w, w <= 1"
    assert bool(loose.converged), "0 <= w <= 1"
    assert bool(loose.loose[0])
    assert not bool(loose.infeasible | loose.unbounded | between.converged | below.converged)


def test_a_moved_entry_is_refused_and_the_own_answer_is_not():
    judge = eqx.filter_jit(lambda program, x, z: certify(program, x, z, tol=1e-9))
    for name in ("softmax", "ball", "vertex"):
        problem, cases = GROUPS[name]
        layer = ProgramLayer(problem)
        theta = cases[0].theta
        program, point = layer.program(*theta), layer.solve(*theta).point
        for cost, unit in UNITS:
            scaled = ConicProgram(
                program.P * cost / unit**2,
                program.q * cost / unit,
                program.A,
                program.b * unit,
                program.cones,
            )
            x, z = point.x * unit, (point.z + point.centre) * cost / unit
            own = judge(scaled, x, z)
            assert own.verdict == "optimal", (name, cost, unit, str(own))
            j = int(jnp.argmax(jnp.abs(x)))
            moved = judge(scaled, x.at[j].multiply(1 + 1e-6), z)
            assert moved.verdict not in ("optimal", "near-optimal", "undecidable"), name

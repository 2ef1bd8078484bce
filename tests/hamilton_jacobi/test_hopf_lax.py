r"""Laws of the inviscid formulas.

Hopf-Lax = Hopf where both apply      lower <= u <= upper, whoever found the pair      u_t + H(grad u) = 0
"""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hjcontrol._ground.results import RESULTS
from hjcontrol.hamilton_jacobi import (
    Anisotropic,
    BoxIndicator,
    Drift,
    HalfQuadratic,
    InitialData,
    MaxAffine,
    Nonconvex,
    Norm,
    Power,
    Quadratic,
    Relativistic,
    Scaled,
    Sum,
    UserConvex,
    as_cvxpy,
    hopf,
    hopf_lax,
    hopf_lax_convex,
    hopf_lax_max_affine,
    hopf_lax_search,
    hopf_sampled,
    hopf_search,
    pde_residual,
)
from hjcontrol.hamilton_jacobi.max_affine import bracket
from tests.agreement import assert_agree

A = np.array([[2.0, 0.5], [0.5, 1.0]])
STATED = {
    "quadratic": Quadratic(),
    "half": HalfQuadratic(),
    "anisotropic": Anisotropic(A),
    "power": Power(3.0),
    "norm 1": Norm(1.0),
    "norm 2": Norm(2.0),
    "norm inf": Norm(float("inf")),
    "relativistic": Relativistic(),
    "box": BoxIndicator(-1.0, 1.0),
    "scaled": Scaled(Norm(2.0), 2.0),
    "sum": Sum(Quadratic(), Drift(np.array([0.3, -0.7]))),
}
PIECES = np.random.default_rng(0).normal(size=(6, 2)), np.random.default_rng(1).normal(size=6)
X = np.random.default_rng(2).normal(size=(3, 2))
T = 0.7


@functools.cache
def solved(name):
    return hopf_lax_max_affine(MaxAffine(*PIECES), jnp.asarray(X[0]), T, H=STATED[name])


# ------------------------------------------------------------------------------------ max-affine


@pytest.mark.parametrize("name", STATED)
def test_the_program_s_two_sides_meet(name):
    found = solved(name)
    assert found.result == RESULTS.successful
    assert -1e-12 <= float(found.gap) <= 2e-7


@pytest.mark.parametrize("name", STATED)
def test_the_value_agrees_with_a_dense_search(name):
    """Independent: the minimum over 160,000 points `y`, whose error is of the order of their spacing."""
    H, g = STATED[name], MaxAffine(*PIECES)
    axis = jnp.linspace(-4.0, 4.0, 400)
    y = jnp.stack(jnp.meshgrid(axis, axis), -1).reshape(-1, 2)
    atoms = InitialData(y, jnp.max(y @ g.slopes.T + g.offsets[None, :], axis=1))
    u = float(eqx.filter_jit(lambda H, D, x: hopf_lax(D, x, T, H=H))(H, atoms, jnp.asarray(X[0])))
    if isinstance(H, Sum):  # a drift moves the minimiser, not the value's kind
        assert u >= float(solved(name).lower) - 1e-9
    assert float(solved(name).lower) - 1e-9 <= u <= float(solved(name).upper) + 0.06


def test_any_pair_brackets_the_value():
    """Weak duality needs no solver: random weights and minimisers, on the right sides."""
    g, H, truth = MaxAffine(*PIECES), STATED["quadratic"], solved("quadratic")
    for k in range(5):
        rng = np.random.default_rng(k)
        pi, y = rng.dirichlet(np.ones(6)), rng.normal(size=2)
        low, high = bracket(g, jnp.asarray(X[0]), T, jnp.asarray(y), jnp.asarray(pi), H)
        assert float(low) <= float(truth.upper)
        assert float(high) >= float(truth.lower)
    other = bracket(g, jnp.asarray(X[0]), T, truth.minimiser, truth.weights, HalfQuadratic())
    assert float(other[1] - other[0]) > 1e-2  # twin: the pair of another Hamiltonian does not close


def test_the_weights_give_the_gradient():
    """`grad u = A' pi`, and `u_t = -H(grad u)`: by differences of the program's values."""
    g, found = MaxAffine(*PIECES), solved("quadratic")
    slope = np.asarray(g.slopes.T @ found.weights)
    value = lambda x, t: float(hopf_lax_max_affine(g, jnp.asarray(x), t, H=Quadratic()).lower)
    h = 1e-4
    for i, e in enumerate(np.eye(2)):
        assert (value(X[0] + h * e, T) - value(X[0] - h * e, T)) / (2 * h) == pytest.approx(
            slope[i], abs=2e-3
        )
    by_time = (value(X[0], T + h) - value(X[0], T - h)) / (2 * h)
    assert by_time == pytest.approx(-slope @ slope, abs=2e-3)


def test_the_native_program_is_shown():
    problem, weights, _ = as_cvxpy(MaxAffine(*PIECES), jnp.asarray(X[0]), T, H=Quadratic())
    assert problem.is_dcp()
    assert weights.shape == (6,)


# ------------------------------------------------------------------------------------ convex g

SMOOTH = {"quadratic": Quadratic(), "power": Power(3.0), "anisotropic": Anisotropic(A)}
g_cosh = lambda y: jnp.sum(jnp.cosh(y))
g_cosh_star = lambda p: jnp.sum(p * jnp.arcsinh(p) - jnp.sqrt(1 + p**2))


@functools.cache
def both_formulas(name):
    """Hopf-Lax and Hopf at three points."""
    H = SMOOTH[name]
    lax = lambda x: hopf_lax_convex(g_cosh, x, T, 6.0, H=H)
    other = lambda x: hopf(g_cosh_star, x, T, 30.0, H=H)
    return jax.jit(jax.vmap(lambda x: (lax(x), other(x))))(jnp.asarray(X))


@pytest.mark.parametrize("name", SMOOTH)
def test_hopf_is_hopf_lax_where_both_apply(name):
    lax, other = both_formulas(name)
    assert float((lax.upper - lax.lower).max()) <= 1e-8
    assert float(other.gap.max()) <= 1e-8
    assert_agree(lax.upper, other.value, 1e-10)
    # the maximiser of one is the slope of g at the minimiser of the other
    assert_agree(jnp.sinh(lax.minimiser), other.maximiser, 1e-6)


def test_twin_hopf_of_another_hamiltonian_disagrees():
    one, two = both_formulas("quadratic")[0], both_formulas("anisotropic")[1]
    assert float(jnp.abs(one.upper - two.value).max()) > 1e-2


def test_hopf_takes_a_hamiltonian_that_is_not_convex(key):
    """Against a dense grid of slopes; the solution is convex, and solves the equation where smooth."""
    H = Nonconvex(lambda p: jnp.sum(jnp.cos(2 * p)))
    axis = jnp.linspace(-6.0, 6.0, 601)
    slopes = jnp.stack(jnp.meshgrid(axis, axis), -1).reshape(-1, 2)
    sampled = jax.jit(lambda x: hopf_sampled(slopes, jax.vmap(g_cosh_star)(slopes), x, T, H=H))
    search = jax.jit(lambda x: hopf_search(g_cosh_star, x, T, 6.0, key=key, starts=16, H=H))
    for x in jnp.asarray(X[:2]):
        found = search(x)
        dense = sampled(x)
        assert found.result == RESULTS.agreed
        assert 0 <= float(found.value - dense) <= 1e-3
    with pytest.raises(ValueError, match="not convex"):
        hopf(g_cosh_star, jnp.asarray(X[0]), T, 6.0, H=H)


def test_a_search_never_claims_the_minimum(key):
    """Two wells: one start finds one of them; the result says that this is an upper bound."""
    g = lambda y: jnp.sum(jnp.cos(5 * y)) + 0.3 * jnp.sum(y)
    x = jnp.array([0.4, 0.1])
    axis = jnp.linspace(-4.0, 4.0, 801)
    y = jnp.stack(jnp.meshgrid(axis, axis), -1).reshape(-1, 2)
    truth = float(jax.jit(lambda y: hopf_lax(InitialData(y, jax.vmap(g)(y)), x, 2.0))(y))
    walled = lambda wall, n: hopf_lax_search(
        lambda y: g(y) + jnp.where(wall, jnp.inf, 0.0), x, 2.0, 3.0, key=key, starts=n
    )
    searched = jax.jit(walled, static_argnums=1)
    few, many = searched(False, 2), searched(False, 64)
    assert float(many.value) <= truth + 1e-6
    assert float(few.value) >= float(many.value)
    assert "not a proof" in RESULTS[many.result]
    assert "upper bound" in RESULTS[few.result]
    nowhere = searched(True, 2)
    assert nowhere.result == RESULTS.nonfinite


# ------------------------------------------------------------------------------------ atoms


@pytest.mark.parametrize("name", ["quadratic", "power", "relativistic", "numeric"])
def test_atoms_solve_the_inviscid_equation_away_from_shocks(name):
    H = {**SMOOTH, "relativistic": Relativistic(), "numeric": UserConvex(g_cosh, 5.0)}[name]
    data = InitialData(0.2 * X, PIECES[1][:3])

    @eqx.filter_jit
    def relative(x, sign):
        u = lambda a, s: sign * hopf_lax(data, a, s, H=H)
        return pde_residual(u, x, T, 0.0, H=H).relative

    for x in jnp.asarray(0.2 * X[::-1]):
        assert float(relative(x, 1.0)) <= 1e-12
        assert float(relative(x, -1.0)) > 1e-2 or name in ("quadratic", "power")
    if name == "quadratic":
        assert float(relative(jnp.asarray(X[0]), -1.0)) > 1e-2  # twin: -u solves -u_t + H = 0


def test_nothing_arrives_from_beyond_the_speed_of_light():
    data = InitialData(jnp.zeros((1, 2)), jnp.zeros(1))
    for H, reach in ((Norm(2.0), 1.0), (Relativistic(), 1.0), (Scaled(Norm(2.0), 3.0), 3.0)):
        ends = reach * jnp.array([[0.99, 0.0], [1.01, 0.0]])
        near, far = jax.jit(jax.vmap(lambda x, H=H: hopf_lax(data, x, 1.0, H=H)))(ends)
        assert np.isfinite(float(near))
        assert np.isposinf(float(far))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MaxAffine(np.zeros((0, 2)), np.zeros(0)), "K >= 1"),
        (lambda: MaxAffine(np.zeros((2, 2)), np.zeros(3)), "offsets"),
        (
            lambda: hopf_lax_max_affine(MaxAffine(*PIECES), jnp.ones(3), 1.0, H=Quadratic()),
            "x \\(d,\\)",
        ),
        (
            lambda: hopf_lax_max_affine(MaxAffine(*PIECES), jnp.ones(2), 0.0, H=Quadratic()),
            "t. must be > 0",
        ),
        (
            lambda: hopf_lax_max_affine(
                MaxAffine(*PIECES), jnp.ones(2), 1.0, H=UserConvex(g_cosh, 1.0)
            ),
            "`hopf_lax_convex`",
        ),
        (
            lambda: jax.jit(
                lambda x: hopf_lax_max_affine(MaxAffine(*PIECES), x, 1.0, H=Quadratic())
            )(jnp.ones(2)),
            "outside `jit`",
        ),
        (
            lambda: hopf_lax(InitialData([[0.0]], [0.0]), jnp.zeros(1), 1.0, H=Nonconvex(jnp.sum)),
            "declared not convex",
        ),
        (lambda: hopf_lax_convex(g_cosh, jnp.zeros(2), 1.0, 0.0), "radius. must be > 0"),
        (
            lambda: hopf_lax_search(
                g_cosh, jnp.zeros(2), 1.0, 1.0, key=jax.random.key(0), starts=1
            ),
            "2 starts",
        ),
        (lambda: hopf(g_cosh_star, jnp.zeros(2), -1.0, 1.0, H=Quadratic()), "t. must be > 0"),
        (
            lambda: hopf_sampled(jnp.ones((3, 2)), jnp.ones(2), jnp.ones(2), 1.0, H=Quadratic()),
            "where m = 3",
        ),
    ],
)
def test_bad_input_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()

r"""Laws of a Hamiltonian and its Lagrangian.

H(p) + L(v) >= p.v, equal at v = grad H(p)      H** = H      p = grad L(grad H(p))
"""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from hjcontrol.hamilton_jacobi import (
    Anisotropic,
    BoxIndicator,
    Drift,
    HalfQuadratic,
    Nonconvex,
    Norm,
    Power,
    Quadratic,
    Relativistic,
    Scaled,
    Sum,
    UserConvex,
)
from tests.agreement import assert_agree

A = np.array([[2.0, 0.5], [0.5, 1.0]])
C = np.array([0.3, -0.7])


class Cosh(eqx.Module):
    """`c sum cosh(p_i)`, conjugate `sum v asinh(v/c) - sqrt(c^2 + v^2)`."""

    c: jax.Array = eqx.field(converter=jnp.asarray, default=2.0)

    def __call__(self, p):
        return self.c * jnp.sum(jnp.cosh(p))

    def conjugate(self, v):
        return jnp.sum(v * jnp.arcsinh(v / self.c) - jnp.sqrt(self.c**2 + v**2))


PAIRS = {
    "quadratic": Quadratic(),
    "half quadratic": HalfQuadratic(),
    "anisotropic": Anisotropic(A),
    "power 1.5": Power(1.5),
    "power 4": Power(4.0),
    "norm 2": Norm(2.0),
    "norm 1": Norm(1.0),
    "norm inf": Norm(float("inf")),
    "norm 3": Norm(3.0),
    "relativistic": Relativistic(),
    "box": BoxIndicator(np.array([-1.0, -2.0]), np.array([1.0, 0.5])),
    "drift": Drift(C),
    "scaled": Scaled(Relativistic(), 3.0),
    "sum of quadratics": Sum(Quadratic(), Scaled(HalfQuadratic(), 3.0), Anisotropic(A)),
    "sum of norms": Sum(Norm(3.0), Scaled(Norm(3.0), 2.0)),
    "sum with drift": Sum(Drift(C), Power(3.0)),
    "sum of boxes": Sum(BoxIndicator(-1.0, 1.0), BoxIndicator(-2.0, 0.5)),
    "numeric": UserConvex(Cosh(), 6.0),
}
CLOSED = [name for name in PAIRS if name != "numeric"]
# Differentiable with differentiable Lagrangian: the gradients are inverse to one another.
SMOOTH = ["quadratic", "half quadratic", "anisotropic", "power 1.5", "power 4", "relativistic"]
SMOOTH += ["scaled", "sum of quadratics", "sum with drift", "numeric"]

GRID = np.stack(np.meshgrid(*[np.linspace(-4, 4, 161)] * 2), -1).reshape(-1, 2)
PROBES = np.array([[0.2, -0.35], [-0.5, 0.1], C])


@eqx.filter_jit
def _laws(H, P, V, far, smooth, closed):
    """All that the laws below read of one pair, in one program."""
    over = lambda f, *a: jax.vmap(f)(*(jnp.asarray(x) for x in a))
    touch = lambda p: H(p) + H.lagrangian(H.gradient(p)) - p @ H.gradient(p)
    return {
        "H": over(H, P),
        "L": over(H.lagrangian, V),
        "touching": over(touch, P),
        "back": over(lambda p: H.momentum(H.gradient(p)), P) if smooth else None,
        "far H": over(H, far[0]),
        "far L": over(H.lagrangian, far[1]),
        "grid": over(H, GRID) if closed else None,
        "probes": over(H.lagrangian, PROBES) if closed else None,
    }


@functools.cache
def laws(name):
    pairs = np.asarray(0.6 * jax.random.normal(jax.random.key(20260528), (12, 2, 2)))
    P, V = pairs[:, 0], pairs[:, 1]
    far = (2.5 if name == "numeric" else 50) * P, 50 * V
    found = _laws(PAIRS[name], P, V, far, name in SMOOTH, name in CLOSED)
    return P, V, {k: np.asarray(a) for k, a in found.items() if a is not None}


@pytest.fixture
def pairs_of_points(key):
    return np.asarray(0.6 * jax.random.normal(key, (12, 2, 2)))


@pytest.mark.parametrize("name", PAIRS)
def test_fenchel_young(name):
    P, V, found = laws(name)
    assert (found["H"] + found["L"] >= np.sum(P * V, axis=1) - 1e-14).all()
    inside = np.isfinite(found["H"])
    assert inside.any()
    assert_agree(found["touching"][inside], np.zeros(inside.sum()), 4e-15)


@pytest.mark.parametrize("name", SMOOTH)
def test_gradients_are_inverse_to_one_another(name):
    P, _, found = laws(name)
    assert_agree(found["back"], P, 1e-12)


@pytest.mark.parametrize("name", CLOSED)
def test_the_lagrangian_is_the_supremum_over_a_grid(name):
    """Independent witness: `sup_p p.v - H(p)` by search, from below and close."""
    found = laws(name)[2]
    for v, ell in zip(PROBES, found["probes"], strict=True):
        best = float(np.max(GRID @ v - found["grid"]))
        if np.isfinite(ell):
            assert best <= ell + 1e-12
            assert ell - best < 5e-3
        else:
            assert best > 0.3  # grows with the window


def test_twin_a_lagrangian_with_half_the_factor_is_caught():
    p = jnp.array([0.3, -0.4])
    wrong = lambda v: jnp.sum(v * v) / 2  # that of |p|^2/2
    v = Quadratic().gradient(p)
    assert abs(float(Quadratic()(p) + wrong(v) - p @ v)) > 0.1


@pytest.mark.parametrize("name", PAIRS)
def test_declarations_are_true(name):
    H, found = PAIRS[name], laws(name)[2]
    assert H.convex
    assert np.isfinite(found["far H"]).all() == H.finite
    assert np.isfinite(found["far L"]).all() == H.finite_lagrangian


@pytest.mark.smoke
@pytest.mark.any_precision
@pytest.mark.parametrize("name", ["quadratic", "norm 2", "box", "sum of quadratics"])
def test_the_dtype_is_the_caller_s(name):
    p = jnp.array([0.1, 0.2], jnp.float32)
    assert PAIRS[name](p).dtype == PAIRS[name].lagrangian(p).dtype == jnp.float32


@pytest.mark.parametrize("q", [1.0, 1.5, 2.0, 3.0, float("inf")])
def test_norms_at_the_origin_and_far_out(q):
    H = Norm(q)
    value, slope, curve = jax.jit(jax.vmap(lambda p: (H(p), H.gradient(p), jax.hessian(H)(p))))(
        jnp.array([[0.0, 0.0], [3e200, -4e200], [1.0, 0.0]])
    )
    assert_agree(slope[0], jnp.zeros(2), 0.0)
    assert np.isfinite(np.asarray(value)).all()
    assert np.isfinite(np.asarray(slope)).all()
    assert np.isfinite(np.asarray(curve[2])).all()


def test_relu_is_the_kernel_of_the_box_and_of_no_other_box():
    x = jnp.linspace(-2.0, 2.0, 9)[:, None]
    for t in (0.3, 1.0, 7.0):
        cost = jax.vmap(lambda a, t=t: t * BoxIndicator().lagrangian(a / t))(x)
        assert_agree(cost, jnp.maximum(x[:, 0], 0.0), 1e-15)
    twin = jax.vmap(BoxIndicator(-1.0, 1.0).lagrangian)(x)
    assert float(jnp.max(jnp.abs(twin - jnp.maximum(x[:, 0], 0.0)))) == 2.0


# ------------------------------------------------------------------------------------ numeric conjugate


certificates = eqx.filter_jit(lambda H, V: jax.vmap(H.certificate)(jnp.asarray(V)))


@pytest.mark.parametrize("scale", [0.0, 0.1, 3.0, 100.0])
def test_the_numeric_conjugate_is_right_and_its_bracket_closed(scale, pairs_of_points):
    v = scale * pairs_of_points[:4, 0]
    found = certificates(PAIRS["numeric"], v)
    assert_agree(found.value, jax.vmap(Cosh().conjugate)(v), 1e-13)
    assert bool(jnp.all((found.gap >= 0) & (found.gap <= 1e-10 * max(1.0, scale))))


def test_the_bracket_holds_where_the_radius_binds():
    H, v = UserConvex(Cosh(), 0.5), jnp.array([8.0, 1.0])
    found = jax.tree.map(lambda a: a[0], certificates(H, v[None]))
    cut = scipy.optimize.minimize(
        lambda p: 2 * np.cosh(p).sum() - p @ v,
        np.zeros(2),
        constraints={"type": "ineq", "fun": lambda p: 0.25 - p @ p},
        tol=1e-12,
    )
    assert float(found.value) - 1e-9 <= -cut.fun <= float(found.value + found.gap) + 1e-9
    assert -cut.fun < float(Cosh().conjugate(v)) - 1  # not the conjugate of the function itself


def test_the_bracket_holds_at_a_kink_and_stays_honestly_open():
    H = UserConvex(lambda p: jnp.sum(jnp.abs(p)), 5.0)
    truth = np.array([0.0, 10.0])
    found = certificates(H, np.array([[0.3, -0.4], [3.0, 0.0]]))
    assert (np.asarray(found.value) - 1e-12 <= truth).all()
    assert (truth <= np.asarray(found.value + found.gap) + 1e-12).all()


def test_the_numeric_conjugate_is_differentiable_twice_in_velocity_and_parameters():
    def pieces(ell):
        at = jnp.asarray(2.0), jnp.array([0.3, -0.4])
        both = lambda c, v: (jax.grad(ell, (0, 1))(c, v), jax.hessian(ell, (0, 1))(c, v))
        return jax.jit(both)(*at)

    mine = pieces(lambda c, v: UserConvex(Cosh(c), 6.0).lagrangian(v))
    assert_agree(mine, pieces(lambda c, v: Cosh(c).conjugate(v)), 1e-11)


# ------------------------------------------------------------------------------------ refusals


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Anisotropic(np.ones((2, 3))), "shape .d, d."),
        (lambda: Anisotropic(np.array([[1.0, 1.0], [0.0, 1.0]])), "symmetric"),
        (lambda: Anisotropic(-np.eye(2)), "positive definite"),
        (lambda: Anisotropic(np.full((2, 2), np.nan)), "finite and symmetric"),
        (lambda: Power(1.0), "a > 1"),
        (lambda: Norm(0.5), "q. must be >= 1"),
        (lambda: BoxIndicator(1.0, 0.0), "lower <= upper"),
        (lambda: BoxIndicator(np.zeros(2), 1.0), "two scalars or two vectors"),
        (lambda: Scaled(Quadratic(), -1.0), "c. must be (> 0|finite)|c > 0"),
        (lambda: Scaled(Quadratic(), np.inf), "c. must be (> 0|finite)|c > 0"),
        (lambda: Sum(), "at least one"),
        (lambda: Sum(Quadratic(), Norm(2.0)), "Quadratic \\+ Norm has no closed rule"),
        (lambda: Sum(Norm(1.0), Norm(2.0)), "no closed rule"),
        (lambda: Sum(Quadratic(), Nonconvex(jnp.sum)), "Nonconvex, declared not convex"),
        (lambda: UserConvex(jnp.sum, 0.0), "radius. must be > 0"),
        (lambda: Nonconvex(jnp.sum).lagrangian(jnp.ones(2)), "`hopf`"),
        (lambda: Anisotropic(A)(jnp.ones(3)), "length 2 is needed"),
        (lambda: Drift(C).lagrangian(jnp.ones(3)), "length 2 is needed"),
        (lambda: PAIRS["box"](jnp.ones(3)), "length 2 is needed"),
    ],
)
def test_bad_hamiltonians_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()

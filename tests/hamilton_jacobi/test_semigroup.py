r"""Laws of the semigroup: S_s S_t = S_{s+t}, K_s (x) K_t = K_{s+t}, and the defect without the gauge."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hjcontrol.deformation import softmin
from hjcontrol.hamilton_jacobi import (
    Anisotropic,
    InitialData,
    Norm,
    Quadratic,
    density,
    evolve,
    hopf_cole,
    kernel,
    log_product,
)
from tests.agreement import assert_agree


def line(n):
    return density(
        lambda y: jnp.abs(y[0]) + jnp.sin(2 * y[0]), jnp.array([-8.0]), jnp.array([8.0]), n
    )


@jax.jit
def two_ways(data, eps, s, t):
    """`S_s S_t g` and `S_{s+t} g`, on the middle half of the nodes."""
    K = lambda r: kernel(data.atoms, data.atoms, r, eps)
    first = InitialData(data.atoms, evolve(K(t), data, eps), data.masses)
    n = data.atoms.shape[0]
    return [u[n // 4 : 3 * n // 4] for u in (evolve(K(s), first, eps), evolve(K(s + t), data, eps))]


@pytest.mark.parametrize(
    ("eps", "n", "published"), [(0.3, 101, 7e-16), (0.05, 101, 4e-10), (0.05, 201, 2e-16)]
)
def test_viscous_semigroup_is_exact_once_resolved(eps, n, published):
    """Section 5: resolved nodes give roundoff, too few give 4e-10."""
    two, one = two_ways(line(n), eps, 0.5, 0.5)
    worst = float(jnp.max(jnp.abs(two - one)))
    assert worst <= (2e-15 if published < 1e-12 else published)
    if published > 1e-12:
        assert worst > 1e-11


@jax.jit
def defects(X):
    """`K_s (x) K_s - K_{2s}` at `eps = 0`, `s = 1/2`."""
    K = kernel(X, X, 0.5, 0.0)
    return log_product(K, K, jnp.ones(len(X)), 0.0) - kernel(X, X, 1.0, 0.0)


def test_min_plus_semigroup_converges_at_second_order():
    """Section 5, eps = 0: the kernel's defect is h^2/(4t): 6.4e-3, 1.6e-3, 4e-4."""
    published = {101: 6.4e-3, 201: 1.6e-3, 401: 4e-4}
    for n, defect in published.items():
        found = np.asarray(defects(line(n).atoms))
        middle = slice(n // 4, 3 * n // 4)
        assert found.max() == pytest.approx(defect, rel=1e-6)
        assert found[middle, middle].min() >= -1e-12


def test_twin_without_the_normaliser_the_defect_is_the_gauge():
    data, eps = line(201), 0.3

    @jax.jit
    def defect(s, t):
        raw = lambda r: kernel(data.atoms, data.atoms, r, eps, normalisation="raw")
        return (log_product(raw(s), raw(t), data.masses, eps) - raw(s + t))[50:150, 50:150]

    for s, t in ((0.5, 0.5), (0.2, 0.8)):
        gauge = -eps / 2 * np.log(4 * np.pi * eps * s * t / (s + t))
        assert_agree(defect(s, t), jnp.full((100, 100), gauge), 1e-12)


def test_the_product_is_associative_and_evolution_is_hopf_cole(key):
    one, two = jax.random.split(key)
    y, m = jax.random.normal(one, (7, 2)), jax.random.uniform(two, (7,)) + 0.1
    data = InitialData(y, jnp.sum(jnp.cos(y), axis=1), m)
    A = Anisotropic(jnp.array([[2.0, 0.5], [0.5, 1.0]]))

    @jax.jit
    def sides(eps):
        K, L = kernel(y, y, 0.3, eps, H=A), kernel(y, y, 1.1, eps)
        times = lambda P, Q: log_product(P, Q, m, eps)
        u = jax.vmap(lambda x: hopf_cole(data, x, 0.3, eps, H=A))(y)
        return (times(times(K, L), K), evolve(K, data, eps)), (times(K, times(L, K)), u)

    for eps in (0.0, 0.4):
        one, two = sides(eps)
        assert_agree(one, two, 1e-13)


def test_the_eps_semiring(key):
    """(+)_eps is associative, commutative, adds distribute over it, and it is near the maximum."""
    a, b, c = jax.random.normal(key, (3, 50))

    @jax.jit
    def sums(eps):
        plus = lambda p, q: softmin(jnp.stack([p, q]), eps, axis=0)
        one = plus(plus(a, b), c), plus(a, b), c + plus(a, b)
        return one, (plus(a, plus(b, c)), plus(b, a), plus(c + a, c + b))

    for eps in (0.0, 0.05, 1.0):
        one, two = sums(eps)
        assert_agree(one, two, 1e-14)
        assert_agree(one[1], two[1], 0.0)
        gap = jnp.minimum(a, b) - one[1]
        assert bool(jnp.all((gap >= -1e-16) & (gap <= eps * np.log(2) + 1e-15)))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda x: kernel(x, x, 0.0, 0.1), "t. must be > 0"),
        (lambda x: kernel(x, x, 1.0, -0.1), "eps. must be >= 0"),
        (lambda x: kernel(x, jnp.ones((3, 5)), 1.0, 0.1), "where d = 2"),
        (lambda x: kernel(x, x, 1.0, 0.1, normalisation="mean"), "sum"),
        (lambda x: kernel(x, x, 1.0, 0.1, H=Norm(2.0)), "quadratic"),
        (
            lambda x: log_product(jnp.ones((3, 2)), jnp.ones((3, 2)), jnp.ones(3), 0.1),
            "where m = 2",
        ),
    ],
)
def test_bad_input_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make(jnp.ones((3, 2)))
    assert np.isfinite(
        np.asarray(kernel(jnp.ones((3, 2)), jnp.ones((3, 2)), 1.0, 0.1, H=Quadratic()))
    ).all()

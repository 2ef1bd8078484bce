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


def test_min_plus_semigroup_converges_at_second_order():
    """Section 5, eps = 0: the kernel's defect is h^2/(4t): 6.4e-3, 1.6e-3, 4e-4."""
    published = {101: 6.4e-3, 201: 1.6e-3, 401: 4e-4}
    for n, defect in published.items():
        X = line(n).atoms
        K = jax.jit(lambda t, X=X: kernel(X, X, t, 0.0))
        square = log_product(K(0.5), K(0.5), jnp.ones(n), 0.0)
        middle = slice(n // 4, 3 * n // 4)
        assert float(jnp.max(square - K(1.0))) == pytest.approx(defect, rel=1e-6)
        assert float(jnp.min((square - K(1.0))[middle, middle])) >= -1e-12


@pytest.mark.parametrize(("s", "t"), [(0.5, 0.5), (0.2, 0.8)])
def test_twin_without_the_normaliser_the_defect_is_the_gauge(s, t):
    data, eps = line(201), 0.3
    raw = lambda r: kernel(data.atoms, data.atoms, r, eps, normalisation="raw")
    square = log_product(raw(s), raw(t), data.masses, eps)
    middle = slice(50, 150)
    defect = (square - raw(s + t))[middle, middle]
    gauge = -eps / 2 * np.log(4 * np.pi * eps * s * t / (s + t))
    assert_agree(defect, jnp.full((100, 100), gauge), 1e-12)


@pytest.mark.parametrize("eps", [0.0, 0.4])
def test_the_product_is_associative_and_evolution_is_hopf_cole(eps, key):
    one, two = jax.random.split(key)
    y, m = jax.random.normal(one, (7, 2)), jax.random.uniform(two, (7,)) + 0.1
    data = InitialData(y, jnp.sum(jnp.cos(y), axis=1), m)
    A = Anisotropic(jnp.array([[2.0, 0.5], [0.5, 1.0]]))
    K, L = kernel(y, y, 0.3, eps, H=A), kernel(y, y, 1.1, eps)
    left = log_product(log_product(K, L, m, eps), K, m, eps)
    assert_agree(left, log_product(K, log_product(L, K, m, eps), m, eps), 1e-13)
    u = jax.vmap(lambda x: hopf_cole(data, x, 0.3, eps, H=A))(y)
    assert_agree(evolve(K, data, eps), u, 1e-13)


@pytest.mark.parametrize("eps", [0.0, 0.05, 1.0])
def test_the_eps_semiring(eps, key):
    """(+)_eps is associative, commutative, adds distribute over it, and it is near the maximum."""
    a, b, c = jax.random.normal(key, (3, 50))
    plus = lambda p, q: softmin(jnp.stack([p, q]), eps, axis=0)
    assert_agree(plus(plus(a, b), c), plus(a, plus(b, c)), 1e-14)
    assert_agree(plus(a, b), plus(b, a), 0.0)
    assert_agree(c + plus(a, b), plus(c + a, c + b), 1e-14)
    gap = jnp.minimum(a, b) - plus(a, b)
    assert bool(jnp.all((gap >= -1e-16) & (gap <= eps * np.log(2) + 1e-15)))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda x: kernel(x, x, 0.0, 0.1), "t > 0"),
        (lambda x: kernel(x, x, 1.0, -0.1), "eps >= 0"),
        (lambda x: kernel(x, jnp.ones((3, 5)), 1.0, 0.1), "one dimension"),
        (lambda x: kernel(x, x, 1.0, 0.1, normalisation="mean"), "sum"),
        (lambda x: kernel(x, x, 1.0, 0.1, H=Norm(2.0)), "quadratic"),
        (lambda x: log_product(jnp.ones((3, 2)), jnp.ones((3, 2)), jnp.ones(3), 0.1), "masses"),
    ],
)
def test_bad_input_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make(jnp.ones((3, 2)))
    assert np.isfinite(
        np.asarray(kernel(jnp.ones((3, 2)), jnp.ones((3, 2)), 1.0, 0.1, H=Quadratic()))
    ).all()

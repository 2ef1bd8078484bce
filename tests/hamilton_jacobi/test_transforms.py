r"""Laws of the transforms.

f** = f for convex f, f** <= f always      (f [] g)* = f* + g*      x - s grad env = prox

The prox is firmly nonexpansive.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hjcontrol.hamilton_jacobi import (
    HalfQuadratic,
    MaxAffine,
    biconjugate,
    conjugate,
    hopf_lax_convex,
    infimal_convolution,
    legendre,
    moreau,
    prox,
    prox_max_affine,
    prox_separable,
)
from tests.agreement import assert_agree

LINE = jnp.linspace(-3.0, 3.0, 301)[:, None]
SLOPES = jnp.linspace(-8.0, 8.0, 1601)[:, None]
cosh = lambda y: jnp.sum(jnp.cosh(y))
quartic = lambda y: jnp.sum(y**4) / 4 + jnp.sum(y**2) / 2


def test_the_transform_is_an_involution_on_convex_values():
    convex = LINE[:, 0] ** 2 / 2 + jnp.abs(LINE[:, 0])
    assert_agree(biconjugate(LINE, convex, SLOPES, LINE), convex, 2e-5)
    wavy = jnp.cos(3 * LINE[:, 0])
    minorant = biconjugate(LINE, wavy, SLOPES, LINE)
    assert bool(jnp.all(minorant <= wavy + 1e-12))
    assert bool(jnp.all(jnp.diff(minorant, 2) >= -1e-9))
    assert float(jnp.max(wavy - minorant)) > 1.0  # twin: not convex, not given back
    thrice = legendre(LINE, biconjugate(LINE, wavy, SLOPES, LINE), SLOPES)
    assert_agree(thrice, legendre(LINE, wavy, SLOPES), 1e-12)


def test_closed_conjugates_and_the_softened_sandwich():
    found = legendre(LINE, LINE[:, 0] ** 2 / 2, SLOPES[::100])
    inside = jnp.abs(SLOPES[::100, 0]) <= 3
    q = SLOPES[::100, 0]
    assert_agree(found, jnp.where(inside, q**2 / 2, 3 * jnp.abs(q) - 4.5), 1e-4)
    for eps in (1e-3, 0.1):
        soft = legendre(LINE, LINE[:, 0] ** 2 / 2, SLOPES[::100], eps)
        assert bool(jnp.all((soft >= found) & (soft <= found + eps * np.log(301) * (1 + 1e-12))))


def test_the_conjugate_of_an_infimal_convolution_is_the_sum():
    """`(f [] g)*(q)` through the envelope: at `x = grad f*(q) + grad g*(q)` Fenchel-Young closes."""

    @jax.jit
    def pieces(q):
        one, two = conjugate(cosh, q, 5.0), conjugate(quartic, q, 5.0)
        x = one.maximiser + two.maximiser
        joint = infimal_convolution(cosh, quartic, x, 8.0)
        return one.value + two.value, q @ x - joint.upper, joint.gap

    for q in (jnp.array([0.3, -0.8]), jnp.array([2.0, 1.0])):
        total, through, gap = pieces(q)
        assert float(gap) <= 1e-9
        assert_agree(total, through, 1e-12)
        assert abs(float(total - through + quartic(q))) > 1e-3  # twin: a term too many


@jax.jit
def envelope_and_slope(x, s):
    u = lambda a: moreau(cosh, a, s, 6.0)
    found = u(x)
    lax = hopf_lax_convex(cosh, x, s, 6.0, H=HalfQuadratic())
    return found, lax.upper


@pytest.mark.parametrize("s", [0.1, 1.0])
def test_the_envelope_is_the_half_quadratic_flow_and_its_slope_the_prox(s):
    x = jnp.array([0.7, -1.1])
    found, lax = envelope_and_slope(x, s)
    assert_agree(found.upper, lax, 1e-13)
    h = 1e-5
    for i, e in enumerate(jnp.eye(2)):
        up, down = (envelope_and_slope(x + a * h * e, s)[0].upper for a in (1, -1))
        slope = float((up - down) / (2 * h))
        assert (x - found.minimiser)[i] / s == pytest.approx(slope, abs=1e-8)


def test_the_prox_is_firmly_nonexpansive(key):
    p = jax.jit(lambda x: prox(cosh, x, 0.5, 6.0))
    x, y = 2 * jax.random.normal(key, (2, 2))
    a, b = p(x), p(y)
    assert float((a - b) @ (a - b)) <= float((a - b) @ (x - y)) + 1e-12


@pytest.mark.parametrize("s", [0.1, 1.0])
def test_separable_prox_is_exact(s):
    x = jnp.array([-3.0, -0.05, 0.0, 0.08, 2.0])
    at = jax.jit(lambda x: prox_separable(jnp.abs, x, s, 10.0))
    assert_agree(at(x), jnp.sign(x) * jnp.maximum(jnp.abs(x) - s, 0), 1e-15)
    half = jax.jit(lambda x: prox_separable(lambda y: y**2 / 2, x, s, 10.0))(x)
    assert_agree(half, x / (1 + s), 1e-15)
    assert (
        float(jnp.max(jnp.abs(half - x / (1 + 2 * s)))) > 1e-2
    )  # twin: the house's |x - y|^2/(4t)


def test_max_affine_prox_meets_the_separable_one():
    """|y|_1 in two dimensions as a maximum of four planes: soft thresholding by two routes."""
    corners = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    x = jnp.array([0.9, -0.2])
    found = prox_max_affine(MaxAffine(corners, np.zeros(4)), x, 0.3)
    assert 0 <= float(found.gap) + 1e-12 <= 1e-7
    distance = jnp.linalg.norm(found.minimiser - prox_separable(jnp.abs, x, 0.3, 5.0))
    assert float(distance) <= float(jnp.sqrt(2 * 0.3 * jnp.abs(found.gap))) + 1e-12


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    "make",
    [
        lambda: prox(cosh, jnp.ones(2), 0.0, 1.0),
        lambda: moreau(cosh, jnp.ones(2), -1.0, 1.0),
        lambda: prox_separable(jnp.abs, jnp.ones(2), 1.0, 0.0),
        lambda: legendre(jnp.ones((3, 2)), jnp.ones(2), jnp.ones((4, 2))),
        lambda: legendre(jnp.ones((0, 2)), jnp.ones(0), jnp.ones((4, 2))),
        lambda: conjugate(cosh, jnp.ones(2), -1.0),
    ],
)
def test_bad_input_is_refused(make):
    with pytest.raises(ValueError, match=r"must be|needed"):
        make()

"""Layers stated by phi, a box and one sum: against formulas, cvxpy, differences and the named layers."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hjcontrol.layers import (
    LOG,
    SQUARE,
    BinaryEntropy,
    CappedSimplex,
    Potential,
    Separable,
    Shannon,
    Softmax,
    Sparsemax,
    Tsallis,
    argmax,
    compare_gradients,
)
from hjcontrol.layers.regulariser import Quadratic

RNG = np.random.default_rng(0)
Z = jnp.asarray(RNG.standard_normal(6))
CAPS = jnp.array([0.3, 0.3, 0.4, 0.5, 0.2, 0.3])
WEIGHTS = jnp.array([1.0, -2.0, 0.5, 1.0, 3.0, -1.0])
CASES = {
    "softmax": lambda eps=0.3: Separable(Shannon(), eps, total=1.0),
    "csoftmax": lambda eps=0.3: Separable(Shannon(), eps, total=1.0, hi=CAPS),
    "csparsemax": lambda eps=0.5: Separable(Tsallis(2.0), eps, total=1.0, hi=CAPS),
    "lml": lambda eps=0.5: Separable(BinaryEntropy(), eps, total=2.0),
    "weighted": lambda eps=0.4: Separable(Shannon(), eps, a=jnp.abs(WEIGHTS), total=2.0),
    "section": lambda eps=1.0: Separable(SQUARE, eps, a=WEIGHTS, total=0.7, lo=-1.0, hi=2.0),
    "log": lambda eps=0.3: Separable(LOG, eps, total=1.0),
    "box": lambda eps=0.5: Separable(BinaryEntropy(), eps, lo=0.1, hi=0.8),
}


def _all(layer, z, dz, directions):
    moved = lambda h: eqx.combine(
        jax.tree.map(lambda x, d: x + h * d, eqx.filter(layer, eqx.is_array), directions), layer
    )
    zero, one = jnp.zeros(()), jnp.ones(())
    push = lambda f: jax.jvp(f, (zero,), (one,))[1]
    apart = lambda f: (f(1e-5) - f(-1e-5)) / 2e-5
    point = lambda h: moved(h)(z + h * dz)
    worth = lambda h: moved(h).value(z + h * dz)
    return {
        "p": layer(z),
        "tangent": (push(point), apart(point)),
        "worth": (push(worth), apart(worth)),
        "gradient": jax.grad(layer.value)(z),
        "second": (jax.jvp(jax.grad(layer.value), (z,), (dz,))[1], jax.jvp(layer, (z,), (dz,))[1]),
        "own": layer.certify(z),
        "other": layer.certify(z, layer(z + 1e-3 * dz)),
    }


@pytest.mark.parametrize("name", ["csoftmax", "lml", "weighted", "section"])
def test_everything_is_derived(name):
    layer, dz = CASES[name](), jnp.asarray(np.random.default_rng(1).standard_normal(6))
    draw = np.random.default_rng(2)
    leaves = eqx.filter(layer, eqx.is_array)
    still = lambda x: jnp.zeros_like(x)
    directions = jax.tree.map(lambda x: jnp.asarray(0.3 * draw.standard_normal(x.shape)), leaves)
    stay = [
        k for k in ("lo", "hi") if not (k == "hi" and name.startswith("cs")) and name != "section"
    ]
    for k in stay:  # the ends of phi itself do not move
        directions = eqx.tree_at(lambda t, k=k: getattr(t, k), directions, replace_fn=still)
    found = eqx.filter_jit(_all)(layer, Z, dz, directions)
    for key in ("tangent", "worth"):
        np.testing.assert_allclose(*found[key], atol=2e-9)
    np.testing.assert_allclose(*found["second"], atol=1e-13)
    np.testing.assert_allclose(found["gradient"], found["p"], atol=1e-15)
    assert found["own"].verdict == "optimal"
    assert found["other"].verdict == "suboptimal"
    if layer.total is not None:
        assert float(jnp.sum(layer.a * found["p"])) == pytest.approx(float(layer.total), abs=1e-14)
    np.testing.assert_allclose(argmax(layer, Z, "cvxpy"), found["p"], atol=5e-5)


def test_a_wrong_multiplier_does_not_pass_for_the_sum():
    """A twin: without the sum the same entries meet their own conditions, and the sum is refused."""
    free, summed = Separable(BinaryEntropy(), 0.5), CASES["lml"]()
    found = eqx.filter_jit(lambda free, summed, z: summed.certify(z, free(z)))(free, summed, Z)
    assert found.verdict == "infeasible"


def test_named_layers_are_cases():
    pairs = [
        (CASES["softmax"](), Softmax(0.3)),
        (Separable(Tsallis(2.0), 0.7, total=1), Sparsemax(0.7)),
        (Separable(Quadratic(), 0.6, total=3), CappedSimplex(0.6, 3)),
    ]
    for ours, named in pairs:
        for z in (Z, Z + 1e10, 1e3 * Z):
            np.testing.assert_allclose(ours(z), named(z), atol=4e-16)


def test_stated_values():
    z = jnp.array([1.0, -1.0, -1.0, -1.0])
    lml = Separable(BinaryEntropy(), total=2)
    with_slope = lambda f: jax.jit(lambda x: (f(x), jax.jacobian(f)(x)))
    p, slope = with_slope(lml)(z)
    np.testing.assert_allclose(p, [0.8260896634074602, *[0.3913034455308466] * 3], rtol=1e-10)
    slope = slope[0]
    np.testing.assert_allclose(slope[:2], [0.1196160244423133, -0.03987200814743777], rtol=1e-10)
    capped = lambda u: Separable(Shannon(), total=1.0, hi=u)(z)
    u = jnp.array([0.3, 0.3, 0.4, 0.5])
    p, moved = with_slope(capped)(u)
    np.testing.assert_allclose(p, [0.3, *[0.7 / 3] * 3], rtol=1e-14)
    assert float(moved[1, 0]) == pytest.approx(-1 / 3, rel=1e-12)
    barrier = Separable(LOG, total=1.0)
    np.testing.assert_allclose(
        barrier(z), [0.3660254037844386, *[0.2113248654051871] * 3], rtol=1e-10
    )
    assert float(barrier.program(z).multiplier) == pytest.approx(3.732050807568877, rel=1e-10)


@pytest.mark.parametrize("name", ["csparsemax", "lml", "section", "box"])
def test_the_hard_limit(name):
    hard, soft = CASES[name](0.0), CASES[name](1e-9)
    both = eqx.filter_jit(lambda a, b, z: (a(z), b(z), a.certify(z), a.value(z), b.value(z)))
    p, q, found, value, near = both(hard, soft, Z)
    np.testing.assert_allclose(p, q, atol=1e-6)
    assert found.verdict == "optimal"
    assert float(value) == pytest.approx(float(near), abs=1e-6)
    assert bool(hard.face(Z).unique)
    slope, dz = hard.directional(Z, jnp.roll(Z, 1)), jnp.roll(Z, 1)
    assert float(slope) == pytest.approx(float(jnp.sum(p * dz)), abs=1e-12)


def test_ties_of_the_hard_layer_are_shared_as_phi_wants():
    z = jnp.array([1.0, 1.0, 1.0, 0.0])
    layer = Separable(BinaryEntropy(), 0.0, total=2)
    np.testing.assert_allclose(layer(z), [2 / 3, 2 / 3, 2 / 3, 0.0], atol=1e-15)
    assert list(np.asarray(layer.face(z).ties)) == [True, True, True, False]
    assert float(layer.directional(z, jnp.array([1.0, 0.0, 3.0, 5.0]))) == pytest.approx(4.0)


@pytest.mark.parametrize("name", ["csparsemax", "section"])
def test_routes_agree(name):
    table = compare_gradients(CASES[name](), np.random.default_rng(5).standard_normal((4, 6)))
    assert table.agree, str(table)
    assert table.missing == ("unrolled",)


def test_ones_own_function_is_enough():
    own = Potential(lambda p: 0.25 * p**4 + 0.5 * p**2, lo=-1.0, hi=2.0)
    layer = Separable(own, 0.5, total=1.0)
    p, found = eqx.filter_jit(lambda layer, z: (layer(z), layer.certify(z)))(layer, Z)
    assert found.verdict == "optimal"
    inside = (np.asarray(p) > -1) & (np.asarray(p) < 2)
    force = np.asarray(Z - 0.5 * (p**3 + p))[inside]
    np.testing.assert_allclose(force, force[0], atol=1e-13)  # one lambda
    with pytest.raises(ValueError, match="its cvxpy form is not known"):
        layer.as_cvxpy(Z)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Separable(3.0), "`phi` must be an AbstractRegulariser; found 3.0"),
        (lambda: Separable(Shannon(), lo=1.0, hi=0.5), "lo <= hi"),
        (lambda: Separable(Shannon(), a=0.0, total=1.0), "finite and not 0"),
        (lambda: Separable(Shannon(), total=np.nan), "`total` must be finite"),
        (lambda: Separable(BinaryEntropy(), total=7.0)(Z), "no point of the box has the sum 7"),
        (
            lambda: Separable(Shannon(), hi=jnp.ones(5))(Z),
            "`hi` must be a number or have the shape",
        ),
        (lambda: Separable(Shannon())(jnp.zeros((2, 3))), "one sample has 1 axis"),
        (lambda: Potential(lambda p: p, lo=1.0, hi=0.0), "lo < hi is needed"),
        (lambda: Potential(3.0), "`phi` must be a function"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_input_is_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()

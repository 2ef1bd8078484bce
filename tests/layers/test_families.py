r"""What each family is known to be: closed forms, ties, masks, engines, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hjcontrol.layers import (
    GELU,
    REGISTRY,
    Attention,
    CappedSimplex,
    Clip,
    Entmax,
    LeakyReLU,
    LogSumExp,
    Permutahedron,
    Pool,
    ReLU,
    SiLU,
    Softmax,
    Softplus,
    Sparsemax,
    Tanh,
    build,
    compare_gradients,
    isotonic,
    soft_rank,
    soft_sort,
    solve,
)
from hjcontrol.layers.isotonic import minimax
from tests.agreement import assert_agree

pytestmark = pytest.mark.slow

RNG = np.random.default_rng(11)
Z = RNG.standard_normal((4, 6))
EXACT = 1e-14
SMOOTH = [n for n in REGISTRY if n not in ("max", "relu", "leaky-relu")]


# ------------------------------------------------------------------------------------ identities


@pytest.mark.smoke
def test_values_and_argmaxes_are_the_usual_activations():
    z = Z[0]
    assert_agree(Softplus(0.5).values(z), 0.5 * jax.nn.softplus(z / 0.5), EXACT)
    assert_agree(Softplus(0.5)(z), jax.nn.sigmoid(z / 0.5), EXACT)
    assert_agree(ReLU().values(z), jax.nn.relu(z), 0.0)
    assert_agree(LeakyReLU(0.0, 0.1).values(z), jax.nn.leaky_relu(z, 0.1), EXACT)
    assert_agree(Tanh(0.5)(z), jnp.tanh(z / 0.5), EXACT)
    pair = jax.nn.softmax(jnp.stack([z, -z]) / 0.5, axis=0)
    assert_agree(Tanh(0.5)(z), pair[0] - pair[1], EXACT)
    assert_agree(Clip(1.0)(z), jax.nn.hard_tanh(z), 0.0)
    assert_agree(Softmax(0.5)(z), jax.nn.softmax(z / 0.5), EXACT)
    assert_agree(Entmax(0.7, 2.0)(z), Sparsemax(0.7)(z), EXACT)
    assert_agree(CappedSimplex(0.7, 1)(z), Sparsemax(0.7)(z), EXACT)
    assert_agree(SiLU()(z), jax.nn.silu(z), EXACT)
    assert_agree(GELU()(z), jax.nn.gelu(z, approximate=False), EXACT)
    for activation in (SiLU(0.0), GELU(0.0)):
        assert_agree(activation(z), jax.nn.relu(z), 0.0)


def test_silu_and_gelu_are_neither_values_nor_argmaxes():
    x = jnp.linspace(-6.0, 6.0, 401)
    for f in (SiLU(), GELU()):
        first, second = jax.vmap(jax.grad(f))(x), jax.vmap(jax.grad(jax.grad(f)))(x)
        assert float(first.min()) < -0.05  # not monotone: no argmax
        assert float(second.min()) < -0.02  # not convex: no value
    p, value = Softplus(1.0)(x), Softplus(1.0).values(x)
    entropy = -(p * jnp.log(p) + (1 - p) * jnp.log1p(-p))
    assert_agree(SiLU()(x), value - entropy, 1e-12)


def test_entmax_tends_to_softmax():
    gaps = [float(jnp.abs(Entmax(0.5, a)(Z[0]) - Softmax(0.5)(Z[0])).max()) for a in (1.1, 1.01)]
    assert gaps[1] < 0.15 * gaps[0] < 0.1


def test_isotonic_against_the_minimax_formula_and_sklearn():
    from sklearn.isotonic import IsotonicRegression

    y = RNG.standard_normal((6, 15))
    pav = jax.jit(jax.vmap(isotonic))(y)
    assert_agree(pav, jax.jit(jax.vmap(minimax))(y), EXACT)
    theirs = [IsotonicRegression(increasing=False).fit_transform(np.arange(15), row) for row in y]
    assert_agree(pav, np.stack(theirs), EXACT)
    jacobian = jax.jacobian(isotonic)(y[0])
    assert_agree(jacobian @ jacobian, jacobian, 1e-14)  # a projection: means over blocks
    assert_agree(jacobian.sum(1), np.ones(15), 1e-14)


def test_soft_sort_and_soft_rank():
    x = jnp.array([0.3, 2.0, -1.0, 0.9])
    assert_agree(soft_rank(x, 1e-3), jnp.array([3.0, 1.0, 4.0, 2.0]), EXACT)
    assert_agree(soft_rank(jnp.array([1.0, 1.0, 0.0]), 0.0), jnp.array([1.5, 1.5, 3.0]), 0.0)
    assert_agree(soft_sort(x, 1e-3), jnp.sort(x)[::-1], EXACT)
    assert_agree(soft_sort(x, 0.0), jnp.sort(x)[::-1], 0.0)
    assert_agree(jnp.sum(soft_sort(x, 5.0)), jnp.sum(x), EXACT)
    far = soft_sort(x, 1e9)
    assert_agree(far, jnp.full(4, x.mean()), 1e-8)


# ------------------------------------------------------------------------------------ eps = 0


@pytest.mark.parametrize(
    ("layer", "ties", "argmax"),
    [
        (Softmax(0.0), [1, 0, 1, 0], [0.5, 0, 0.5, 0]),
        (CappedSimplex(0.0, 2), [0, 0, 0, 0], [1, 0, 1, 0]),
        (CappedSimplex(0.0, 1), [1, 0, 1, 0], [0.5, 0, 0.5, 0]),
        (ReLU(), [0, 1, 0, 0], [1, 0.5, 1, 0]),
        (Tanh(0.0), [0, 1, 0, 0], [1, 0, 1, -1]),
        (Permutahedron(0.0, np.array([4.0, 3.0, 2.0, 1.0])), [1, 0, 1, 0], [3.5, 2, 3.5, 1]),
    ],
)
def test_ties_are_reported_and_one_sided_derivatives_right(layer, ties, argmax):
    z = jnp.array([2.0, 0.0, 2.0, -1.0])
    face = layer.face(z)
    assert list(np.asarray(face.ties).astype(int)) == ties
    assert bool(face.unique) == (sum(ties) == 0)
    assert_agree(layer(z), np.array(argmax, float), EXACT)
    for dz in (Z[0, :4], -Z[0, :4], Z[1, :4]):
        step = 2.0**-20
        difference = (layer.value(z + step * dz) - layer.value(z)) / step
        assert_agree(layer.directional(z, dz), difference, 1e-9)


def test_masked_entries_are_as_if_absent():
    z = np.array([0.3, -np.inf, 1.0, -np.inf, 0.9])
    few = z[np.isfinite(z)]
    for layer in (Softmax(0.2), Softmax(0.0), Sparsemax(0.5), Entmax(0.5), CappedSimplex(0.5, 2)):
        assert_agree(layer(z)[jnp.array([0, 2, 4])], layer(few), EXACT)
        assert_agree(layer.value(z), layer.value(few), EXACT)
        assert float(jnp.abs(layer(z)[jnp.array([1, 3])]).max()) == 0.0
        gradient = jax.grad(lambda z, L=layer: jnp.sum(L(z) ** 2))(jnp.asarray(z))
        assert bool(jnp.all(jnp.isfinite(gradient)))
        assert layer.certify(z).verdict == "optimal"


# ------------------------------------------------------------------------------------ engines, routes


@pytest.mark.parametrize("name", SMOOTH)
def test_routes_and_engines_agree(name):
    entry = REGISTRY[name]
    layer = build(name)
    z = jnp.asarray(np.random.default_rng(2).standard_normal((2, *entry.shape)))
    rows = z if z.ndim > 1 else z[None]
    table = compare_gradients(layer, rows)
    assert table.agree, str(table)
    if "unrolled" not in table.missing:
        assert_agree(jax.jit(lambda z: solve(layer, z, "newton"))(z[0]), layer(z[0]), 1e-13)


REFEREED = [
    "softmax",
    "sparsemax",
    "top-k",
    "clip",
    "l2-ball",
    "soft-threshold",
    "group-soft-threshold",
]


@pytest.mark.parametrize("name", REFEREED)
def test_the_referee_agrees(name):
    layer = build(name)
    z = jnp.asarray(np.random.default_rng(2).standard_normal(REGISTRY[name].shape))
    assert_agree(solve(layer, z, "jaxopt"), layer(z), 1e-8)


# ------------------------------------------------------------------------------------ pools, attention


def test_max_pool_and_its_ties():
    x = jnp.array([[1.0, 1.0, 0.0, 5.0], [0.0, 1.0, 2.0, 3.0]])
    pool = Pool(0.0, (2, 2))
    assert_agree(pool(x), jnp.array([[1.0, 5.0]]), 0.0)
    gradient = jax.grad(lambda x: jnp.sum(pool(x)))(x)
    third = 1 / 3
    assert_agree(gradient, jnp.array([[third, third, 0, 1], [0, third, 0, 0]]), EXACT)
    overlapping = Pool(0.0, (2, 2), (1, 1))(x)
    assert_agree(overlapping, jnp.array([[1.0, 2.0, 5.0]]), 0.0)
    with pytest.raises(ValueError, match="does not fit"):
        Pool(0.0, (3, 3))(x)


def test_attention_is_softmax_of_scaled_products():
    q, k, v = (jnp.asarray(RNG.standard_normal(s)) for s in ((3, 4), (5, 4), (5, 2)))
    out = Attention()(q, k, v)
    weights = jax.nn.softmax(q @ k.T / 2.0, axis=-1)
    assert_agree(out.weights, weights, EXACT)
    assert_agree(out.output, weights @ v, EXACT)
    assert_agree(out.energy, -2.0 * jax.scipy.special.logsumexp(q @ k.T / 2.0, axis=-1), EXACT)
    assert_agree(out.entropy, -jnp.sum(weights * jnp.log(weights), axis=-1), EXACT)
    assert float(jnp.abs(out.gap).max()) <= 1e-14
    mask = jnp.array([[True] * 5, [True, True, False, False, False], [False] * 5])
    masked = Attention()(q, k, v, mask)
    assert_agree(masked.output[0], out.output[0], EXACT)
    assert_agree(masked.output[1], Attention()(q, k[:2], v[:2]).output[1], EXACT)
    assert_agree(masked.output[2], jnp.zeros(2), 0.0)
    assert float(masked.energy[2]) == np.inf
    grads = jax.grad(lambda q: jnp.sum(Attention()(q, k, v, mask).output))(q)
    assert bool(jnp.all(jnp.isfinite(grads)))


def test_legendre_dual_of_a_network_layer():
    f = LogSumExp(RNG.standard_normal((7, 2)), RNG.standard_normal(7), 0.3)
    x = jnp.array([0.2, -0.4])
    q = f.slope(x)
    assert_agree(q, jax.grad(f)(x), 1e-14)
    assert_agree(f.inverse_slope(q), x, 1e-9)
    assert_agree(f.gap(x, q), 0.0, 1e-14)
    assert float(f.gap(x, q + 0.05)) > 1e-4
    assert_agree(f.conjugate(q), f.conjugate_as_cvxpy(q).solve(solver="CLARABEL"), 1e-7)
    assert_agree(jax.grad(f.conjugate)(q), x, 1e-8)
    assert_agree(jax.hessian(f.conjugate)(q), jnp.linalg.inv(jax.hessian(f)(x)), 1e-6)
    assert float(f.conjugate(jnp.array([50.0, 0.0]))) == np.inf
    with pytest.raises(ValueError, match="linear program"):
        LogSumExp(f.W, f.b, 0.0).conjugate(q)


# ------------------------------------------------------------------------------------ bad input


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", list(REGISTRY))
def test_bad_logits_are_refused_and_nan_is_not_hidden(name):
    layer, shape = build(name), REGISTRY[name].shape
    for bad in (np.nan, np.inf):
        z = np.zeros(shape)
        z[(-1,) * len(shape)] = bad
        with pytest.raises(ValueError, match=f"found {bad}"):
            layer(z)
    with pytest.raises(ValueError, match="at least one logit"):
        layer.value(np.zeros((0,) * len(shape)))
    with pytest.raises(ValueError, match=r"must be finite and >= 0; found -0\.5"):
        REGISTRY[name].build(-0.5)
    with pytest.raises(ValueError, match="shape of the logits"):
        layer.gap(np.zeros(shape), np.zeros(3))


@pytest.mark.parametrize("name", ["softmax", "sparsemax", "entmax", "top-k", "tanh", "l2-ball"])
def test_a_traced_nan_stays_one(name):
    z = jnp.zeros(6).at[2].set(jnp.nan)
    layer = build(name)
    assert bool(jnp.isnan(jax.jit(lambda z: layer(z))(z)).any())
    assert bool(jnp.isnan(jax.jit(lambda z: layer.value(z))(z)))


@pytest.mark.usefixtures("unchecked")
def test_other_wrong_arguments():
    with pytest.raises(ValueError, match=r"`alpha` must lie in \(1, 2\]; found 1.0"):
        Entmax(1.0, 1.0)
    with pytest.raises(ValueError, match="lo < hi"):
        Clip(1.0, 2.0, 1.0)
    with pytest.raises(ValueError, match=r"engines are closed.*found 'magic'"):
        solve(Softmax(), Z[0], "magic")
    with pytest.raises(ValueError, match="has no engine `newton`"):
        solve(build("permutahedron"), Z[0], "newton")
    with pytest.raises(ValueError, match="a sum of 3 needs"):
        CappedSimplex(1.0, 3)(np.zeros(2))
    with pytest.raises(ValueError, match="positive integers"):
        Pool(1.0, (0, 2))
    with pytest.raises(ValueError, match="share their last axis"):
        Attention()(np.zeros((2, 3)), np.zeros((2, 4)), np.zeros((2, 2)))


def test_float32_stays_float32():
    for name, entry in REGISTRY.items():
        half = jnp.asarray(0.5, jnp.float32)
        layer = build(name, half)
        z = jnp.zeros(entry.shape, jnp.float32)
        if name == "permutahedron":
            layer = Permutahedron(half, jnp.arange(6, dtype=jnp.float32))
        for f in (layer, layer.value, jax.grad(layer.value)):
            assert jax.eval_shape(f, z).dtype == jnp.float32, name

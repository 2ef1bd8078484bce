r"""What each family is known to be: closed forms, ties, masks, engines, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hjcontrol.layers import (
    GELU,
    LSE,
    REGISTRY,
    Attention,
    CappedSimplex,
    Clip,
    Entmax,
    LeakyReLU,
    Permutahedron,
    Pool,
    ReLU,
    SiLU,
    Softmax,
    Softplus,
    Sparsemax,
    Tanh,
    argmax,
    build,
    compare_gradients,
    isotonic,
    legendre_as_cvxpy,
    legendre_point,
    legendre_value,
    soft_rank,
    soft_sort,
)
from hjcontrol.layers.engines import KINDS, lacks
from tests.agreement import assert_agree

RNG = np.random.default_rng(11)
Z = RNG.standard_normal((4, 6))
EXACT = 1e-14
FAMILIES = (  # one name a rule: whatever is registered shares its rules with one of these
    "softmax",
    "sparsemax",
    "entmax",
    "top-k",
    "leaky-relu",
    "tanh",
    "clip",
    "l2-ball",
    "soft-threshold",
    "group-soft-threshold",
    "permutahedron",
    "row-softmax",
)


# ------------------------------------------------------------------------------------ identities


@pytest.mark.smoke
def test_values_and_argmaxes_are_the_usual_activations():
    @jax.jit
    def pairs(z):
        signed = jax.nn.softmax(jnp.stack([z, -z]) / 0.5, axis=0)
        return [
            (Softplus(0.5).values(z), 0.5 * jax.nn.softplus(z / 0.5)),
            (Softplus(0.5)(z), jax.nn.sigmoid(z / 0.5)),
            (ReLU().values(z), jax.nn.relu(z)),
            (LeakyReLU(0.0, 0.1).values(z), jax.nn.leaky_relu(z, 0.1)),
            (Tanh(0.5)(z), jnp.tanh(z / 0.5)),
            (Tanh(0.5)(z), signed[0] - signed[1]),
            (Clip(1.0)(z), jax.nn.hard_tanh(z)),
            (Softmax(0.5)(z), jax.nn.softmax(z / 0.5)),
            (Entmax(0.7, 2.0)(z), Sparsemax(0.7)(z)),
            (CappedSimplex(0.7, 1)(z), Sparsemax(0.7)(z)),
            (SiLU()(z), jax.nn.silu(z)),
            (GELU()(z), jax.nn.gelu(z, approximate=False)),
            (SiLU(0.0)(z), jax.nn.relu(z)),
            (GELU(0.0)(z), jax.nn.relu(z)),
        ]

    for ours, usual in pairs(Z[0]):
        assert_agree(ours, usual, EXACT)


def test_silu_and_gelu_are_neither_values_nor_argmaxes():
    @jax.jit
    def look(x):
        slopes = [
            (jax.vmap(jax.grad(f))(x), jax.vmap(jax.grad(jax.grad(f)))(x)) for f in (SiLU(), GELU())
        ]
        p, value = Softplus(1.0)(x), Softplus(1.0).values(x)
        entropy = -(p * jnp.log(p) + (1 - p) * jnp.log1p(-p))
        return slopes, SiLU()(x), value - entropy

    slopes, silu, energy = jax.device_get(look(np.linspace(-6.0, 6.0, 401)))
    for first, second in slopes:
        assert first.min() < -0.05  # not monotone: no argmax
        assert second.min() < -0.02  # not convex: no value
    assert_agree(silu, energy, 1e-12)


def test_entmax_tends_to_softmax():
    apart = lambda z, a: jnp.abs(Entmax(0.5, a)(z) - Softmax(0.5)(z)).max()
    gaps = jax.jit(lambda z: [apart(z, a) for a in (1.1, 1.01)])(Z[0])
    assert gaps[1] < 0.15 * gaps[0] < 0.1


def minimax(y):
    """The nearest non-increasing vector: min over j <= i of max over k >= i of mean(y_j .. y_k)."""
    n = y.shape[0]
    total = jnp.concatenate([jnp.zeros(1, y.dtype), jnp.cumsum(y)])
    j, k = jnp.arange(n)[:, None], jnp.arange(n)[None]
    means = (total[None, 1:] - total[:-1, None]) / jnp.maximum(k - j + 1, 1)
    spans = jnp.where(k >= j, means, -jnp.inf)
    above = jax.lax.cummax(spans, axis=1, reverse=True)  # over k >= i
    return jnp.min(jnp.where(j <= k, above, jnp.inf), axis=0)


def test_isotonic_against_the_minimax_formula_and_sklearn():
    from sklearn.isotonic import IsotonicRegression

    y = RNG.standard_normal((6, 15))
    every = jax.jit(
        lambda y: (jax.vmap(isotonic)(y), jax.vmap(minimax)(y), jax.jacobian(isotonic)(y[0]))
    )
    pav, witness, jacobian = every(y)
    assert_agree(pav, witness, EXACT)
    theirs = [IsotonicRegression(increasing=False).fit_transform(np.arange(15), row) for row in y]
    assert_agree(pav, np.stack(theirs), EXACT)
    assert_agree(jacobian @ jacobian, jacobian, 1e-14)  # a projection: means over blocks
    assert_agree(jacobian.sum(1), np.ones(15), 1e-14)


def test_soft_sort_and_soft_rank():
    x, tied = np.array([0.3, 2.0, -1.0, 0.9]), np.array([1.0, 1.0, 0.0, -9.0])
    both = jax.jit(jax.vmap(lambda x, eps: (soft_rank(x, eps), soft_sort(x, eps))))
    ranks, sorts = both(np.stack([x, tied, x, x, x]), np.array([1e-3, 0.0, 0.0, 5.0, 1e9]))
    assert_agree(ranks[0], jnp.array([3.0, 1.0, 4.0, 2.0]), EXACT)
    assert_agree(ranks[1], jnp.array([1.5, 1.5, 3.0, 4.0]), 0.0)
    assert_agree(sorts[0], np.sort(x)[::-1], EXACT)
    assert_agree(sorts[2], np.sort(x)[::-1], 0.0)
    assert_agree(jnp.sum(sorts[3]), x.sum(), EXACT)
    assert_agree(sorts[4], np.full(4, x.mean()), 1e-8)


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
    z, step = jnp.array([2.0, 0.0, 2.0, -1.0]), 2.0**-20

    @jax.jit
    def look(z, moves):
        face = layer.face(z)
        ahead = jax.vmap(lambda dz: layer.value(z + step * dz))(moves)
        slopes = jax.vmap(lambda dz: layer.directional(z, dz))(moves)
        return face.ties, face.unique, layer(z), slopes, (ahead - layer.value(z)) / step

    moves = jnp.asarray(np.stack([Z[0, :4], -Z[0, :4], Z[1, :4]]))
    tied, unique, p, slopes, differences = look(z, moves)
    assert list(np.asarray(tied).astype(int)) == ties
    assert bool(unique) == (sum(ties) == 0)
    assert_agree(p, np.array(argmax, float), EXACT)
    assert_agree(slopes, differences, 1e-9)


def test_masked_entries_are_as_if_absent():
    z = np.array([0.3, -np.inf, 1.0, -np.inf, 0.9])
    few = z[np.isfinite(z)]
    layers = Softmax(0.2), Softmax(0.0), Sparsemax(0.5), Entmax(0.5), CappedSimplex(0.5, 2)

    @jax.jit
    def look(z, few):
        whole = [
            (L(z), L.value(z), jax.grad(lambda z, L=L: jnp.sum(L(z) ** 2))(z), L.certify(z))
            for L in layers
        ]
        return whole, [(L(few), L.value(few)) for L in layers]

    for (p, value, gradient, found), (q, least) in zip(*look(z, few), strict=True):
        assert_agree(p[jnp.array([0, 2, 4])], q, EXACT)
        assert_agree(value, least, EXACT)
        assert float(jnp.abs(p[jnp.array([1, 3])]).max()) == 0.0
        assert np.isfinite(gradient).all()
        assert found.verdict == "optimal"


# ------------------------------------------------------------------------------------ engines, routes


def warm(name):
    return build(name, REGISTRY[name].eps or 0.3)


def drawn(name, samples):
    shape = REGISTRY[name].shape
    return jnp.asarray(np.random.default_rng(2).standard_normal((samples, *shape)))


@pytest.mark.parametrize("name", FAMILIES)
def test_routes_and_engines_agree(name):  #: engines 2e-16, routes 2e-15
    layer, z = warm(name), drawn(name, 3)
    table = compare_gradients(layer, z)
    assert table.agree, str(table)
    assert table.missing == ()
    assert np.linalg.norm(table.gradients["closed"]) > 0.1
    both = jax.jit(jax.vmap(lambda z: (argmax(layer, z, "newton"), layer(z))))
    assert_agree(*both(z), 1e-14)


def test_every_kind_of_program_is_compared_and_has_every_engine():
    kinds = lambda names: {(L.kind, type(getattr(L, "phi", None))) for L in map(warm, names)}
    assert kinds(FAMILIES) == kinds(REGISTRY)
    assert {kind for kind, _ in kinds(REGISTRY)} == set(KINDS) - {"section"}
    for (
        name,
        kind,
    ) in KINDS.items():  # a section is somebody's own: no peer, and Newton is its closed form
        assert (None in kind) == (name == "section")


def test_a_route_that_forgets_a_bound_is_refuted():
    """The twin: the projection differentiated as though no coordinate were held."""
    layer, z = warm("clip"), drawn("clip", 3)
    table = compare_gradients(layer, z, others={"unbounded": lambda z: z / layer.eps})
    assert any(str(v) == "refuted: unbounded" for v in table.verdict)


@pytest.mark.parametrize(
    ("name", "eps"),
    [
        *((name, None) for name in FAMILIES if name not in ("leaky-relu", "row-softmax")),
        ("sparsemax", 0.0),
        ("tanh", 0.0),
        ("l2-ball", 0.0),
    ],
)
def test_the_referee_agrees(name, eps):
    layer = warm(name) if eps is None else build(name, eps)
    z = drawn(name, 1)[0]
    assert_agree(argmax(layer, z, "jaxopt"), layer(z), 1e-8)


def test_an_engine_that_has_no_meaning_is_refused_with_the_reason():
    for name in REGISTRY:
        why = lacks(build(name, 0.0), "newton")
        assert why is None if name == "l2-ball" else "piecewise linear" in why
        assert lacks(warm(name), "newton") is None
        assert lacks(warm(name), "jaxopt") is None
    for name in ("soft-threshold", "group-soft-threshold", "permutahedron"):
        with pytest.raises(ValueError, match=r"no engine `jaxopt`: at `eps = 0`"):
            argmax(build(name, 0.0), drawn(name, 1)[0], "jaxopt")
    with pytest.raises(ValueError, match=r"Softmax has no engine `newton`: at `eps = 0`"):
        argmax(Softmax(0.0), Z[0], "newton")


def test_a_masked_row_has_no_weights_by_any_engine():
    z = jnp.array([[0.3, -jnp.inf, 1.0], [-jnp.inf] * 3])
    layer = build("row-softmax")
    for solved in jax.jit(lambda z: (layer(z), argmax(layer, z, "newton")))(z):
        assert_agree(solved[1], jnp.zeros(3), 0.0)
        assert_agree(solved[0], Softmax(0.5)(z[0]), EXACT)


# ------------------------------------------------------------------------------------ pools, attention


def test_max_pool_and_its_ties():
    x = jnp.array([[1.0, 1.0, 0.0, 5.0], [0.0, 1.0, 2.0, 3.0]])
    pool = Pool(0.0, (2, 2))
    whole = lambda x: (pool(x), jax.grad(lambda x: jnp.sum(pool(x)))(x))
    pooled, gradient, overlapping = jax.jit(lambda x: (*whole(x), Pool(0.0, (2, 2), (1, 1))(x)))(x)
    assert_agree(pooled, jnp.array([[1.0, 5.0]]), 0.0)
    third = 1 / 3
    assert_agree(gradient, jnp.array([[third, third, 0, 1], [0, third, 0, 0]]), EXACT)
    assert_agree(overlapping, jnp.array([[1.0, 2.0, 5.0]]), 0.0)
    with pytest.raises(ValueError, match="does not fit"):
        Pool(0.0, (3, 3))(x)


def test_attention_is_softmax_of_scaled_products():
    q, k, v = (jnp.asarray(RNG.standard_normal(s)) for s in ((3, 4), (5, 4), (5, 2)))
    mask = jnp.array([[True] * 5, [True, True, False, False, False], [False] * 5])

    @jax.jit
    def look(q, k, v, mask):
        weights = jax.nn.softmax(q @ k.T / 2.0, axis=-1)
        usual = {
            "weights": weights,
            "output": weights @ v,
            "energy": -2.0 * jax.scipy.special.logsumexp(q @ k.T / 2.0, axis=-1),
            "entropy": -jnp.sum(weights * jnp.log(weights), axis=-1),
        }
        masked = lambda q: Attention()(q, k, v, mask)
        slope = jax.grad(lambda q: jnp.sum(masked(q).output))(q)
        few = Attention()(q, k[:2], v[:2]).output[1]
        return Attention()(q, k, v), usual, masked(q), few, slope

    out, usual, masked, few, slope = look(q, k, v, mask)
    for name, want in usual.items():
        assert_agree(getattr(out, name), want, EXACT)
    assert float(jnp.abs(out.gap).max()) <= 1e-14
    assert_agree(masked.output[0], out.output[0], EXACT)
    assert_agree(masked.output[1], few, EXACT)
    assert_agree(masked.output[2], jnp.zeros(2), 0.0)
    assert float(masked.energy[2]) == np.inf
    assert np.isfinite(slope).all()


def test_legendre_dual_of_a_network_layer():
    f = LSE(RNG.standard_normal((7, 2)), RNG.standard_normal(7), 0.3)
    x = jnp.array([0.2, -0.4])
    dual = lambda q: legendre_value(f, q)

    @jax.jit
    def look(x):
        q = f.slope(x)
        value, inverse = jax.value_and_grad(dual)(q)
        found = {"inverse": legendre_point(f, q), "by envelope": inverse}
        second = jax.jacfwd(lambda q: legendre_point(f, q))(q) @ jax.hessian(f)(x)
        off = jax.vmap(dual)(jnp.stack([q + 0.05, jnp.array([50.0, 0.0])]))
        return q, jax.grad(f)(x), f(x) + value - q @ x, value, found, second, off

    q, slope, gap, value, inverses, second, off = look(x)
    assert_agree(q, slope, 1e-14)
    for inverse in inverses.values():
        assert_agree(inverse, x, 1e-9)
    assert_agree(gap, 0.0, 1e-14)
    assert float(f(x) + off[0] - (q + 0.05) @ x) > 1e-4
    assert float(off[1]) == np.inf
    assert_agree(value, legendre_as_cvxpy(f, q).solve(solver="CLARABEL"), 1e-7)
    assert_agree(second, np.eye(2), 1e-6)  # D2 f* and D2 f are inverse to each other
    with pytest.raises(ValueError, match="linear program"):
        legendre_value(LSE(f.W, f.b, 0.0), q)


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
    with pytest.raises(ValueError, match=r"must be >= 0; found -0\.5"):
        REGISTRY[name].build(-0.5)
    with pytest.raises(ValueError, match="shape of the logits"):
        layer.gap(np.zeros(shape), np.zeros(3))


def test_a_traced_nan_stays_one():
    z = jnp.zeros(6).at[2].set(jnp.nan)
    layers = [build(n) for n in ("softmax", "sparsemax", "entmax", "top-k", "tanh", "l2-ball")]
    for p, value in jax.jit(lambda z: [(L(z), L.value(z)) for L in layers])(z):
        assert bool(jnp.isnan(p).any())
        assert bool(jnp.isnan(value))


@pytest.mark.usefixtures("unchecked")
def test_other_wrong_arguments():
    with pytest.raises(ValueError, match=r"`alpha` must lie in \(1, 2\]; found 1.0"):
        Entmax(1.0, 1.0)
    with pytest.raises(ValueError, match="lo < hi"):
        Clip(1.0, 2.0, 1.0)
    with pytest.raises(ValueError, match=r"engines are closed.*found 'magic'"):
        argmax(Softmax(), Z[0], "magic")
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

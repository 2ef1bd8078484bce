r"""Laws of initial data and of the dictionary.

f + u = x.A^{-1}x/(4t), u from (y, g) alone        weights -> data -> weights is the identity at any t
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hjcontrol.deformation import lse
from hjcontrol.hamilton_jacobi import (
    Anisotropic,
    HalfQuadratic,
    InitialData,
    Norm,
    Quadratic,
    Relativistic,
    Scaled,
    c_transform,
    data_of_layer,
    density,
    envelope,
    hopf_cole,
    hopf_cole_batch,
    hopf_lax,
    layer_of_data,
    merge,
    pde_residual,
    plane_waves,
)
from tests.agreement import assert_agree

A = np.array([[2.0, 0.5, 0.0], [0.5, 1.0, 0.2], [0.0, 0.2, 0.7]])
METRICS = {
    "house": (Quadratic(), np.eye(3)),
    "half": (HalfQuadratic(), np.eye(3) / 2),
    "anisotropic": (Anisotropic(A), A),
    "scaled": (Scaled(Anisotropic(A), 3.0), 3 * A),
}


@pytest.fixture
def layer(key):
    one, two, three = jax.random.split(key, 3)
    x = jax.random.normal(three, (9, 3))
    return jax.random.normal(one, (6, 3)), jax.random.normal(two, (6,)), x


# ------------------------------------------------------------------------------------ round trips


@pytest.mark.parametrize("name", METRICS)
def test_weights_to_data_to_weights_at_any_time(name, layer):
    W, b, _ = layer

    @jax.jit
    def round_trip(t, eps):
        trips = []
        for normalisation in ("raw", "mean", "heat"):
            how = {"eps": eps, "normalisation": normalisation, "H": METRICS[name][0]}
            data = data_of_layer(W, b, t, **how)
            back = layer_of_data(data, t, **how)
            trips.append((data, back, data_of_layer(*back, t, **how)))
        return trips

    for t, eps in ((1e-2, 0.3), (1.0, 0.0), (40.0, 5.0)):
        for data, back, again in round_trip(t, eps):
            assert_agree((back.W, back.b), (W, b), 1e-12)
            assert_agree((again.atoms, again.values), (data.atoms, data.values), 1e-12)


@pytest.mark.parametrize("name", METRICS)
def test_f_plus_u_is_the_quadratic(name, layer):
    """`f` from the weights, `u` by Hopf-Cole from the atoms: neither is computed from the other."""
    W, b, X = layer
    H, metric = METRICS[name]

    def both(x, eps, t):
        sides = []
        for how in ("raw", "mean", "heat"):
            data = data_of_layer(W, b, t, eps=eps, normalisation=how, H=H)
            sides.append(hopf_cole(data, x, t, eps, normalisation=how, H=H))
        return lse(W @ x + b, eps), jnp.stack(sides)

    cases = jnp.asarray([(0.0, 1.0), (0.2, 0.3), (2.0, 5.0)])
    at = jax.jit(jax.vmap(jax.vmap(both, (0, None, None)), (None, 0, 0)))
    f, u = at(X[:3], *cases.T)
    few = np.asarray(X[:3])
    square = np.sum(few * np.linalg.solve(metric, few.T).T, axis=1) / (4 * np.asarray(cases)[:, 1:])
    gap = np.abs(np.asarray(f)[..., None] + np.asarray(u) - square[..., None])
    assert (gap <= 4e-14 * np.maximum(1.0, np.asarray(square))[..., None]).all()


@pytest.mark.smoke
def test_published_identity():
    """Section 2: four neurons in one dimension, f + u = x^2/(4t) to 1e-14."""
    y, g = np.array([-1.5, -0.5, 0.5, 1.5]), np.array([1.0, 0.3, 0.3, 1.0])
    W, b = layer_of_data(InitialData(y[:, None], g), 1.0)
    X = jnp.linspace(-2.5, 2.5, 500)[:, None]
    at = jax.jit(
        lambda eps: (
            lse(X @ W.T + b[None, :], eps),
            jax.vmap(
                lambda x: hopf_cole(InitialData(y[:, None], g), x, 1.0, eps, normalisation="raw")
            )(X),
        )
    )
    published = {1.0: 0.9552, 0.5: 0.3887, 0.2: 0.13883, 0.1: 0.069265, 0.05: 0.034607}
    hard, _ = at(0.0)
    for eps, rise in published.items():
        f, u = at(eps)
        assert float(jnp.max(jnp.abs(f + u - X[:, 0] ** 2 / 4))) <= 1e-14
        assert float(jnp.max(f - hard)) == pytest.approx(rise, abs=5e-5)
        assert bool(jnp.all((f - hard >= 0) & (f - hard <= eps * np.log(4) * (1 + 1e-15))))


@jax.jit
def heat_identity(W, b, data, x, t, eps):
    return lse(W @ x + b, eps) + hopf_cole(data, x, t, eps) - x @ x / (4 * t)


@pytest.mark.parametrize("fault", ["sign of the square", "time halved", "gauge twice"])
def test_twins_a_wrong_dictionary_is_caught(fault, layer):
    W, b, X = layer
    t, eps = 0.7, 0.3
    data = data_of_layer(W, b, t, eps=eps, normalisation="heat")
    square = t * jnp.sum(W**2, axis=1)
    wrong = {
        "sign of the square": InitialData(data.atoms, data.values + 2 * square),
        "time halved": InitialData(data.atoms / 2, data.values),
        "gauge twice": InitialData(
            data.atoms, data.values - 1.5 * eps * np.log(4 * np.pi * eps * t)
        ),
    }[fault]
    gap = heat_identity(W, b, wrong, X[0], t, eps)
    assert float(jnp.abs(heat_identity(W, b, data, X[0], t, eps))) < 1e-14
    assert abs(float(gap)) > 1e-2


def test_masses_are_biases(layer):
    W, b, X = layer
    m, eps, t = jnp.array([0.5, 2.0, 1.0, 3.0, 0.1, 0.0]), 0.4, 0.6
    data = InitialData(2 * t * W, b, m)
    back = layer_of_data(data, t, eps=eps)
    assert np.isneginf(float(back.b[-1]))
    u = hopf_cole(data, X[0], t, eps, normalisation="raw")
    assert_agree(lse(back.W @ X[0] + back.b, eps) + u, X[0] @ X[0] / (4 * t), 1e-14)
    five = InitialData(data.atoms[:5], data.values[:5], m[:5])
    assert_agree(hopf_cole(five, X[0], t, eps), hopf_cole(data, X[0], t, eps), 1e-15)


# ---------------------------------------------------------------------------- what stays open


def test_neither_time_nor_hamiltonian_is_determined_by_a_layer(layer):
    """Data read at three times for three Hamiltonians reproduce one layer; evolved, they part."""
    W, b, X = layer
    x, eps = X[0], 0.3
    f, later = [], []
    for t, (H, metric) in zip((0.2, 1.0, 5.0), list(METRICS.values())[:3], strict=True):
        data = data_of_layer(W, b, t, eps=eps, normalisation="heat", H=H)
        inverse = np.linalg.inv(metric)
        f.append(x @ inverse @ x / (4 * t) - hopf_cole(data, x, t, eps, H=H))
        later.append(x @ inverse @ x / (8 * t) - hopf_cole(data, x, 2 * t, eps, H=H))
    assert_agree(f, [f[0]] * 3, 1e-13)
    assert np.ptp(np.asarray(later)) > 0.1


def test_plane_waves_solve_the_equation_without_a_gauge(layer):
    W, b, X = layer

    @jax.jit
    def residual(x, s, eps, sign):
        u = lambda a, r: -plane_waves(W, b, a, sign * r + 3.0 * (1 - sign) / 2, eps)
        return pde_residual(u, x, s, eps).relative

    for eps in (1e-2, 0.4, 10.0):
        assert float(residual(X[0], 0.7, eps, 1.0)) <= 1e-14
    assert float(residual(X[0], 0.7, 0.4, -1.0)) > 1e-2  # twin: time runs backwards


def test_plane_waves_at_eps_zero_take_any_hamiltonian(layer):
    W, b, X = layer
    for H in (Relativistic(), Norm(2.0)):
        u = lambda a, r, H=H: -plane_waves(W, b, a, r, 0.0, H=H)
        at = jax.jit(lambda x, u=u, H=H: pde_residual(u, x, 0.7, 0.0, H=H).relative)
        for x in X[:3]:
            assert float(at(x)) <= 1e-14
    with pytest.raises(ValueError, match="quadratic Hamiltonian"):
        plane_waves(W, b, X[0], 0.7, 0.1, H=Norm(2.0))


# ------------------------------------------------------------------------------------ merging, envelope


raw_sums = jax.jit(
    jax.vmap(lambda D, x, e: hopf_cole(D, x, 0.7, e, normalisation="raw"), (None, 0, None))
)


@pytest.mark.parametrize("eps", [0.0, 0.05, 2.0])
def test_merging_equal_atoms_changes_nothing(eps, layer):
    W, b, X = layer
    data = InitialData(W[jnp.array([0, 1, 1, 2, 1, 0, 3])], jnp.arange(7.0) / 3)
    data = InitialData(data.atoms, data.values, jnp.array([1.0, 2.0, 0.5, 1.0, 1.0, 0.0, 1.0]))
    merged = merge(data, eps)
    assert merged.atoms.shape == (4, 3)
    assert_agree(raw_sums(merged, X, eps), raw_sums(data, X, eps), 1e-14)
    doubled = InitialData(jnp.repeat(W, 3, axis=0), jnp.repeat(b, 3))
    assert_agree(
        jnp.sort(merge(doubled, eps).values), jnp.sort(b - eps * np.log(3)), 1e-14
    )  # the multiplicity, which a naive read-off would report as g


def test_merging_close_atoms_joins_chains(layer):
    W, b, _ = layer
    near = InitialData(jnp.concatenate([W, W + 1e-7, W + 2e-7]), jnp.tile(b, 3))
    assert merge(near, 0.3, tol=3e-7).atoms.shape == (6, 3)
    assert merge(near, 0.3, tol=1e-9).atoms.shape == (18, 3)


def test_the_envelope_is_the_convex_hull_of_the_lifted_atoms():
    """d = 1: the lower hull of (y, g + y^2/(4t)) by its own definition, chord by chord."""
    y = np.linspace(-2, 2, 9)
    g, t = np.cos(3 * y), 1.0
    lift = g + y**2 / 4
    hull = lift.copy()
    for j in range(9):
        for i in range(j):
            for k in range(j + 1, 9):
                s = (y[j] - y[i]) / (y[k] - y[i])
                hull[j] = min(hull[j], (1 - s) * lift[i] + s * lift[k])
    found = envelope(InitialData(y[:, None], g), t)
    assert_agree(found.values, hull - y**2 / 4, 1e-12)
    assert_agree(found.active, hull >= lift - 1e-12)
    assert not bool(found.active.all())


def test_only_active_atoms_are_seen(layer):
    data = InitialData(layer[2], jnp.cos(3 * jnp.arange(9.0)))
    seen = envelope(data, 0.4)
    kept = InitialData(data.atoms[seen.active], data.values[seen.active])
    X = 3 * jax.random.normal(jax.random.key(1), (200, 3))
    u = [hopf_cole_batch(d, X, 0.4, 0.0) for d in (data, kept)]
    assert_agree(u[0], u[1], 1e-14)
    # and the witness of an active atom is a point of its cell: the lower bound is attained there
    at = seen.witness[seen.active]
    below = c_transform(at, hopf_cole_batch(data, at, 0.4, 0.0), 0.4, kept.atoms)
    assert_agree(below, kept.values, 1e-10)
    dropped = InitialData(kept.atoms[1:], kept.values[1:])  # twin: an active atom is missed
    assert float(jnp.max(jnp.abs(hopf_cole_batch(dropped, X, 0.4, 0.0) - u[0]))) > 1e-3


# ------------------------------------------------------------------------------------ refusals

ONE = InitialData(np.zeros((1, 2)), np.zeros(1))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: InitialData(np.zeros((0, 2)), np.zeros(0)), "an atom"),
        (
            lambda: InitialData(np.zeros(3), np.zeros(3)),
            "atoms. must be an array of floats of shape .N, d",
        ),
        (
            lambda: InitialData(np.zeros((3, 1)), np.zeros(2)),
            "values. must be an array of floats of shape .N",
        ),
        (lambda: InitialData([[np.nan]], [0.0]), "atom must be finite"),
        (lambda: InitialData([[0.0]], [-np.inf]), "finite or \\+inf"),
        (lambda: InitialData([[0.0]], [np.nan]), "finite or \\+inf"),
        (lambda: InitialData([[0.0]], [0.0], [-1.0]), "mass is finite and >= 0"),
        (lambda: data_of_layer(np.ones((2, 2)), np.ones(2), 0.0), "t` must be > 0; found 0"),
        (lambda: data_of_layer(np.ones((2, 2)), np.ones(2), -1.0), "t. must be > 0"),
        (
            lambda: data_of_layer(np.ones((2, 2)), np.ones(3), 1.0),
            "b. must be an array of floats of shape .N",
        ),
        (lambda: data_of_layer(np.full((1, 1), np.nan), np.ones(1), 1.0), "must be finite"),
        (lambda: data_of_layer(np.ones((1, 1)), np.ones(1), 1.0, eps=-1.0), "eps. must be >= 0"),
        (lambda: data_of_layer(np.ones((1, 1)), np.ones(1), 1.0, H=Norm(2.0)), "quadratic"),
        (
            lambda: data_of_layer(np.ones((1, 2)), np.ones(1), 1.0, H=Anisotropic(A)),
            r"shape .(d, d|2, 2)",
        ),
        (lambda: layer_of_data(ONE, 1.0, normalisation="kernel"), "'raw', 'mean', 'heat'"),
        (lambda: hopf_cole(ONE, jnp.zeros(3), 1.0, 0.1), "dimension 2"),
        (lambda: hopf_cole(ONE, jnp.zeros(2), -1.0, 0.1), "t. must be > 0"),
        (lambda: hopf_cole(ONE, jnp.zeros(2), 1.0, -0.1), "eps. must be >= 0"),
        (lambda: hopf_cole(ONE, jnp.zeros(2), 1.0, 0.1, H=Relativistic()), "quadratic"),
        (lambda: hopf_cole_batch(ONE, jnp.zeros((4, 3)), 1.0, 0.1), "dimension 2"),
        (lambda: hopf_lax(ONE, jnp.zeros(2), np.nan), "t. must be > 0"),
        (lambda: density(jnp.sum, [0.0], [0.0], 5), "lower < upper"),
        (lambda: density(jnp.sum, [0.0], [1.0], 1), "n >= 2"),
        (lambda: merge(InitialData([[0.0]], [np.inf]), 0.1), "no atom has mass"),
        (lambda: merge(ONE, -0.1), "eps` must be >= 0; found -0.1"),
        (lambda: jax.jit(lambda d: merge(d, 0.1))(ONE), "outside `jit`"),
        (lambda: envelope(ONE, 0.0), "t. must be > 0"),
        (lambda: plane_waves(np.ones((2, 2)), np.ones(2), jnp.ones(2), -1.0, 0.1), "s >= 0"),
        (
            lambda: pde_residual(lambda x, t: t, jnp.ones(2), 1.0, 0.1, A=jnp.eye(3)),
            r"shape .(d, d|2, 2)",
        ),
    ],
)
def test_bad_input_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()

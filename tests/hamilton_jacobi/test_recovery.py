"""Laws of recovery: what comes back, what cannot, and the published experiment, amended."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from hjcontrol.deformation import lse
from hjcontrol.hamilton_jacobi import (
    InitialData,
    c_transform,
    data_of_layer,
    envelope,
    hopf_cole_batch,
    merge,
    recover,
)
from tests.agreement import assert_agree

Y = jnp.linspace(-2.0, 2.0, 9)[:, None]
X = jnp.linspace(-8.0, 8.0, 400)[:, None]


@pytest.mark.parametrize(
    "g", [lambda y: jnp.abs(y), lambda y: jnp.cos(3 * y)], ids=["convex", "wavy"]
)
def test_values_at_eps_zero_give_the_envelope_and_no_more(g):
    data = InitialData(Y, g(Y[:, 0]))
    u = hopf_cole_batch(data, X, 1.0, 0.0)
    found, seen = c_transform(X, u, 1.0, Y), envelope(data, 1.0)
    assert bool(jnp.all(found <= seen.values + 1e-12))
    assert_agree(found[seen.active], data.values[seen.active], 1e-12)
    again = hopf_cole_batch(InitialData(Y, found), X, 1.0, 0.0)
    assert_agree(again, u, 1e-12)  # and yet it reproduces u
    if not bool(seen.active.all()):
        assert float(jnp.max(data.values - found)) > 0.5  # what is lost


@pytest.mark.parametrize("normalisation", ["raw", "heat"])
def test_well_spaced_atoms_come_back_at_positive_eps(normalisation):
    data = InitialData(Y, jnp.abs(Y[:, 0]))
    u = hopf_cole_batch(data, X, 1.0, 0.1, normalisation=normalisation)
    found = recover(X, u, 1.0, 0.1, Y, normalisation=normalisation)
    assert float(found.condition) < 1e3
    assert int(found.rank) == 9
    assert float(found.misfit) <= 1e-10
    assert_agree(found.data.values, data.values, 1e-10)
    other = "raw" if normalisation == "heat" else "heat"
    twin = recover(X, u, 1.0, 0.1, Y, normalisation=other)
    assert float(jnp.max(jnp.abs(twin.data.values - data.values))) > 0.005


def test_close_atoms_do_not_and_the_condition_says_so():
    """The same error of 1e-4 in u: spoils g where the condition is bad, and not where it is good."""
    near = jnp.linspace(-2.0, 2.0, 41)[:, None]
    noise = 1e-4 * jax.random.normal(jax.random.key(0), (400,))
    off = []
    for y, eps in ((near, 1.0), (Y, 0.1)):
        u = hopf_cole_batch(InitialData(y, jnp.abs(y[:, 0])), X, 1.0, eps)
        found = recover(X, u + noise, 1.0, eps, y)
        off.append(float(jnp.max(jnp.abs(found.data.values - jnp.abs(y[:, 0])))))
        assert float(found.misfit) <= 1e-3  # u is reproduced all the same
        assert (float(found.condition) > 1e12) == (int(found.rank) < len(y)) == (eps == 1.0)
    assert off[0] > 0.5
    assert off[1] < 1e-2


def test_the_condition_grows_with_eps():
    grown = []
    for eps in (0.02, 0.1, 0.5):
        u = hopf_cole_batch(InitialData(Y, jnp.abs(Y[:, 0])), X, 1.0, eps)
        grown.append(float(recover(X, u, 1.0, eps, Y).condition))
    assert grown == sorted(grown)
    assert grown[-1] > 10 * grown[0]


def test_published_target_has_two_atoms_only():
    """Section 16: on the window only y = +-2/7 is ever active: the target is |x|/7 - 15/49."""
    y = jnp.linspace(-2.0, 2.0, 8)[:, None]
    x = jnp.linspace(-2.4, 2.4, 400)
    u = hopf_cole_batch(InitialData(y, jnp.abs(y[:, 0])), x[:, None], 1.0, 0.0)
    assert_agree(x**2 / 4 - u, jnp.abs(x) / 7 - 15 / 49, 1e-15)


def test_published_recovery_by_training_with_the_duplicates_merged():
    """Section 16: 10 neurons fitted to that target; merged, they tell g at two places only."""
    x = jnp.linspace(-2.4, 2.4, 400)
    target = jnp.abs(x) / 7 - 15 / 49

    @jax.jit
    def loss(w, eps):
        f = lse(x[:, None] * w[None, :10] + w[None, 10:], eps)
        return jnp.mean((f - target) ** 2)

    both = jax.jit(jax.value_and_grad(loss))
    published = {
        0.5: (4.23e-4, 0.522, 0.528),
        0.1: (1.01e-4, 0.323, 0.313),
        0.04: (1.58e-5, 0.294, 0.291),
    }
    for eps, (mse, place, value) in published.items():
        best = min(
            (
                scipy.optimize.minimize(
                    lambda w, eps=eps: [np.asarray(a, float) for a in both(jnp.asarray(w), eps)],
                    np.random.default_rng(seed).normal(size=20) * np.repeat([0.4, 0.2], 10),
                    jac=True,
                    method="L-BFGS-B",
                    options={"maxiter": 400, "ftol": 1e-16, "gtol": 1e-10},
                )
                for seed in range(2)
            ),
            key=lambda r: r.fun,
        )
        assert best.fun == pytest.approx(mse, rel=0.2)
        data = data_of_layer(jnp.asarray(best.x[:10, None]), jnp.asarray(best.x[10:]), 1.0)
        merged = merge(data, eps, tol=0.15)
        near = jnp.argmin(jnp.abs(jnp.abs(merged.atoms[:, 0]) - place))
        assert float(jnp.abs(merged.atoms[near, 0])) == pytest.approx(place, abs=0.02)
        assert float(merged.values[near]) == pytest.approx(value, abs=0.02)
        # twin: a single neuron's value is off by eps log of its multiplicity
        spread = jnp.max(data.values) - value
        assert float(spread) > 0.3 * eps


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda u: c_transform(X, u, 0.0, Y), "t. must be > 0"),
        (lambda u: c_transform(X, u[:3], 1.0, Y), "u. must be an array of floats of shape .n"),
        (lambda u: recover(X, u, 1.0, 0.0, Y), "`c_transform`"),
        (lambda u: recover(X, u, 1.0, 0.1, Y, ridge=-1.0), "ridge. must be >= 0"),
        (lambda u: recover(X, u, 1.0, 0.1, Y, normalisation="mean"), "'heat' or 'raw'"),
        (lambda u: recover(X, u.at[0].set(jnp.nan), 1.0, 0.1, Y), "finite"),
        (lambda u: jax.jit(lambda u: recover(X, u, 1.0, 0.1, Y))(u), "outside `jit`"),
    ],
)
def test_bad_input_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make(X[:, 0] ** 2 / 4)

"""`LSE`: one class for a soft maximum of affine functions, under its old names too."""

import importlib

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hjcontrol.deformation import LSE, gibbs, lse
from hjcontrol.hamilton_jacobi import InitialData, MaxAffine, layer_of_data
from hjcontrol.networks import Dense, LSEUnits, soft_maximum

W, B = np.random.default_rng(0).normal(size=(5, 2)), np.linspace(-1, 1, 5)
X = jnp.asarray(np.random.default_rng(1).normal(size=(7, 2)))


@pytest.mark.parametrize("eps", [0.0, 0.3])
def test_value_weights_and_slope_are_those_of_the_scores(eps):
    f = LSE(W, B, eps)

    @jax.jit
    def look(x):
        z = W @ x + B
        own = f(x), f.scores(x), f.weights(x), f.slope(x), jax.grad(f)(x)
        return own, (lse(z, eps), z, gibbs(z, eps), W.T @ gibbs(z, eps), W.T @ gibbs(z, eps))

    ours, by_hand = jax.vmap(look)(X)
    for a, b in zip(ours, by_hand, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-14, atol=1e-14)


def test_at_eps_zero_it_is_the_max_affine_function_with_ties_shared():
    tied = MaxAffine(np.array([[1.0], [3.0], [1.0]]), np.array([0.0, -2.0, -5.0]))
    assert float(tied(jnp.ones(1))) == 1.0
    assert float(jax.grad(tied)(jnp.ones(1))[0]) == 2.0
    assert np.array_equal(jax.vmap(MaxAffine(W, B))(X), np.max(np.asarray(X) @ W.T + B, axis=1))


def test_a_stage_a_dense_layer_and_the_class_are_one_function():
    stage, theta = soft_maximum(2, 5, 0.3), soft_maximum(2, 5, 0.3).init(jax.random.key(0))
    assert isinstance(stage, Dense)
    assert isinstance(stage.units, LSEUnits)
    assert np.array_equal(stage.step(X[0], theta), LSE(theta.W, theta.b, 0.3)(X[0])[None])


def test_a_solution_at_one_time_is_a_layer_with_that_temperature():
    layer = layer_of_data(InitialData(jnp.asarray(W), jnp.asarray(B)), 0.7, eps=0.3)
    slopes, offsets = layer
    assert (slopes is layer.W, offsets is layer.b, float(layer.eps)) == (True, True, 0.3)


def test_a_sweep_of_temperatures_compiles_once():
    traces = []

    @eqx.filter_jit
    def value(f, x):
        traces.append(1)
        return f(x)

    assert len({float(value(LSE(W, B, eps), X[0])) for eps in (0.0, 0.1, 0.2)}) == 3
    assert len(traces) == 1


@pytest.mark.parametrize(
    ("room", "old", "new"),
    [
        ("layers", "LogSumExp", LSE),
        ("hamilton_jacobi", "Layer", LSE),
        ("networks", "LogSumExp", LSEUnits),
        ("networks", "Hidden", Dense),
        ("solvers.convex", "SoftMaximum", soft_maximum),
    ],
)
def test_an_old_name_warns_and_gives_the_new_one(room, old, new):
    module = importlib.import_module(f"hjcontrol.{room}")
    with pytest.warns(DeprecationWarning, match=f"{old} is now hjcontrol"):
        assert getattr(module, old) is new
    assert old not in dir(module)

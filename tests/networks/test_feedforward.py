r"""Plain layers with a temperature: `eps = 0` is legal, and depth loses no more than the bound says.

|F_eps - F_0| <= sum_l eps log N_l prod_{k>l} max_j |W^k_j|_1        error falls like eps
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hjcontrol.networks import Chain, Dense, LSEUnits, SoftplusUnits, depth_bound, readout
from tests.agreement import assert_agree

X = jnp.asarray(np.random.default_rng(1).standard_normal((200, 3)))


def stack(eps):
    return [
        Dense(3, 6, SoftplusUnits(eps)),
        Dense(6, 5, LSEUnits(3, eps)),
        Dense(5, 5, SoftplusUnits(eps)),
        readout(5, 2),
    ]


@pytest.fixture(scope="module")
def network():
    draw = np.random.default_rng(2)
    chain = Chain(stack(0.1), X[0])
    shapes = jax.eval_shape(chain.init, jax.eval_shape(lambda: jax.random.key(0)))
    thetas = jax.tree.map(
        lambda a: jnp.asarray(0.6 * draw.standard_normal(a.shape[1:])), shapes
    )  # one entry a run, and every run is one stage

    @jax.jit
    def outputs(eps):
        x = X
        for stage, theta in zip(stack(eps), thetas, strict=True):
            x = jax.vmap(lambda u, stage=stage, theta=theta: stage.step(u, theta))(x)
        return x, depth_bound(stack(eps), thetas)

    return thetas, outputs


def test_the_error_of_depth_is_within_its_bound_and_falls_like_eps(network):
    thetas, outputs = network
    hard, nothing = outputs(0.0)
    assert float(nothing) == 0
    x = np.asarray(X)  # the hard network by hand: relu, max of three, relu, affine
    a, b, c, d = [(np.asarray(t.W), np.asarray(t.b)) for t in thetas]
    x = np.maximum(x @ a[0].T + a[1], 0)
    x = (x @ b[0].T + b[1]).reshape(len(x), 5, 3).max(axis=2)
    x = np.maximum(x @ c[0].T + c[1], 0) @ d[0].T + d[1]
    assert_agree(hard, x, 1e-14)
    errors, bounds = [], []
    for eps in (0.4, 0.04, 4e-4, 4e-5):
        soft, bound = outputs(eps)
        errors.append(float(jnp.max(jnp.abs(soft - hard))))
        bounds.append(float(bound))
        assert 0 < errors[-1] <= bounds[-1]
    assert_agree(np.array(bounds) / bounds[0], np.array([1, 0.1, 1e-3, 1e-4]), 1e-13)
    assert errors[3] <= 0.11 * errors[2]
    # The twin: without the rows of later weights the bound fails.
    bare = 0.4 * (2 * np.log(2) + np.log(3))
    assert bounds[0] > 3 * bare
    scaled = [t._replace(W=5 * t.W) for t in thetas]
    far = lambda eps: stack_out(eps, scaled)
    assert np.abs(far(0.4) - far(0.0)).max() > bare


def stack_out(eps, thetas):
    @jax.jit
    def run(eps):
        x = X
        for stage, theta in zip(stack(eps), thetas, strict=True):
            x = jax.vmap(lambda u, stage=stage, theta=theta: stage.step(u, theta))(x)
        return x

    return np.asarray(run(eps))


def test_sweeping_the_temperature_does_not_recompile(network):
    traced = 0

    @eqx.filter_jit
    def value(stage, x):
        nonlocal traced
        traced += 1
        theta = network[0][0]
        return stage.step(x, theta)

    for eps in (0.5, 0.1, 0.0):
        assert np.all(np.isfinite(value(Dense(3, 6, SoftplusUnits(eps)), X[0])))
    assert traced == 1


@pytest.mark.usefixtures("unchecked")
def test_a_stage_without_a_temperature_has_no_bound(network):
    thetas = network[0]
    with pytest.raises(ValueError, match=r"stage 0 \(Dense\) has no temperature and is not affine"):
        depth_bound([Dense(3, 6)], thetas[:1])
    with pytest.raises(ValueError, match="`out_size` must be >= 1; found 0"):
        Dense(3, 0, SoftplusUnits(1.0))

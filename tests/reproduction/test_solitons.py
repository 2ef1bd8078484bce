"""The KP identity: holds for every layer of one input, on the moment curve, and nowhere else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hjcontrol.hamilton_jacobi.dictionary import plane_waves
from hjcontrol.layers import LSE
from hjcontrol.reproduction.questions import solitons
from tests.agreement import assert_agree
from tests.analysis.pieces import layer, points
from tests.oracles.hirota import hirota

EPS = 0.7


@pytest.fixture(scope="module")
def residual():
    return jax.jit(jax.vmap(lambda a, x, y, s: solitons.kp(a, x, y, s), in_axes=(None, 0, 0, 0)))


def curve(d, bend=0.0):
    """Slopes `(k, k^2, k^3)` of d inputs, times eps; `bend` moves the last off the curve."""
    k = np.random.default_rng(5).normal(size=7)
    W = EPS * k[:, None] ** np.arange(1, d + 1)
    W[:, -1] += bend * np.cos(7 * k)
    return LSE(W, np.linspace(-1, 1, 7), EPS)


def test_every_layer_of_one_input_is_a_tau_function(residual):
    x, (y, s) = points(32, d=1), 0.3 * points(32, seed=2, d=2).T
    for seed in range(4):  # one program
        assert float(jnp.max(residual(layer(seed, EPS, d=1), x, y, s).relative)) <= 1e-12


@pytest.mark.parametrize("d", [2, 3])
def test_on_the_moment_curve_and_not_off_it(residual, d):
    x, zero = points(8, d=d), jnp.zeros(8)
    on, off = residual(curve(d), x, zero, zero), residual(curve(d, 0.1), x, zero, zero)
    assert float(jnp.max(on.relative)) <= 1e-12
    assert float(jnp.max(on.off_curve)) <= 1e-12
    assert float(jnp.min(off.relative)) > 1e-5  # the twin
    generic = residual(layer(3, EPS, d=d), x, zero, zero)
    assert float(jnp.min(generic.relative)) > 1e-2
    assert float(jnp.min(generic.off_curve)) > 1e-2


@pytest.mark.parametrize("d", [1, 3])
def test_the_sum_is_hirotas_form(d):
    """Against derivatives of the partition function, where it vanishes and where it does not."""
    a = layer(3, EPS, d=d)

    @jax.jit
    def both(x, y, s):
        k = solitons.flows(a)
        phi = lambda x, y, s: jax.nn.logsumexp(k @ jnp.stack([x, y, s]) + a.b / EPS)
        at = (x[None], y, s) if d == 1 else (jnp.stack([x, y, s]),)
        return solitons.kp(a, *at), hirota(phi, x, y, s)

    found, (form, field) = both(0.3, 0.2, -0.1)
    assert abs(float(found.residual - form)) <= 1e-11 * float(found.size)
    assert_agree(found.field, field)
    assert "KP identity" in str(found)


def test_the_second_flow_is_the_viscous_equations_plane_wave():
    a, time = layer(2, EPS, d=1), 0.6

    @jax.jit
    def both(x):
        klm = solitons.flows(a)
        log_tau = jax.nn.logsumexp(klm[:, 0] * x[0] + klm[:, 1] * (EPS * time) + a.b / EPS)
        return EPS * log_tau, plane_waves(a.W, a.b, x, time, EPS)

    assert_agree(*both(jnp.array([0.4])))


def test_curvature_is_half_eps_times_the_field():
    a, x = layer(2, EPS, d=1), jnp.array([0.4])
    both = jax.jit(
        lambda s: (jax.grad(jax.grad(lambda s: a(s[None])))(s), solitons.kp(a, s[None]).field)
    )
    second, field = both(x[0])
    assert_agree(second, 0.5 * EPS * field)


@pytest.mark.usefixtures("unchecked")
def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"found 4.*Restrict"):
        solitons.kp(layer(0, EPS, d=4), jnp.zeros(4))
    with pytest.raises(ValueError, match="found eps = 0"):
        solitons.kp(layer(0, 0.0, d=1), jnp.zeros(1))
    with pytest.raises(ValueError, match="one of them"):
        solitons.kp(layer(0, EPS, d=2), jnp.zeros(2), 0.5)

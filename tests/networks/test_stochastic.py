"""Noise is viscosity: closed forms for a linear drift and a quadratic cost, within the error bar."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hjcontrol as hj
from hjcontrol.networks import StochasticResidual, brownian, scatter, soft_mean
from tests.agreement import assert_agree

NU, EPS, H, K, M = 0.3, 0.7, 0.125, 8, 40_000
A = -0.8  # dX = A X dt + sqrt(2 nu) dB
S = 1.3  # Phi = S x^2 / 2


def soft_value(x, mean, variance):
    """`-eps log E exp(-Phi(Z)/eps)` for Z ~ N(mean x, variance), in closed form."""
    spread = 1 + S * variance / EPS
    return S * (mean * x) ** 2 / (2 * spread) + EPS / 2 * jnp.log(spread)


def phi(x):
    return S * jnp.sum(x**2) / 2


@pytest.fixture(scope="module")
def paths():
    """The soft mean of many paths, as a function of the drift's slope, and what each path pays."""
    stages = [scatter(M), *[StochasticResidual((lambda x, a: a * x, A), H, NU, particles=True)] * K]
    noise = brownian(jax.random.key(5), 1, K, (M, 1))
    problem = hj.ControlProblem(
        stages, jnp.ones((1, 1)), terminal=soft_mean(phi, EPS), forcing=noise
    )
    weights = problem.init(jax.random.key(0))
    value, gradient = jax.jit(lambda w: jax.value_and_grad(problem.objective)(w))(weights)
    paid = jax.vmap(phi)(problem.rollout(weights).final[0])
    return float(value), float(jnp.sum(gradient[1])), np.exp(-np.asarray(paid) / EPS)


def gaussian(a):
    """Mean and variance of the Euler-Maruyama chain itself, of K steps."""
    r = 1 + H * a
    return r**K, 2 * NU * H * (1 - r ** (2 * K)) / (1 - r**2)


def test_the_soft_mean_is_the_closed_form_within_its_error_bar(paths):
    value, _, w = paths
    bar = EPS * w.std() / w.mean() / np.sqrt(M)
    assert abs(value - soft_value(1.0, *gaussian(A))) < 4 * bar
    r = 1 + H * A
    half = 0.5 * 2 * NU * H * (1 - r ** (2 * K)) / (1 - r**2)
    assert abs(value - soft_value(1.0, r**K, half)) > 20 * bar  # the twin: noise sqrt(nu) dB


def test_the_pathwise_gradient_is_the_closed_forms(paths):
    expected = jax.grad(lambda a: soft_value(1.0, *gaussian(a)))(A)
    assert abs(paths[1] - expected) < 0.02 * abs(expected)


def test_the_value_solves_the_viscous_equation():
    def V(x, t):  # t = time from the start of the path, T = 1; OU's mean and variance
        left = 1.0 - t
        return soft_value(x, jnp.exp(A * left), NU * (jnp.exp(2 * A * left) - 1) / A)

    @jax.jit
    @jax.vmap
    def parts(x, t):
        slope, rate = jax.grad(V, argnums=(0, 1))(x, t)
        return rate + A * x * slope, slope**2, jax.grad(jax.grad(V))(x, t)

    transport, square, laplacian = parts(jnp.linspace(-2, 2, 9), jnp.linspace(0.0, 0.9, 9))
    residual = lambda nu, eps: transport - nu / eps * square + nu * laplacian
    assert_agree(residual(NU, EPS), 0 * square)
    assert np.abs(residual(-NU, EPS)).max() > 0.1
    assert np.abs(residual(NU, -EPS)).max() > 0.1


def test_costates_along_a_noisy_path_are_exact():
    stages = [StochasticResidual((lambda x, w: jnp.tanh(w @ x), jnp.eye(3)), 0.5, 0.1)] * 3
    x = jax.random.normal(jax.random.key(1), (4, 3))
    problem = hj.ControlProblem(
        stages,
        x,
        terminal=lambda a: jnp.sum(a**2),
        forcing=brownian(jax.random.key(2), 4, 3, (3,)),
    )
    weights = problem.init(jax.random.key(0))
    certificate = hj.verify(problem, weights)
    assert certificate.verdict == "exact"
    assert max(certificate.agreement.values()) < 1e-11


def test_the_plain_mean_is_the_limit_of_an_infinite_temperature():
    x = jnp.asarray([[1.0], [2.0], [4.0]])
    assert_agree(soft_mean(phi, jnp.inf)(x), jnp.mean(jax.vmap(phi)(x)))
    assert abs(soft_mean(phi, 1e6)(x) - jnp.mean(jax.vmap(phi)(x))) < 1e-3


@pytest.mark.parametrize(("h", "nu"), [(0.0, 0.1), (0.1, -0.1), (float("nan"), 0.1)])
def test_bad_input(h, nu):
    with pytest.raises(ValueError, match="StochasticResidual"):
        StochasticResidual(lambda x: x, h, nu)
    with pytest.raises(ValueError, match="must be"):
        soft_mean(phi, 0.0)
    with pytest.raises(ValueError, match="must be"):
        scatter(0)

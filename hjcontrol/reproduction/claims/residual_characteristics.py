r"""x_{l+1} = x_l + h f(x_l): Euler's method for characteristics of H(x, p) = p.f(x), viscosity 0.

V(x, s) = Phi(flow of x over [s, 1]) solves V_s + f.grad V = 0;   a network of step h misses it by O(h)
"""

import jax
import jax.numpy as jnp
import numpy as np

from hjcontrol.networks import Chain, Dense, Residual
from hjcontrol.networks.dense import AffineWeights
from hjcontrol.reproduction import by_hand
from hjcontrol.reproduction.claim import Claim, Evidence, Picture, evidence
from hjcontrol.reproduction.finding import equal, zero

A, C = np.array([[0.6, -1.1], [0.9, 0.3]]), np.array([0.2, -0.4])
X = np.random.default_rng(4).uniform(-1, 1, (20, 2))
DEPTHS = (8, 16, 32, 64)


def _field(x):
    return jnp.tanh(A @ x + C)


@jax.jit
def _value(x, s):
    """Phi at the end of the characteristic from (x, s), by 200 steps of Runge and Kutta."""
    h = (1.0 - s) / 200

    def step(a, _):
        k1 = _field(a)
        k2 = _field(a + h / 2 * k1)
        k3 = _field(a + h / 2 * k2)
        return a + h / 6 * (k1 + 2 * k2 + 2 * k3 + _field(a + h * k3)), None

    return jnp.sum(jax.lax.scan(step, x, None, length=200)[0] ** 2)


@jax.jit
def _transport(x, sign):
    s = jnp.asarray(0.3)
    p = jax.vmap(jax.grad(_value), (0, None))(x, s)
    rate = jax.vmap(jax.grad(_value, argnums=1), (0, None))(x, s)
    return rate + sign * jnp.sum(p * jax.vmap(_field)(x), axis=1)


def _network(depth: int, length: float) -> np.ndarray:
    stage = Residual(Dense(2, 2, jnp.tanh), length / depth)
    chain = Chain([stage] * depth, jax.ShapeDtypeStruct((2,), jnp.result_type(float)))

    @jax.jit
    def ends(A, C, x):
        weights = chain.stack([AffineWeights(A, C)] * depth)
        return jax.vmap(chain, in_axes=(None, 0))(weights, x)

    return np.asarray(ends(A, C, X))


def _measure(sign: float, length: float = 1.0) -> Evidence:
    """The network's depth is the time `length`; the characteristics' is 1."""
    residual = np.asarray(_transport(X, sign))
    exact = np.asarray(jax.jit(jax.vmap(_value, (0, None)))(X, jnp.asarray(0.0)))
    errors = [np.abs((_network(n, length) ** 2).sum(1) - exact).max() for n in DEPTHS]
    order = -by_hand.slope(np.array(DEPTHS), np.array(errors))
    return evidence(
        zero("V_s + f·∇V", residual, 1e-10),
        equal("order of the network's error in h", order, 1.0, 0.1),
        picture=Picture(
            "A residual network against the characteristics.",
            "depth",
            "error of V",
            {"error": (np.array(DEPTHS), np.array(errors))},
            x_log=True,
            y_log=True,
        ),
    )


CLAIM = Claim(
    id="residual-characteristics",
    title="Residual networks integrate characteristics",
    source="abstract; main text",
    published="x + h f(x) is a step along the characteristics of a Hamilton–Jacobi equation.",
    precise="Of H(x, p) = p·f(x), linear in p, with viscosity 0: V(x, s) = Φ(flow) solves V_s + "
    "f·∇V = 0, and a network of step h misses it by O(h). Not of the layer's H = |p|².",
    check=lambda fast: _measure(1.0),
    fault="f enters the transport equation with the opposite sign, and the network's steps are too long",
    control=lambda fast: Evidence(_measure(-1.0, 1.2).findings[:2]),
    recorded="holds exactly",
)

r"""Adam on the mean square of a log-sum-exp layer, the seeds of one width side by side.

data   4000 + 800 points of default_rng(42 + d), uniform on [-2, 2]^d;  target |x|
start  default_rng(seed + 100 d):  W ~ N(0, 0.25/d), b ~ N(0, 0.09);  3000 steps at 0.006
"""

import functools
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np

from hjcontrol.layers import LSE

STEPS, RATE = 3000, 0.006


def data(d: int) -> tuple[np.ndarray, np.ndarray]:
    """Training points `(4000, d)` and test points `(800, d)`."""
    rng = np.random.default_rng(42 + d)
    return rng.uniform(-2, 2, (4000, d)), rng.uniform(-2, 2, (800, d))


def start(d: int, N: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights `(N, d)` and biases `(N,)` before training."""
    rng = np.random.default_rng(seed + 100 * d)
    return rng.standard_normal((N, d)) * (0.5 / np.sqrt(d)), rng.standard_normal(N) * 0.3


@functools.partial(jax.jit, static_argnames="steps")
def _train(x, y, W, b, eps, steps):
    def gradient(W, b):
        z = (x @ W.T + b[None, :]) / eps
        top = jnp.max(z, axis=1, keepdims=True)
        e = jnp.exp(jnp.maximum(z - top, -80.0))
        total = jnp.sum(e, axis=1)
        r = (2 / len(x)) * (eps * (jnp.log(total) + top[:, 0]) - y) / total
        both = e.T @ jnp.concatenate([r[:, None] * x, r[:, None]], axis=1)
        return both[:, :-1], both[:, -1]

    def step(k, state):
        theta, m, v = state
        g = gradient(*theta)
        m = jax.tree.map(lambda a, s: 0.9 * a + 0.1 * s, m, g)
        v = jax.tree.map(lambda a, s: 0.999 * a + 0.001 * s * s, v, g)
        rate = RATE * jnp.sqrt(1 - 0.999**k) / (1 - 0.9**k)
        small = 1e-8 * jnp.sqrt(1 - 0.999**k)
        theta = jax.tree.map(lambda t, a, c: t - rate * a / (jnp.sqrt(c) + small), theta, m, v)
        return theta, m, v

    zero = jax.tree.map(jnp.zeros_like, (W, b))
    return jax.lax.fori_loop(1, steps + 1, step, ((W, b), zero, zero))[0]


@jax.jit
def _values(x, W, b, eps):
    return jax.vmap(LSE(W, b, eps))(x)


def trained_errors(d: int, N: int, eps: float, seeds: int, steps: int = STEPS) -> float:
    """Least root mean square error on the test points over `seeds` starts."""
    x, test = data(d)

    def error(seed: int) -> float:
        with jax.enable_x64(True):  # a thread does not inherit it
            trained = _train(x, np.linalg.norm(x, axis=1), *start(d, N, seed), eps, steps)
            out = np.asarray(_values(test, *trained, eps))
        return float(np.sqrt(np.mean((out - np.linalg.norm(test, axis=1)) ** 2)))

    with ThreadPoolExecutor(2) as pool:  # one seed a core: a step has little to share between them
        return min(pool.map(error, range(seeds)))

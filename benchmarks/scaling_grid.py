"""Trained exponents on an (N, eps) grid: what the width does, and what a schedule eps = N^-1/d imposes.

The published experiment: |x| (d = 1) or the Euclidean norm on [-2, 2]^d, one log-sum-exp layer, Adam at
0.006 for 3000 steps on the whole sample, the best of several starts. There eps = N^-1/d; here every N at
every eps.

    python scaling_grid.py [--samples 4000] [--starts 5] [--dimension 1]
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
import optax
from harness import header, row

from hjcontrol.deformation import lse
from hjcontrol.reproduction.questions.scaling import scaling

WIDTHS = {1: (4, 10, 25, 50, 100, 200), 2: (10, 20, 50, 100, 200)}
EPSILONS = (0.25, 0.1, 0.04, 0.02, 0.01)


def trained(width: int, d: int, X, keys, steps: int = 3000):
    """Root-mean-square errors of one start a key, at one `eps` a call; compiled once a width."""
    y = jnp.linalg.norm(X, axis=1)
    adam = optax.adam(0.006)

    def loss(theta, eps):
        W, b = theta
        z = X @ W.T + b[None, :]
        return jnp.mean((lse(z, eps) - y) ** 2)

    def one(key, eps):
        a, c = jax.random.split(key)
        theta = (
            0.5 / np.sqrt(d) * jax.random.normal(a, (width, d)),
            0.3 * jax.random.normal(c, (width,)),
        )

        def step(carry, _):
            theta, state = carry
            update, state = adam.update(jax.grad(loss)(theta, eps), state)
            return (optax.apply_updates(theta, update), state), None

        (theta, _), _ = jax.lax.scan(step, (theta, adam.init(theta)), None, length=steps)
        return jnp.sqrt(loss(theta, eps))

    run = jax.jit(jax.vmap(one, in_axes=(0, None)))
    return [np.asarray(run(keys, jnp.asarray(eps))) for eps in EPSILONS]


if __name__ == "__main__":
    ask = argparse.ArgumentParser()
    ask.add_argument("--samples", type=int, default=4000)
    ask.add_argument("--starts", type=int, default=5)
    ask.add_argument("--dimension", type=int, default=1)
    given = ask.parse_args()
    header("Scaling on a grid: trained root-mean-square error")
    d = given.dimension
    X = jnp.asarray(np.random.default_rng(42 + d).uniform(-2, 2, (given.samples, d)))
    keys = jax.random.split(jax.random.key(100 * d), given.starts)
    errors = []
    for width in WIDTHS[d]:
        errors.append(trained(width, d, X, keys))
        for eps, found in zip(EPSILONS, errors[-1], strict=True):
            row(d=d, N=width, eps=eps, best_rmse=float(found.min()), worst_rmse=float(found.max()))
    grid = np.array(errors)
    found = scaling(WIDTHS[d], EPSILONS, grid, key=jax.random.key(0))
    print(found)
    print(found.schedule(1.0 / d))
    print("of the best start only:")
    print(scaling(WIDTHS[d], EPSILONS, grid.min(axis=2), key=jax.random.key(0)).schedule(1.0 / d))

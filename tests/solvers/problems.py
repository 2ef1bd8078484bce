"""Small problems that the solver tests share, one shape each so that compilations are reused."""

import jax
import jax.numpy as jnp

import hjcontrol as hj
from hjcontrol.networks import Dense, Residual, lift, readout


def rings(samples: int = 40, width: int = 4, depth: int = 3, ridge: float = 1e-2, **options):
    """Two noisy rings, told apart by a small residual network."""
    angle, radius, noise = jax.random.split(jax.random.key(7), 3)
    labels = jnp.arange(samples) % 2
    turn = jax.random.uniform(angle, (samples,), maxval=2 * jnp.pi)
    size = 1.0 + labels + 0.1 * jax.random.normal(radius, (samples,))
    points = jnp.stack([size * jnp.cos(turn), size * jnp.sin(turn)], axis=1)
    points = points + 0.05 * jax.random.normal(noise, points.shape)
    stages = [lift(2, width), *[Residual(Dense(width, width), 0.5)] * depth, readout(width, 2)]
    return hj.ControlProblem(
        stages,
        points,
        labels,
        terminal=hj.control.softmax_cross_entropy,
        **({"running": hj.control.Ridge(ridge)} | options),
    )


def linear_regression(samples: int = 30, ridge: float = 0.1):
    """One affine stage, least squares, ridge: a closed form exists."""
    x, y = jax.random.split(jax.random.key(3))
    inputs = jax.random.normal(x, (samples, 3))
    targets = jax.random.normal(y, (samples, 2))
    return hj.ControlProblem(
        [readout(3, 2)],
        inputs,
        targets,
        terminal=hj.control.least_squares,
        running=hj.control.Ridge(ridge),
    )

"""Networks to state laws about: every kind of stage, widths that change, states that are pytrees."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from hjcontrol.networks import Dense, Residual, lift, readout


class Bilinear(eqx.Module):
    """A user's own module."""

    A: jax.Array
    name: str = eqx.field(static=True, default="mine")

    def __call__(self, x):
        return jnp.tanh(self.A @ x) * x


def halve(x):
    """A user's plain function, without weights."""
    return 0.5 * x


def scale(x, theta):
    """A user's function of state and weights."""
    return theta["gain"] * jnp.sin(x) + theta["bias"]


def matrix(width, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(width, width)) / np.sqrt(width))


def mixed(width=4):
    """Every kind of piece in one chain: widths 3, 4, 4, ..., 2."""
    gain = {"gain": jnp.full(width, 0.7), "bias": jnp.full(width, 0.1)}
    return [
        lift(3, width),
        Residual(Dense(width, width), 0.5),
        Residual(Dense(width, width), 0.25),
        Bilinear(matrix(width)),
        halve,
        (scale, gain),
        (scale, gain),
        Dense(width, 5, jax.nn.softplus),
        readout(5, 2),
    ]


def residual(depth, width=4, h=0.5):
    return [lift(3, width), *[Residual(Dense(width, width), h)] * depth, readout(width, 2)]

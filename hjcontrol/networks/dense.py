r"""Affine maps and plain layers.

    step(x, (W, b)) = sigma(W x + b)          W ~ N(0, 1/in),  b = 0

sigma = identity gives the lift (inputs to the state's width) and the readout (state to outputs).
Hidden units may be permuted, and their signs flipped where sigma is odd.
"""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from hjcontrol._ground.arguments import admits
from hjcontrol.networks.stage import AbstractStage, Symmetry


class AffineWeights(NamedTuple):
    """Weights of an affine map `W x + b`."""

    W: Float[Array, "*stages out in"]
    b: Float[Array, "*stages out"]


def identity(x: Array) -> Array:
    """The activation that does nothing."""
    return x


@admits(in_size=">= 1", out_size=">= 1")
class Dense(AbstractStage):
    """A plain layer `activation(W x + b)` from `in_size` to `out_size` units.

    **Example:**

        >>> import jax, jax.numpy as jnp, hjcontrol as hj
        >>> stage = hj.networks.Dense(2, 3)
        >>> theta = stage.init(jax.random.key(0))
        >>> stage.step(jnp.ones(2), theta).shape, theta.W.shape
        ((3,), (3, 2))
    """

    in_size: int = eqx.field(static=True)
    out_size: int = eqx.field(static=True)
    activation: Callable[[Array], Array] = eqx.field(static=True)

    def __init__(
        self, in_size: int, out_size: int, activation: Callable[[Array], Array] = jnp.tanh
    ):
        self.in_size, self.out_size, self.activation = int(in_size), int(out_size), activation

    def step(self, x: Float[Array, " in"], theta: AffineWeights) -> Float[Array, " out"]:
        return self.after(x, theta.W @ x + theta.b)

    @property
    def affine(self) -> bool:
        return True

    def after(self, x: Float[Array, " in"], a: Float[Array, " out"]) -> Float[Array, " out"]:
        del x
        return self.activation(a)

    def init(self, key: Key[Array, ""]) -> AffineWeights:
        W = jax.random.normal(key, (self.out_size, self.in_size)) / np.sqrt(self.in_size)
        return AffineWeights(W, jnp.zeros(self.out_size, W.dtype))

    def symmetry(self) -> Symmetry:
        return Symmetry(tied=False, odd=_is_odd(self.activation))

    def relabel(self, theta: AffineWeights, inward, outward) -> AffineWeights:
        (inp, ins), (out, outs) = inward, outward
        W = theta.W[out][:, inp]
        return AffineWeights(outs[:, None] * W * ins[None, :], outs * theta.b[out])


@admits(in_size=">= 1", width=">= 1")
def lift(in_size: int, width: int) -> Dense:
    """Affine map from the inputs to the state.

    **Example:**

        >>> import jax, hjcontrol as hj
        >>> hj.networks.lift(64, 6).init(jax.random.key(0)).W.shape
        (6, 64)
    """
    return Dense(in_size, width, identity)


@admits(width=">= 1", out_size=">= 1")
def readout(width: int, out_size: int) -> Dense:
    """Affine map from the state to the outputs.

    **Example:**

        >>> import jax, hjcontrol as hj
        >>> hj.networks.readout(6, 10).init(jax.random.key(0)).W.shape
        (10, 6)
    """
    return Dense(width, out_size, identity)


def _is_odd(activation: Callable[[Array], Array]) -> bool:
    x = jnp.linspace(0.1, 3.1, 7, dtype=jnp.float32)
    return bool(np.array_equal(np.asarray(activation(-x)), -np.asarray(activation(x))))

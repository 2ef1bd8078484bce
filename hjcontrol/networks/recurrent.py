r"""Recurrent cells, as stages that read the next input: depth is the sequence's own time.

    RNN    h' = phi(W h + U u + b)
    GRU    h' = (1 - z) h + z g           r, z = s(..),  g = tanh(U_g u + b_g + W_g (r h))
    LSTM   c' = f c + i g,  h' = o tanh c'                 i, f, o = s(W h + U u + b),  g = tanh(..)

h, c  state, of width `width` each; the LSTM's state is the array (h, c), shape (2, width)
u     the step's input, read from the problem's forcing: it has no costate
s     the sigmoid: the gradient of lse((0, .), 1), a Gibbs weight of two atoms

A recurrence is a cell `Tied` in time. Each step is Euler's with step 1 along the drift F(x) - x, so
H = p.(F(x) - x), linear in p, viscosity 0. Exact: the GRU's step is a mean of h and g under two-atom
Gibbs weights; tanh is the mean spin of two atoms. The LSTM's is such a mean only where i = 1 - f; its
cell alone has the costate f p', so a memory decays at the rate -log f. All else is structural.
"""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from hjcontrol._ground.arguments import admits
from hjcontrol.networks.stage import AbstractStage, Reads


class RecurrentWeights(NamedTuple):
    """`W` of the state, `U` of the input, `b`; gates one under another, `rows = gates * width`."""

    W: Float[Array, "*stages rows width"]
    U: Float[Array, "*stages rows in"]
    b: Float[Array, "*stages rows"]


def _drawn(key: Key[Array, ""], rows: int, width: int, in_size: int) -> RecurrentWeights:
    a, b = jax.random.split(key)
    W = jax.random.normal(a, (rows, width)) / np.sqrt(width)
    U = jax.random.normal(b, (rows, in_size)) / np.sqrt(in_size)
    return RecurrentWeights(W, U, jnp.zeros(rows, W.dtype))


@admits(in_size=">= 1", width=">= 1")
class RNN(AbstractStage):
    """The plain cell, `h' = activation(W h + U u + b)`."""

    in_size: int = eqx.field(static=True)
    width: int = eqx.field(static=True)
    activation: Callable[[Array], Array] = eqx.field(static=True)

    def __init__(self, in_size: int, width: int, activation: Callable[[Array], Array] = jnp.tanh):
        self.in_size, self.width = int(in_size), int(width)
        self.activation = activation

    @property
    def reads(self) -> Reads:
        return "forcing"

    def init(self, key: Key[Array, ""]) -> RecurrentWeights:
        return _drawn(key, self.width, self.width, self.in_size)

    def step(
        self, x: Float[Array, " width"], theta: RecurrentWeights, u: Float[Array, " in"]
    ) -> Float[Array, " width"]:
        return self.activation(theta.W @ x + theta.U @ u + theta.b)


@admits(in_size=">= 1", width=">= 1")
class GRU(AbstractStage):
    """The gated recurrent unit. Rows of the weights: reset r, update z, candidate g."""

    in_size: int = eqx.field(static=True)
    width: int = eqx.field(static=True)

    def __init__(self, in_size: int, width: int):
        self.in_size, self.width = int(in_size), int(width)

    @property
    def reads(self) -> Reads:
        return "forcing"

    def init(self, key: Key[Array, ""]) -> RecurrentWeights:
        return _drawn(key, 3 * self.width, self.width, self.in_size)

    def step(
        self, x: Float[Array, " width"], theta: RecurrentWeights, u: Float[Array, " in"]
    ) -> Float[Array, " width"]:
        z, g = self.gates(x, theta, u)
        return (1 - z) * x + z * g

    def gates(
        self, x: Float[Array, " width"], theta: RecurrentWeights, u: Float[Array, " in"]
    ) -> tuple[Float[Array, " width"], Float[Array, " width"]]:
        """The update gate `z` and the candidate `g`: the drift is `z (g - h)`."""
        d = self.width
        fixed = theta.U @ u + theta.b
        r, z = jnp.split(jax.nn.sigmoid(theta.W[: 2 * d] @ x + fixed[: 2 * d]), 2)
        return z, jnp.tanh(theta.W[2 * d :] @ (r * x) + fixed[2 * d :])


@admits(in_size=">= 1", width=">= 1")
class LSTM(AbstractStage):
    """Long short-term memory. State (h, c); rows of the weights: input i, forget f, output o, g.

    The forget gate's bias starts at 1, so that a new memory lasts.
    """

    in_size: int = eqx.field(static=True)
    width: int = eqx.field(static=True)

    def __init__(self, in_size: int, width: int):
        self.in_size, self.width = int(in_size), int(width)

    @property
    def reads(self) -> Reads:
        return "forcing"

    def init(self, key: Key[Array, ""]) -> RecurrentWeights:
        theta = _drawn(key, 4 * self.width, self.width, self.in_size)
        return theta._replace(b=theta.b.at[self.width : 2 * self.width].set(1))

    def step(
        self, x: Float[Array, "2 width"], theta: RecurrentWeights, u: Float[Array, " in"]
    ) -> Float[Array, "2 width"]:
        i, f, o, g = self.gates(x, theta, u)
        c = f * x[1] + i * g
        return jnp.stack([o * jnp.tanh(c), c])

    def gates(
        self, x: Float[Array, "2 width"], theta: RecurrentWeights, u: Float[Array, " in"]
    ) -> tuple[Array, Array, Array, Array]:
        """Input, forget and output gate, and the candidate `g`."""
        parts = jnp.split(theta.W @ x[0] + theta.U @ u + theta.b, 4)
        i, f, o = (jax.nn.sigmoid(a) for a in parts[:3])
        return i, f, o, jnp.tanh(parts[3])


class Output(AbstractStage):
    """The output `h` of an LSTM's state (h, c); no weights."""

    def init(self, key: Key[Array, ""]) -> tuple[()]:
        del key
        return ()

    def step(self, x: Float[Array, "2 width"], theta: tuple[()]) -> Float[Array, " width"]:
        del theta
        return x[0]

"""Recurrent networks, as declared architectures: one cell, tied in time, reads features row by row."""

import abc

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from hjcontrol._ground.arguments import admits
from hjcontrol.networks.architectures.declaration import (
    AbstractArchitecture,
    Read,
    framed,
    rows,
    transport,
)
from hjcontrol.networks.chain import Tied
from hjcontrol.networks.dense import Dense, readout
from hjcontrol.networks.log_semiring import LogSemiring
from hjcontrol.networks.recurrent import GRU, LSTM, RNN, Output
from hjcontrol.networks.state_space import DiagonalSSM


class AbstractRecurrent(AbstractArchitecture):
    """A cell that reads a row of features a step, from the state 0; then what reads its last state."""

    @abc.abstractmethod
    def after(self) -> list:
        """Stages from the last state to the logits."""

    @property
    @abc.abstractmethod
    def state(self) -> tuple[int, ...]:
        """Shape of the state."""

    def read(self, features):
        features = jnp.asarray(features)
        n = features.shape[0]
        forcing = features.reshape(n, *rows(self.in_size))
        return Read(jnp.zeros((n, *self.state), features.dtype), forcing)

    def stages(self):
        return [Tied(self.cell, rows(self.in_size)[0]), *self.after()]

    @property
    def viscosity(self):
        return jnp.zeros(())


@admits(in_size=">= 1", classes=">= 1", width=">= 1")
class RNNNetwork(AbstractRecurrent):
    r"""`h' = tanh(W h + U u + b)`."""

    in_size: int = eqx.field(static=True)
    classes: int = eqx.field(static=True)
    width: int = eqx.field(static=True, default=12)

    name = "rnn"
    drift = "tanh(W h + U u + b) - h"
    energy = "p.b"
    noise = "0"
    exact = "tanh = mean spin of two atoms; tied gradient = sum over time"
    structural = "time steps as an equation: the step is 1"

    @property
    def cell(self) -> RNN:
        return RNN(rows(self.in_size)[1], self.width)

    @property
    def state(self):
        return (self.width,)

    def after(self):
        return [readout(self.width, self.classes)]

    def hamiltonian(self, x, p, theta, u=None):
        return transport(self.cell, x, p, theta, u)


@admits(in_size=">= 1", classes=">= 1", width=">= 1")
class GRUNetwork(AbstractRecurrent):
    r"""`h' = (1 - z) h + z g`: every unit a mean of two atoms."""

    in_size: int = eqx.field(static=True)
    classes: int = eqx.field(static=True)
    width: int = eqx.field(static=True, default=8)

    name = "gru"
    drift = "z (g - h)"
    energy = "p.b"
    noise = "0"
    exact = "the step is a two-atom Gibbs mean of h and g"
    structural = "atoms that move with the state"

    @property
    def cell(self) -> GRU:
        return GRU(rows(self.in_size)[1], self.width)

    @property
    def state(self):
        return (self.width,)

    def after(self):
        return [readout(self.width, self.classes)]

    def hamiltonian(self, x, p, theta, u=None):
        z, g = self.cell.gates(x, theta, u)
        return jnp.sum(p * z * (g - x))


@admits(in_size=">= 1", classes=">= 1", width=">= 1")
class LSTMNetwork(AbstractRecurrent):
    r"""`c' = f c + i g`, `h' = o tanh c'`: a memory that decays at the rate `-log f`."""

    in_size: int = eqx.field(static=True)
    classes: int = eqx.field(static=True)
    width: int = eqx.field(static=True, default=8)

    name = "lstm"
    drift = "-(1 - f) c + i g"
    energy = "p.b"
    noise = "0; decay rate -log f"
    exact = "gates = grad lse(z, 0); the cell alone has the costate f p"
    structural = "a Gibbs mean only if i = 1 - f"

    @property
    def cell(self) -> LSTM:
        return LSTM(rows(self.in_size)[1], self.width)

    @property
    def state(self):
        return (2, self.width)

    def after(self):
        return [Output(), readout(self.width, self.classes)]

    def hamiltonian(self, x, p, theta, u=None):
        i, f, o, g = self.cell.gates(x, theta, u)
        c = f * x[1] + i * g
        return jnp.sum(p[1] * (i * g - (1 - f) * x[1])) + jnp.sum(p[0] * (o * jnp.tanh(c) - x[0]))


def flatten(x):
    """A state of any shape as one vector."""
    return x.reshape(-1)


@admits(in_size=">= 1", classes=">= 1", width=">= 1")
class SSMNetwork(AbstractRecurrent):
    r"""`x' = A x + B u` in complex modes, each step exact for its input; a nonlinear head."""

    in_size: int = eqx.field(static=True)
    classes: int = eqx.field(static=True)
    width: int = eqx.field(static=True, default=12)
    h: Float[Array, ""] = eqx.field(converter=jnp.asarray, default=1.0)

    name = "ssm"
    drift = "A x + B u"
    energy = "p.(A x + B u)"
    noise = "0"
    exact = "zero-order hold = e^{hA}; costate e^{h A^T} p; associative scan = loop"
    structural = "nothing in the cell; the head is a feedforward network"

    @property
    def cell(self) -> DiagonalSSM:
        return DiagonalSSM(rows(self.in_size)[1], self.width, self.h)

    @property
    def state(self):
        return (2, self.width)

    def after(self):
        head = Dense(2 * self.width, self.width)
        return [flatten, head, readout(self.width, self.classes)]

    def hamiltonian(self, x, p, theta, u=None):
        """`p.(A x + B u)`: the step is its flow for a time `h`, not an Euler step."""
        return jnp.sum(p * self.cell.drift(x, theta, u))


@admits(in_size=">= 1", classes=">= 1", width=">= 1", depth=">= 1")
class SemiringNetwork(AbstractArchitecture):
    r"""`u'_i = softmin_j (A_ij + u_j)`: the recurrence that is the Hamilton-Jacobi semigroup."""

    in_size: int = eqx.field(static=True)
    classes: int = eqx.field(static=True)
    width: int = eqx.field(static=True, default=12)
    depth: int = eqx.field(static=True, default=4)
    eps: Float[Array, ""] = eqx.field(converter=jnp.asarray, default=0.5)

    name = "log-semiring"
    drift = "0"
    energy = "|p|^2 if A = |x - y|^2/4t"
    noise = "eps"
    exact = "is the semigroup S_t, with the kernel's weights; S_t S_s = S_{t+s}"
    structural = "learnt A: energies without an equation"

    @property
    def cell(self) -> LogSemiring:
        return LogSemiring(self.width, self.eps)

    def stages(self):
        return framed(self, [Tied(self.cell, self.depth)])

    def hamiltonian(self, x, p, theta, u=None):
        """`|p|^2`, `p` the gradient in space of the solution whose values are the state."""
        del x, theta, u
        return jnp.sum(p**2)

    @property
    def viscosity(self):
        return self.eps

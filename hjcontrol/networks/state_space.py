r"""Linear state-space cells, integrated exactly while their input holds still (zero-order hold).

    x' = A x + B u,   u constant on a step:     x(t + D) = e^{DA} x + [integral_0^D e^{sA} ds] B u
    H = p.(A x + B u),   p(t) = e^{D A^T} p(t + D),   viscosity 0

D   length of a step, an array leaf      A   a matrix (`StateSpace`), or complex modes (`DiagonalSSM`)
The exact step is the flow of its Hamiltonian, not an Euler step of it. With A singular the integral is
still defined: it is read off e^{D M}, M = ((A, B), (0, 0)).

Modes: lambda = -e^a + i w, decaying whatever the weights; x is complex, kept as (re, im), (2, width);
    x_k = abar x_{k-1} + bbar u_k,   abar = e^{D lambda},   bbar = (e^{D lambda} - 1)/lambda b
is linear in x, so all states follow from one associative scan: (a, b) o (a', b') = (a' a, a' b + b').
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, Key

from hjcontrol._ground.arguments import admits
from hjcontrol._ground.concrete import known_to_fail
from hjcontrol.networks.stage import AbstractStage, Reads


class StateSpaceWeights(NamedTuple):
    """`A` of the state, `B` of the input."""

    A: Float[Array, "*stages width width"]
    B: Float[Array, "*stages width in"]


def _step_length(h):
    h = jnp.asarray(h, float) if not hasattr(h, "dtype") else jnp.asarray(h)
    if h.ndim or known_to_fail(h > 0):
        raise ValueError(f"state space: the step `h` must be a positive scalar; found {h}.")
    return h


@admits(in_size=">= 1", width=">= 1", h="finite")
class StateSpace(AbstractStage):
    """`x' = A x + B u` over a step of length `h`, exact for a constant `u`."""

    in_size: int = eqx.field(static=True)
    width: int = eqx.field(static=True)
    h: Float[Array, ""] = eqx.field(converter=_step_length, default=1.0)

    @property
    def reads(self) -> Reads:
        return "forcing"

    def init(self, key: Key[Array, ""]) -> StateSpaceWeights:
        a, b = jax.random.split(key)
        A = jax.random.normal(a, (self.width, self.width)) / np.sqrt(self.width)
        B = jax.random.normal(b, (self.width, self.in_size)) / np.sqrt(self.in_size)
        return StateSpaceWeights(A - jnp.eye(self.width, dtype=A.dtype), B)

    def step(
        self, x: Float[Array, " width"], theta: StateSpaceWeights, u: Float[Array, " in"]
    ) -> Float[Array, " width"]:
        decay, gain = self.discrete(theta)
        return decay @ x + gain @ u

    def discrete(
        self, theta: StateSpaceWeights
    ) -> tuple[Float[Array, "width width"], Float[Array, "width in"]]:
        """`e^{hA}` and `[integral_0^h e^{sA} ds] B`, blocks of one exponential."""
        d, m = theta.B.shape
        rows = jnp.concatenate([theta.A, theta.B], axis=1)
        block = jnp.concatenate([rows, jnp.zeros((m, d + m), rows.dtype)])
        whole = jax.scipy.linalg.expm(self.h.astype(rows.dtype) * block)
        return whole[:d, :d], whole[:d, d:]

    def drift(
        self, x: Float[Array, " width"], theta: StateSpaceWeights, u: Float[Array, " in"]
    ) -> Float[Array, " width"]:
        """`A x + B u`."""
        return theta.A @ x + theta.B @ u


class ModeWeights(NamedTuple):
    """A mode's rate is `-e^decay + i frequency`; `B` has real and imaginary part."""

    decay: Float[Array, "*stages width"]
    frequency: Float[Array, "*stages width"]
    B: Float[Array, "*stages 2 width in"]


@admits(in_size=">= 1", width=">= 1", h="finite")
class DiagonalSSM(AbstractStage):
    """Complex modes, each `x' = lambda x + b.u`, over a step of length `h`, exact for a constant `u`."""

    in_size: int = eqx.field(static=True)
    width: int = eqx.field(static=True)
    h: Float[Array, ""] = eqx.field(converter=_step_length, default=1.0)

    @property
    def reads(self) -> Reads:
        return "forcing"

    def init(self, key: Key[Array, ""]) -> ModeWeights:
        B = jax.random.normal(key, (2, self.width, self.in_size)) / np.sqrt(self.in_size)
        decay = jnp.linspace(-3.0, 0.0, self.width, dtype=B.dtype)  # memories of many lengths
        return ModeWeights(decay, jnp.linspace(0.0, np.pi / 2, self.width, dtype=B.dtype), B)

    def step(
        self, x: Float[Array, "2 width"], theta: ModeWeights, u: Float[Array, " in"]
    ) -> Float[Array, "2 width"]:
        (a_re, a_im), push = self.decay(theta), self.push(theta, u)
        return jnp.stack([a_re * x[0] - a_im * x[1], a_re * x[1] + a_im * x[0]]) + push

    def drift(
        self, x: Float[Array, "2 width"], theta: ModeWeights, u: Float[Array, " in"]
    ) -> Float[Array, "2 width"]:
        """`lambda x + b.u`."""
        re, im = -jnp.exp(theta.decay), theta.frequency
        return jnp.stack([re * x[0] - im * x[1], re * x[1] + im * x[0]]) + theta.B @ u

    def decay(self, theta: ModeWeights) -> tuple[Float[Array, " width"], Float[Array, " width"]]:
        """`e^{h lambda}`, real and imaginary part."""
        h = self.h.astype(theta.decay.dtype)
        size, turn = jnp.exp(-h * jnp.exp(theta.decay)), h * theta.frequency
        return size * jnp.cos(turn), size * jnp.sin(turn)

    def push(self, theta: ModeWeights, u: Float[Array, " in"]) -> Float[Array, "2 width"]:
        """`(e^{h lambda} - 1)/lambda b.u`, `e^z - 1` by `expm1` and a half angle: nothing cancels."""
        h = self.h.astype(theta.decay.dtype)
        re, im = -jnp.exp(theta.decay), theta.frequency
        grown, half = jnp.expm1(h * re), jnp.sin(0.5 * h * im)
        e_re = grown * jnp.cos(h * im) - 2 * half**2
        e_im = (grown + 1) * jnp.sin(h * im)
        square = re**2 + im**2
        g_re, g_im = (e_re * re + e_im * im) / square, (e_im * re - e_re * im) / square
        b_re, b_im = theta.B @ u
        return jnp.stack([g_re * b_re - g_im * b_im, g_re * b_im + g_im * b_re])

    def states(
        self, x: Float[Array, "2 width"], theta: ModeWeights, u: Float[Array, "steps in"]
    ) -> Float[Array, "steps 2 width"]:
        """The states after each step of a sequence, by one associative scan."""
        a_re, a_im = self.decay(theta)
        a = jnp.broadcast_to(jax.lax.complex(a_re, a_im), (u.shape[0], self.width))
        pushes = jax.vmap(lambda v: self.push(theta, v))(u)
        b = jax.lax.complex(pushes[:, 0], pushes[:, 1])
        b = b.at[0].add(a[0] * jax.lax.complex(x[0], x[1]))
        _, found = jax.lax.associative_scan(_compose, (a, b))
        return jnp.stack([found.real, found.imag], axis=1)


def _compose(
    first: tuple[Complex[Array, "n width"], Complex[Array, "n width"]],
    then: tuple[Complex[Array, "n width"], Complex[Array, "n width"]],
) -> tuple[Complex[Array, "n width"], Complex[Array, "n width"]]:
    return then[0] * first[0], then[0] * first[1] + then[1]

r"""Recurrent cells.

    GRU    h' = (1 - z) h + z g      a mean of h and g under softmax((0, a)), z = sigmoid(a)
    LSTM   c' = f c + i g            such a mean only where i = 1 - f
    any    drift b: H = p.b, no viscosity; noise, not the architecture, would bring one

Our cells against the formulas by hand, the gate written as a Gibbs weight by our own `gibbs`.
"""

import jax
import jax.numpy as jnp
import numpy as np

from hjcontrol.deformation import gibbs
from hjcontrol.networks import GRU, LSTM, RecurrentWeights
from hjcontrol.reproduction.claim import Claim, Evidence, evidence
from hjcontrol.reproduction.finding import zero

UNITS, INPUTS = 6, 3


@jax.jit
def _mean(a, first, second):
    """The mean of `first` and `second` under the Gibbs weights of the logits `(0, a)`."""
    weights = jax.vmap(lambda s: gibbs(jnp.stack([jnp.zeros_like(s), s]), 1.0))(a)
    return weights[:, 0] * first + weights[:, 1] * second


@jax.jit
def _cells(gru, lstm, h, c, u):
    long = LSTM(INPUTS, UNITS).step(jnp.stack([h, c]), lstm, u)
    return GRU(INPUTS, UNITS).step(h, gru, u), long[1]


def _measure(tilt: float) -> Evidence:
    rng = np.random.default_rng(6)
    draw = lambda gates: RecurrentWeights(
        rng.standard_normal((gates * UNITS, UNITS)) / 2,
        rng.standard_normal((gates * UNITS, INPUTS)),
        rng.standard_normal(gates * UNITS),
    )
    gru, lstm = draw(3), draw(4)
    h, c, u = rng.standard_normal(UNITS), rng.standard_normal(UNITS), rng.standard_normal(INPUTS)
    sigmoid = lambda s: 1 / (1 + np.exp(-s))
    reset, update = np.split((gru.W @ h + gru.U @ u + gru.b)[: 2 * UNITS], 2)
    g = np.tanh(gru.W[2 * UNITS :] @ (sigmoid(reset) * h) + (gru.U @ u + gru.b)[2 * UNITS :])
    i, f, _, candidate = np.split(lstm.W @ h + lstm.U @ u + lstm.b, 4)
    coupled = RecurrentWeights(*(np.array(a) for a in lstm))  # forget gate 1 - i: minus i's logit
    for a in coupled:
        a[UNITS : 2 * UNITS] = -a[:UNITS]
    ours, cell = (np.asarray(a) for a in _cells(gru, lstm, h, c, u))
    tied = np.asarray(_cells(gru, coupled, h, c, u)[1])
    hand = sigmoid(f) * c + sigmoid(i) * np.tanh(candidate)
    mean = lambda a, p, q: np.asarray(_mean(a + tilt, p, q))
    return evidence(
        zero("GRU − mean of h and g under two Gibbs weights", ours - mean(update, h, g), 1e-14),
        zero("LSTM cell − mean of c and g", cell - mean(i, c, np.tanh(candidate)), 1e-14),
        zero("LSTM cell − f c + i g by hand", cell - hand, 1e-14, role="instead"),
        zero(
            "LSTM with f = 1 − i − mean of c and g",
            tied - mean(i, c, np.tanh(candidate)),
            1e-14,
            role="instead",
        ),
    )


def _control(fast: bool) -> Evidence:
    del fast
    found = _measure(0.3).findings
    return Evidence((found[0], found[3]))


CLAIM = Claim(
    id="recurrent",
    title="Recurrent networks discretise the class, each with its Hamiltonian and viscosity",
    source="abstract (formulas not seen)",
    published="RNN, GRU and LSTM discretise the same equation with a Hamiltonian and viscosity of "
    "their own.",
    precise="A deterministic recurrence with drift b has H = p·b and no viscosity. A GRU step is "
    "exactly a two-atom Gibbs mean, an LSTM cell only where i = 1 − f.",
    check=lambda fast: _measure(0.0),
    fault="the gate is shifted by 0.3",
    control=_control,
    recorded="heuristic",
    rule=True,
)

r"""Recurrent cells:   GRU  h' = (1 - z) h + z c, a two-atom Gibbs mean with weights softmax((0, a)), z = sigmoid(a)
                   LSTM c' = f c + i g,  a Gibbs mean only where i = 1 - f
                   any drift b: H = p.b, no viscosity; noise, not the architecture, would bring one
"""

import jax
import jax.numpy as jnp
import numpy as np

from hjcontrol.deformation import gibbs
from hjcontrol.ledger.claim import Claim, Evidence, evidence
from hjcontrol.ledger.finding import zero

UNITS = 6


@jax.jit
def _pair(a, first, second):
    weights = jax.vmap(lambda s: gibbs(jnp.stack([jnp.zeros_like(s), s]), 1.0))(a)
    return weights[:, 0] * first + weights[:, 1] * second


def _measure(tilt: float) -> Evidence:
    rng = np.random.default_rng(6)
    a, b, h, c = rng.standard_normal((4, UNITS))
    sigmoid = lambda s: 1 / (1 + np.exp(-s))
    gru = (1 - sigmoid(a)) * h + sigmoid(a) * c
    lstm = sigmoid(b) * h + sigmoid(a) * c
    coupled = (1 - sigmoid(a)) * h + sigmoid(a) * c
    flow = lambda x: np.tanh(0.7 * x)  # a noiseless drift: a bump moves, it does not spread
    mass = [np.full(50, 0.02), np.linspace(-0.01, 0.01, 50)]
    spread = [np.ptp(mass[1])]
    for _ in range(20):
        spread.append(spread[-1] * (1 + 0.05 * 0.7))
        mass[1] = mass[1] + 0.05 * flow(mass[1])
    return evidence(
        zero("GRU − two-atom Gibbs mean", np.asarray(_pair(a + tilt, h, c)) - gru, 1e-14),
        zero("LSTM − two-atom Gibbs mean", np.asarray(_pair(a + tilt, h, c)) - lstm, 1e-14),
        zero("LSTM with i = 1 − f − two-atom Gibbs mean",
             np.asarray(_pair(a + tilt, h, c)) - coupled, 1e-14, role="instead"),
        zero("spread of a bump − e^{∫b'} (no viscosity)", np.ptp(mass[1]) - spread[-1], 1e-4,
             role="instead"),
    )  # fmt: skip


def _control(fast: bool) -> Evidence:
    del fast
    found = _measure(0.3).findings
    return Evidence((found[0], found[2]))


CLAIM = Claim(
    id="recurrent",
    title="Recurrent networks discretise the class, each with its Hamiltonian and viscosity",
    source="abstract (formulas not seen)",
    published="RNN, GRU and LSTM discretise the same equation with a Hamiltonian and viscosity of their own.",
    precise="A deterministic recurrence with drift b has H = p·b and no viscosity. A GRU step is exactly a two-atom Gibbs "
    "mean, an LSTM step only where i = 1 − f.",
    check=lambda fast: _measure(0.0),
    fault="the gate is shifted by 0.3",
    control=_control,
    recorded="heuristic",
    rule=True,
)

r"""Recurrent cells.

    GRU    h' = (1 - z) h + z g      a mean of h and g under softmax((0, a)), z = sigmoid(a)
    LSTM   c' = f c + i g            such a mean only where i = 1 - f
    any    drift b: H = p.b, no viscosity; noise, not the architecture, would bring one

H is measured: x + dH/dp is the step, of the architecture's own H and for two p (H is linear in p).
Viscosity is measured: half the variance of a step over its length, over draws of what is random in it.

Our cells against the formulas by hand, the gate written as a Gibbs weight by our own `gibbs`.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from hjcontrol.deformation import gibbs
from hjcontrol.networks import GRU, LSTM, RNN, RecurrentWeights, StochasticResidual, architecture
from hjcontrol.reproduction.claim import Claim, Evidence, evidence, those
from hjcontrol.reproduction.finding import at_least, equal, zero

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


@functools.cache
def _steps() -> tuple[np.ndarray, np.ndarray]:
    """`step - x` and `dH/dp` of RNN, GRU and LSTM at random weights, for two p."""
    drifts, slopes = [], []
    for name, cell in (("rnn", RNN), ("gru", GRU), ("lstm", LSTM)):
        built = architecture(name, 64, 10)
        rng = np.random.default_rng(3)
        shape = built.state
        theta = jax.tree.map(
            lambda a, r=rng: r.standard_normal(a.shape),
            jax.eval_shape(built.cell.init, jax.random.key(0)),
        )
        x, u = rng.standard_normal(shape), rng.standard_normal(8)

        @jax.jit
        def both(x, u, theta, p, built=built, cell=cell, width=shape[-1]):
            slope = jax.grad(lambda q: built.hamiltonian(x, q, theta, u))
            return cell(8, width).step(x, theta, u) - x, jax.vmap(slope)(p)

        drift, slope = both(x, u, theta, rng.standard_normal((2, *shape)))
        drifts.append(np.tile(np.ravel(drift), 2))
        slopes.append(np.ravel(slope))
    return np.concatenate(drifts), np.concatenate(slopes)


def _hamiltonians(longer: float) -> np.ndarray:
    """`longer dH/dp - (step - x)`."""
    drifts, slopes = _steps()
    return longer * slopes - drifts


@functools.cache
def _viscosity(nu: float) -> tuple[float, float]:
    """Half the variance of one step over its length: of a GRU's, run as drift with noise of `nu`; and how
    far the step without noise is from the drift's."""
    h, rng = 0.5, np.random.default_rng(5)
    draw = lambda *shape: rng.standard_normal(shape) / 2
    gru = RecurrentWeights(draw(18, 6), draw(18, 3), draw(18))
    x, u = draw(6), draw(3)

    @jax.jit
    def stepped(x, u, gru, noise):
        moved = lambda a, theta: GRU(INPUTS, UNITS).step(a, theta, u) - a
        stage = StochasticResidual((moved, gru), h, nu)
        return jax.vmap(lambda xi: stage.step(x, gru, xi))(noise), moved(x, gru)

    noise = np.random.default_rng(6).standard_normal((4000, 6))
    ends, drift = (np.asarray(a) for a in stepped(x, u, gru, np.vstack([noise, np.zeros(6)])))
    off = ends[-1] - x - h * drift
    return float(np.var(ends[:-1], axis=0).mean() / (2 * h)), float(np.abs(off).max())


def _measure(
    tilt: float, longer: float = 1.0, nu: float = 0.0, tied_gates: bool = False
) -> Evidence:
    """`tilt` of the gates by hand; a step `longer` than the drift; noise of viscosity `nu`; `tied_gates`:
    the LSTM is the one with f = 1 - i."""
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
    if tied_gates:
        cell, hand = tied, sigmoid(-i) * c + sigmoid(i) * np.tanh(candidate)
    return evidence(
        zero("x + ∂H/∂p − step of RNN, GRU, LSTM", _hamiltonians(longer), 1e-14),
        at_least("viscosity of a recurrence, measured", _viscosity(nu)[0], 0.01),
        equal(
            "viscosity of the same with noise of ν = 0.1",
            _viscosity(0.1)[0],
            0.1,
            0.01,
            role="instead",
        ),
        zero("its step without the noise − x − h drift", _viscosity(0.1)[1], 1e-14, role="instead"),
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
    off = _measure(0.3, 1.1, 0.1)
    kept = those(off, "x + ∂H", "viscosity of a recurrence", "GRU", "LSTM with f")
    return Evidence((*kept, *those(_measure(0.0, tied_gates=True), "LSTM cell − mean")))


CLAIM = Claim(
    id="recurrent",
    title="Recurrent networks discretise the class, each with its Hamiltonian and viscosity",
    source="abstract (formulas not seen)",
    published="RNN, GRU and LSTM discretise the same equation with a Hamiltonian and viscosity of "
    "their own.",
    precise="A Hamiltonian, yes: RNN, GRU and LSTM are steps of H = p·b with their drift b, as measured. "
    "A viscosity, no: it is 0 as measured, until noise is put in. A GRU step is "
    "exactly a two-atom Gibbs mean, an LSTM cell only where i = 1 − f.",
    check=lambda fast: _measure(0.0),
    fault="steps are a tenth longer than the drift and have noise; the gates are shifted by 0.3, or "
    "tied to f = 1 − i for the LSTM",
    control=_control,
    recorded="heuristic",
    rule=True,
)

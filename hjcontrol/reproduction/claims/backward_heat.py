r"""Is the backward pass heat flowing backward to its source?

backward heat     a ripple of wave number k grows by e^{eps k^2 t}: no bound, ill-posed
the adjoint       q_s = -f q_x - f_x q backward along characteristics: its integral is conserved,
its L1 norm too
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from hjcontrol.control import ControlProblem, backpropagate
from hjcontrol.networks import Dense, Residual
from hjcontrol.reproduction.claim import Claim, Evidence, evidence
from hjcontrol.reproduction.finding import at_least, at_most, zero

LAYERS, EPS = 21, 0.1  # odd: a sign that turns at each layer is seen


def _ripple(x, k):
    return jnp.sin(k * x).sum()


@eqx.filter_jit
def _costates(problem, weights):
    return backpropagate(problem, weights)[2]


def _heat(k: int) -> float:
    """Growth of `sin(k x)` backwards through the heat equation, over a time 1.05."""
    spread = np.sqrt(2 * EPS * 1.05)
    at = np.linspace(-9, 9, 4001)
    kernel = np.exp(-(at**2) / 2) / np.exp(-(at**2) / 2).sum()
    return float(1 / (kernel @ np.cos(k * spread * at)))


def _by_hand(W: np.ndarray, b: np.ndarray, x: np.ndarray, k: int) -> np.ndarray:
    """The first costate, by the recursion."""
    states = [x]
    for w, c in zip(W, b, strict=True):
        states.append(states[-1] + np.tanh(states[-1] @ w.T + c) / LAYERS)
    p = k * np.cos(k * states.pop()) / len(x)
    for a, w, c in zip(states[::-1], W[::-1], b[::-1], strict=True):
        p = p + (p * (1 - np.tanh(a @ w.T + c) ** 2)) @ w / LAYERS
    return p


def _measure(rate: float, heating: bool = False) -> Evidence:
    """`heating`: the pass is that of the heat equation."""
    x = np.linspace(-1, 1, 8)[:, None] * np.ones((1, 4))
    stage = Residual(Dense(4, 4, jnp.tanh), 1.0 / LAYERS)
    growth, bound, apart = [], [], []
    for k in (1, 4, 16):
        problem = ControlProblem([stage] * LAYERS, x, np.full(len(x), float(k)), terminal=_ripple)
        weights = problem.init(jax.random.key(3))
        p = [np.asarray(a) for a in _costates(problem, weights)]
        W = np.asarray(weights[0].W)
        apart.append(p[0] - _by_hand(W, np.asarray(weights[0].b), x, k))
        growth.append(np.linalg.norm(p[0], axis=1).max() / np.linalg.norm(p[-1], axis=1).max())
        bound.append(np.exp(rate * np.linalg.norm(W, 2, axis=(1, 2)).mean()))
    heat = np.exp(EPS * np.array([1, 4, 16]) ** 2)
    return evidence(
        at_least(
            "growth of a ripple of wave number 1, 4, 16 backwards",
            [_heat(k) for k in (1, 4, 16)] if heating else growth,
            heat,
            slack=1e-9,
        ),
        at_most("growth against e^{mean ‖W‖}", growth, bound, role="instead"),
        zero("first costate − by hand", apart, 1e-12, role="instead"),
        at_least("e^{εk²t} of backward heat at k = 16", heat[-1], 1e10, role="instead"),
    )


CLAIM = Claim(
    id="backward-heat",
    title="The backward pass is heat flowing backward",
    source="popular summary",
    published="In the backward pass heat flows back to its source.",
    precise="The adjoint is transport (with noise, a Fokker–Planck equation): well-posed, growing "
    "by at most e^{∫‖f_x‖} whatever the ripple. Finding sources is backward heat, which "
    "amplifies wave number k by e^{εk²t}.",
    check=lambda fast: _measure(1.0),
    fault="the pass is that of the heat equation; and ‖W‖ enters with the wrong sign",
    control=lambda fast: Evidence(_measure(-1.0, heating=True).findings[:2]),
    recorded="fails as stated",
)

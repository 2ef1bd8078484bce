r"""Does a cold layer forget less?

    df/db_j = pi_j: an atom with no weight on the new data does not move.

Two tasks on a line, |x| on [-2, -0.5] and then 2 - x on [0.5, 2]; twenty neurons, Adam; the error
on the
first task after the second. The bound on the gradient is exact, forgetting after training is only
measured.
"""

import jax
import jax.numpy as jnp
import numpy as np

from hjcontrol.analysis.continual import overlap
from hjcontrol.layers import LSE
from hjcontrol.reproduction import by_hand
from hjcontrol.reproduction.claim import Claim, Evidence, Picture, evidence
from hjcontrol.reproduction.finding import at_most, zero

EPS = (0.03, 0.1, 0.5, 2.0)
OLD, NEW = np.linspace(-2, -0.5, 60)[:, None], np.linspace(0.5, 2, 60)[:, None]


@jax.jit
def _overlap(W, b, eps):
    found = overlap(LSE(W, b, eps), jnp.asarray(OLD), jnp.asarray(NEW))
    return found.new, found.shared


def _tasks(eps: float, heat: float, steps: int) -> tuple[float, float, float, float]:
    """Change of the first task's error after `steps` of the second, overlap, and how far gradient and
    weights exceed their bounds by hand, with weights of a temperature `heat` times as high."""
    rng = np.random.default_rng(13)
    W, b = rng.standard_normal((20, 1)), 0.3 * rng.standard_normal(20)
    first, second = -OLD[:, 0], 2 - NEW[:, 0]
    W, b = by_hand.adam(by_hand.squares(OLD, first, eps), W, b, 600, 0.01)
    error = lambda W, b: np.sqrt(np.mean((by_hand.lse(OLD @ W.T + b, eps) - first) ** 2))
    before = error(W, b)
    weight, shared = (np.asarray(a) for a in _overlap(W, b, eps))
    pi = by_hand.weights(NEW @ W.T + b, heat * eps)
    slopes = by_hand.squares(NEW, second, eps)
    residual = np.abs(by_hand.lse(NEW @ W.T + b, eps) - second)
    excess = float((np.abs(slopes(W, b)[1]) - 2 * residual.max() * pi.mean(0)).max())
    apart = float(np.abs(weight - pi.mean(0)).max())
    if steps:
        W, b = by_hand.adam(slopes, W, b, steps, 0.01)
    else:  # one short step along the gradient itself
        W, b = (a - 0.01 * s for a, s in zip((W, b), slopes(W, b), strict=True))
    return abs(error(W, b) - before), float(shared), excess, apart


def _measure(heat: float = 1.0, steps: int = 600) -> Evidence:
    found = np.array([_tasks(e, heat, steps) for e in EPS])
    lost, shared = found[:, 0], found[:, 1]
    return evidence(
        at_most("gradient of b_j above 2 max|r| mean π_j", found[:, 2], 0.0, slack=1e-12),
        at_most(
            "change of the error on the first task, ε = 0.03, 0.1, 0.5 against the next warmer",
            lost[:3],
            lost[1:],
        ),
        zero("mean weight on the new task, ours − by hand", found[:, 3], 1e-13, role="instead"),
        at_most(
            "overlap of the tasks at ε = 0.03, 0.1, 0.5 against the next warmer",
            shared[:3],
            shared[1:],
            slack=1e-12,
            role="instead",
        ),
        picture=Picture(
            "Forgetting and overlap of two tasks.",
            "ε",
            "value",
            {
                "change of the error on the first task": (np.array(EPS), lost),
                "overlap": (np.array(EPS), shared),
            },
            x_log=True,
        ),
    )


CLAIM = Claim(
    id="continual",
    title="A cold layer is protected from forgetting",
    source="appendix K (not seen); the natural reading",
    published="At low ε atoms of the old task keep still while a new one is learnt.",
    precise="|∂L/∂b_j| ≤ 2 max|r| · mean π_j exactly, so atoms without weight on the new data do "
    "not move at first. What is forgotten after training is not ordered by ε.",
    check=lambda fast: _measure(),
    fault="weights by hand are of half the temperature; and the second task is one short step long",
    control=lambda fast: Evidence(_measure(0.5, 0).findings[:3]),
    recorded="heuristic",
    rule=True,
)

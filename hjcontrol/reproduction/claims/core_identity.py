r"""A log-sum-exp layer is a Hopf-Cole sum:   f(x) + u(x, t) = |x|^2/(4t).

y_j = 2t W_j,   g_j = -b_j - t|W_j|^2      The check computes u from (y, g), never from f.
"""

import jax
import numpy as np

from hjcontrol.hamilton_jacobi import InitialData, hopf_cole, layer_of_data
from hjcontrol.layers import LSE
from hjcontrol.reproduction import by_hand
from hjcontrol.reproduction.claim import Claim, Evidence, evidence
from hjcontrol.reproduction.claims.setting import LINE_EPS, LINE_G, LINE_X, LINE_Y
from hjcontrol.reproduction.finding import zero

PUBLISHED = "4.4e-16, 2.2e-16, 4.4e-16, 4.4e-16, 2.2e-16"


@jax.jit
def _both(x, y, g, t, eps):
    data = InitialData(y, g)
    u = jax.vmap(lambda a: hopf_cole(data, a, t, eps, normalisation="raw"))(x)
    W, b = layer_of_data(data, t)
    return jax.vmap(LSE(W, b, eps))(x), u


def _measure(sign: float) -> Evidence:
    x, y, g = LINE_X, LINE_Y, LINE_G
    gaps, apart = [], []
    for eps in LINE_EPS:
        f, u = (np.asarray(a) for a in _both(x, y, g, 1.0, eps))
        gaps.append(np.abs(f + sign * u - x[:, 0] ** 2 / 4).max())
        hand = -by_hand.lse(-by_hand.energies(x, y, g, 1.0), eps)
        apart.append(np.abs(u - sign * hand).max())
    return evidence(
        zero("f + u - |x|²/4t", gaps, 1e-14, published=PUBLISHED),
        zero("u against NumPy", apart, 1e-14),
    )


CLAIM = Claim(
    id="core-identity",
    title="A log-sum-exp layer is a Hopf–Cole sum",
    source="Theorems 3.1 and 4.1; verify.py test 2; run_all.py experiment 1",
    published="A log-sum-exp layer equals |x|²/4t minus the Hopf–Cole sum over atoms read off its "
    "weights.",
    precise="f_ε(x) + u_ε(x, t) = |x|²/4t for every x, ε > 0 and t > 0, with y = 2tW and g = −b − "
    "t|W|²: completing the square. Whether the sum solves the equation is another claim.",
    check=lambda fast: _measure(1.0),
    fault="u enters with the opposite sign",
    control=lambda fast: _measure(-1.0),
    recorded="holds exactly",
)

r"""f = E_pi[z] + eps H,

    df/deps = H(pi),
    dH/deps = Var_pi(z)/eps^3 >= 0,
    -log pi_y = (f - z_y)/eps.

Derivatives by differences of our own functions, entropy and variance by hand.
"""

import jax
import numpy as np

from hjcontrol.deformation import gibbs, gibbs_entropy, lse
from hjcontrol.reproduction import by_hand
from hjcontrol.reproduction.claim import Claim, Evidence, Picture, evidence
from hjcontrol.reproduction.claims.setting import SCORES
from hjcontrol.reproduction.finding import at_least, equal, zero

SHOWN = (0.03, 0.1, 12**-0.5, 0.5, 1.0, 5.0)
ENTROPIES = (0.0098, 0.4781, 1.4914, 1.9825, 2.3262, 2.4779)
FINE = np.geomspace(0.02, 8, 200)


@jax.jit
def _state(z, eps):
    return jax.vmap(lambda e: (lse(z, e), gibbs_entropy(z, e), gibbs(z, e)))(eps)


def _measure(heat: float) -> Evidence:
    """Entropy and weights are those of a temperature `heat` times as high."""
    z, h = SCORES, 1e-5
    eps = np.array([0.1, 0.3, 1.0, 3.0])
    f = np.asarray(_state(z, eps)[0])
    H, pi = (np.asarray(a) for a in _state(z, heat * eps)[1:])
    up, down = ([np.asarray(a) for a in _state(z, eps * (1 + s * h))] for s in (1, -1))
    mean = pi @ z
    variance = pi @ z**2 - mean**2
    slope = lambda a, b: (a - b) / (2 * h * eps)
    shown = np.asarray(_state(z, np.array(SHOWN))[1])
    curve = np.asarray(_state(z, FINE)[1])
    return evidence(
        zero("f − E_π[z] − εH", f - mean - eps * by_hand.entropy(pi), 1e-13),
        zero("∂f/∂ε − H", slope(up[0], down[0]) - H, 1e-8),
        zero("∂H/∂ε − Var_π(z)/ε³", slope(up[1], down[1]) - variance / eps**3, 1e-8),
        zero("−log π_y − (f − z_y)/ε", -np.log(pi) - (f[:, None] - z) / eps[:, None], 1e-12),
        at_least("least step of H along ε", np.diff(curve).min(), 0.0, slack=1e-15, role="instead"),
        equal(
            "H of the page's twelve scores",
            shown,
            ENTROPIES,
            1e-4,
            role="number",
            published="0.0098, 0.4781, 1.4914, 1.9825, 2.3262, 2.4779",
        ),
        picture=Picture(
            "Entropy of twelve Gibbs weights: monotone in ε, analytic, no transition.",
            "ε",
            "H(π)",
            {"H": (FINE, curve), "log 12": (FINE, np.full(200, np.log(12)))},
            x_log=True,
        ),
    )


CLAIM = Claim(
    id="thermodynamics",
    title="ε is a temperature: free energy, energy, entropy",
    source="main text, appendix C; the page's dictionary; particle-wave.js",
    published="The layer is a log-partition function, ε its temperature, and the entropy grows "
    "with it.",
    precise="f = E_π[z] + εH(π), ∂f/∂ε = H, ∂H/∂ε = Var_π(z)/ε³ ≥ 0; cross-entropy at temperature "
    "ε is the free-energy gap (f − z_y)/ε.",
    check=lambda fast: _measure(1.0),
    fault="the weights are those of a temperature a tenth higher",
    control=lambda fast: Evidence(_measure(1.1).findings[:4]),
    recorded="holds exactly",
)

r"""d_eff = 1/alpha from published exponents.

    They are exponents of the *loss*: cross-entropy, about a squared error.

    RMSE ~ N^{-s/d},  loss ~ N^{-2s/d}:    d = s/alpha_RMSE = 2 s/alpha_loss      s  smoothness of
    the target

Known dimension: tangents of |x|^2/2 at N nodes in [-1, 1]^d (s = 2), squared error over random points.
"""

import jax
import numpy as np

from hjcontrol.layers import LSE
from hjcontrol.reproduction import by_hand
from hjcontrol.reproduction.claim import Claim, Evidence, evidence
from hjcontrol.reproduction.claims.quadrature import grid
from hjcontrol.reproduction.finding import at_most, equal
from hjcontrol.reproduction.questions.scaling import effective_dimension

EXPONENTS = {"language": 0.076, "compute-optimal": 0.35, "video": 0.24, "mathematics": 0.38}
TABLE = (13.2, 2.9, 4.2, 2.6)


@jax.jit
def _tangents(x, w):
    """`max_j w_j.x - |w_j|^2/2`: a layer at eps = 0."""
    return jax.vmap(LSE(w, -(w**2).sum(1) / 2, 0.0))(x)


def loss_exponent(d: int, rough: bool = False) -> float:
    """Exponent of the squared error of the maximum of tangents; `rough`: of the error itself of
    constants, each the value at the nearest node."""
    x = np.random.default_rng(d).uniform(-1, 1, (2000, d))
    widths = {1: (8, 16, 32, 64), 2: (4, 8, 16, 24)}[d]
    errors = []
    for n in widths:
        w = grid(n, d, True) / 2
        if rough:
            near = (w**2).sum(1)[((x[:, None] - 2 * w) ** 2).sum(-1).argmin(1)] * 2
            errors.append(np.sqrt(np.mean((near - (x**2).sum(1) / 2) ** 2)))
        else:
            f = np.asarray(_tangents(x, w))
            errors.append(np.mean((f - (x**2).sum(1) / 2) ** 2))
    return -by_hand.slope(np.array(widths, float) ** d, np.array(errors))


def _measure(smoothness: float) -> Evidence:
    alpha = [loss_exponent(d, smoothness < 1) for d in (1, 2)]
    dimension = lambda a, s: effective_dimension(float(a), smoothness=s, loss_power=2)
    return evidence(
        equal("1/α for targets of dimension 1, 2", [1 / a for a in alpha], [1.0, 2.0], 0.1),
        equal(
            "2s/α with s = 2",
            [dimension(a, smoothness) for a in alpha],
            [1.0, 2.0],
            0.1,
            role="instead",
        ),
        equal(
            "table of 1/α",
            [1 / a for a in EXPONENTS.values()],
            TABLE,
            0.05,
            role="number",
            published="13.2, 2.9, 4.2, 2.6",
        ),
        equal(
            "language, s = 1 and 2",
            [dimension(0.076, s) for s in (1.0, 2.0)],
            [26.3, 52.6],
            0.05,
            role="number",
        ),
        at_most("1/α over the dimension", [1 / alpha[0], 0.5 / alpha[1]], 0.3, role="instead"),
    )


CLAIM = Claim(
    id="effective-dimension",
    title="The published exponents give d_eff = 1/α",
    source="project page, table (removed later)",
    published="α = 1/d_eff: language 13.2, compute-optimal language 2.9, video 4.2, mathematics "
    "2.6.",
    precise="α_loss = 2s/d for squared errors and near-squared ones, so d = 2α⁻¹ (s = 1) or 4α⁻¹ "
    "(s = 2): language 26 or 53. N there counts parameters, and a fit without irreducible loss "
    "is another exponent.",
    check=lambda fast: _measure(2.0),
    fault="constants stand for tangents and the loss is the error, not its square; s is taken to be 1/4",
    control=lambda fast: Evidence(_measure(0.25).findings[:2]),
    recorded="fails as stated",
)

r"""Outside sqrt(2 eps t) of every atom, does the output collapse to one neuron's line?

y = (+-1, 0), g = 0, x = (0, R):   pi = (1/2, 1/2) and f - z_max = eps log 2 for every R
"""

import jax
import numpy as np

from hjcontrol.analysis.extrapolation import gap
from hjcontrol.hamilton_jacobi import InitialData, layer_of_data
from hjcontrol.layers import LSE
from hjcontrol.reproduction.claim import Claim, Evidence, evidence
from hjcontrol.reproduction.finding import at_most, equal

T = 1.0


@jax.jit
def _excess(y, g, x, eps):
    W, b = layer_of_data(InitialData(y, g), T)
    return jax.vmap(lambda a: gap(LSE(W, b, eps), a).deviation)(x), x @ W.T + b[None]


def _demo(eps: float) -> tuple[float, float, float, float]:
    """Share of [-4, 4] outside the radius, the largest excess there, share dominated there and in
    all."""
    y = np.array([-1.6, -1.0, -0.4, 0.4, 1.0, 1.6])
    x = np.linspace(-4, 4, 4001)
    excess, z = (
        np.asarray(a) for a in _excess(y[:, None], 0.7 * np.cos(1.3 * y) + 0.3, x[:, None], eps)
    )
    outside = np.abs(x[:, None] - y).min(1) > np.sqrt(2 * eps * T)
    z = np.sort(z, axis=1)
    dominated = (z[:, -1] - z[:, -2]) / eps > np.log(6)
    return outside.mean(), excess[outside].max(), dominated[outside].mean(), dominated.mean()


def _measure(side: float) -> Evidence:
    eps, far = 0.1, np.array([5.0, 50.0, 500.0])
    x = np.stack([np.full(3, side), far], axis=1)
    excess = np.asarray(_excess(np.array([[-1.0, 0.0], [1.0, 0.0]]), np.zeros(2), x, eps)[0])
    hot, cold = _demo(1.0), _demo(0.03)
    return evidence(
        at_most("f − z_max at 11, 112, 1118 radii from both atoms", excess, 1e-3),
        equal("it is ε log 2", excess, eps * np.log(2), 1e-12, role="instead"),
        equal(
            "page's demo, ε = 1: share outside, largest excess, share with Δ/ε > log 6",
            hot[:3],
            [0.246, 0.424, 0.0],
            2e-3,
            role="number",
        ),
        equal(
            "the same, ε = 0.03: share with Δ/ε > log 6, in or out",
            cold[3],
            0.992,
            2e-3,
            role="number",
        ),
    )


CLAIM = Claim(
    id="diffusion-radius",
    title="Beyond the diffusion radius the output collapses: hallucination",
    source="extrapolation section; project page",
    published="Farther than √(2εt) from every training point the network extrapolates along its "
    "dominant neuron, and Δ/ε against log N tells hallucination.",
    precise="y_j = 2tW_j are atoms, not training points; on a bisector two neurons share the "
    "weight at any distance; and nearly every point is dominated when ε is small, in or out of "
    "the data. Coverage needs a test of its own.",
    check=lambda fast: _measure(0.0),
    fault="x leaves the bisector",
    control=lambda fast: Evidence(_measure(0.5).findings[:2]),
    recorded="fails as stated",
)

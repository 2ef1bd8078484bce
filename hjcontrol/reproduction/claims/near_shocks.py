r"""Curvature spikes where two atoms share the weight:

    f'' = Var_pi(W)/eps, peak |W_i - W_j|^2/(4 eps) of an isolated pair.

Page's demo: y = -3 .. 3, g = 0, t = 1. Spikes need eps << spacing^2/(8t): at its default 0.3 the
field is flat,
f'' = 1/(2t).
"""

import jax
import numpy as np

from hjcontrol.analysis.robustness import layer_curvature
from hjcontrol.hamilton_jacobi import InitialData, layer_of_data
from hjcontrol.layers import LSE
from hjcontrol.reproduction.claim import Claim, Evidence, Picture, evidence
from hjcontrol.reproduction.finding import equal

X = np.linspace(-2.5, 2.5, 1001)


@jax.jit
def _curvature(x, eps, spacing):
    y = spacing * jax.numpy.arange(-3.0, 4.0)[:, None]
    W, b = layer_of_data(InitialData(y, jax.numpy.zeros(7)), 1.0)
    return jax.vmap(lambda a: layer_curvature(LSE(W, b, eps), a).hessian[0, 0])(x[:, None])


def _measure(spacing: float) -> Evidence:
    cold, hot = (np.asarray(_curvature(X, e, spacing)) for e in (0.05, 0.3))
    flat = hot[np.abs(X) <= 1]
    pair = lambda eps: (spacing / 2) ** 2 / (4 * eps)
    return evidence(
        equal("peak at ε = 0.05 against the pair's", cold.max(), pair(0.05), 0.01),
        equal("peak at ε = 0.3 against the pair's", hot.max(), pair(0.3), 0.01),
        equal("peaks", [cold.max(), hot.max()], [1.2505, 0.5], 1e-3, role="number"),
        equal(
            "f'' at ε = 0.3, |x| ≤ 1, is 1/2t", [flat.min(), flat.max()], 0.5, 0.01, role="instead"
        ),
        picture=Picture(
            "Curvature of seven atoms: spikes when cold, flat when warm.",
            "x",
            "f''",
            {"ε = 0.05": (X, cold), "ε = 0.3": (X, hot)},
        ),
    )


CLAIM = Claim(
    id="near-shocks",
    title="Curvature spikes where two atoms meet: near-shocks",
    source="discussion; project page",
    published="Curvature spikes at the boundaries of the Voronoi cells, to |W_i − W_j|²/4ε.",
    precise="The geometry is right where ε ≪ spacing²/8t: the peak of an isolated pair is |W_i − "
    "W_j|²/4ε, on power cells, not Voronoi ones. At the page's default ε = 0.3 nothing spikes.",
    check=lambda fast: _measure(1.0),
    fault="the atoms stand half as far apart; and three times as far, for the warm ones",
    control=lambda fast: Evidence((_measure(0.5).findings[0], _measure(3.0).findings[1])),
    recorded="heuristic",
    rule=True,
)

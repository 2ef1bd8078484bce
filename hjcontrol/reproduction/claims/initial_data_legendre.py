r"""g from f:   f_0*(W_j) = -b_j at exposed atoms, so g(y) = f*(y/2t) - |y|^2/(4t).   Not g = f*."""

import jax
import numpy as np

from hjcontrol.hamilton_jacobi import InitialData, envelope, layer_of_data, legendre
from hjcontrol.reproduction.claim import Claim, Evidence, evidence
from hjcontrol.reproduction.finding import at_most, zero

T = 0.8


@jax.jit
def _conjugate(x, f, q):
    return legendre(x, f, q)


def _measure(square: float) -> Evidence:
    y = np.linspace(-1.5, 1.5, 7)[:, None]
    g = 0.5 * y[:, 0] ** 2 + 0.1 * np.cos(y[:, 0])
    W, b = (np.asarray(a) for a in layer_of_data(InitialData(y, g), T))
    b = b + (1 - square) * y[:, 0] ** 2 / (4 * T)
    x = np.linspace(-40, 40, 16001)[:, None]
    f = (x @ W.T + b).max(1)
    star = np.asarray(_conjugate(x, f, W))
    hull = envelope(InitialData(y, g), T)
    exposed = np.asarray(hull.active)
    soft = 0.2 * np.log(np.exp((x @ W.T + b - f[:, None]) / 0.2).sum(1)) + f
    read = lambda s: (s - (y[:, 0] ** 2) / (4 * T))[exposed]
    return evidence(
        zero("f*(y) − g(y)", (star - g)[exposed], 1e-6),
        zero("f*(y/2t) − |y|²/4t − g(y)", read(star) - g[exposed], 1e-6, role="amended"),
        at_most(
            "the same from f_ε, against ε log N",
            np.abs(read(np.asarray(_conjugate(x, soft, W))) - g[exposed]).max(),
            0.2 * np.log(7),
            slack=1e-6,
            role="amended",
        ),
        zero("atoms exposed, of seven", exposed.sum() - 7, 0.5, role="amended"),
        zero(
            "the envelope − g, which is convex", np.asarray(hull.values) - g, 1e-9, role="amended"
        ),
    )


CLAIM = Claim(
    id="initial-data-legendre",
    title="The initial data are the Legendre transform of the output",
    source="page's recovery demo, its label",
    published="g is the Legendre transform of the network's output.",
    precise="g(y) = f*(y/2t) − |y|²/4t at exposed atoms, since f_0*(W_j) = −b_j; from f_ε within "
    "ε log N.",
    check=lambda fast: _measure(1.0),
    fault="the layer's biases are −g, without the square",
    control=lambda fast: Evidence(_measure(0.0).findings[:2]),
    recorded="holds once amended",
)

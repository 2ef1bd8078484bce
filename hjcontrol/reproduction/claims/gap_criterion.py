r"""One neuron dominates where its lead is long:   0 <= f - z_max <= eps log(1 + (N-1) e^{-gap/eps}).

Along x_0 + r v with a unique winner of W_j.v the excess falls as (N-1) eps e^{-(gap_0 + r
gap_v)/eps}, f tends to
the recession function, the entropy to log(ties).
"""

import jax
import numpy as np

from hjcontrol.analysis.extrapolation import gap, ray
from hjcontrol.deformation import gibbs_entropy
from hjcontrol.layers import LSE
from hjcontrol.reproduction.claim import Claim, Evidence, Picture, evidence
from hjcontrol.reproduction.claims.setting import cloud
from hjcontrol.reproduction.finding import at_most, equal, zero

EPS, R = 0.5, np.linspace(0, 24, 49)


@jax.jit
def _along(W, b, x):
    layer = LSE(W, b, EPS)
    return jax.vmap(lambda a: (layer(a), gibbs_entropy(layer.scores(a), EPS)))(x)


@jax.jit
def _told(W, b, x, v):
    """What the tools say: the bound by the gap, and along the ray from 0 the bound, slope and rate."""
    layer = LSE(W, b, EPS)
    along = ray(layer, x[0], v)
    return (
        jax.vmap(lambda a: gap(layer, a).bound)(x),
        jax.vmap(along.bound)(R),
        along.slope,
        along.rate,
    )


def _measure(copies: int) -> Evidence:
    """Each atom stands there `copies` times, which the bounds do not know."""
    W, b = cloud(21, 8, 3)
    b = 0.2 * b
    v = np.array([0.6, -0.64, 0.48])
    x = R[:, None] * v
    f = np.asarray(_along(np.tile(W, (copies, 1)), np.tile(b, copies), x)[0])
    by_gap, by_ray, slope, rate = (np.asarray(a) for a in _told(W, b, x, v))
    z = np.sort(x @ W.T + b, axis=1)
    bound = EPS * np.log1p(7 * np.exp(-(z[:, -1] - z[:, -2]) / EPS))
    j = int(np.argmax(W @ v))
    others = np.delete(np.arange(8), j)
    growth, start = (W[j] - W[others]) @ v, b[j] - b[others]
    own = f - (x @ W[j] + b[j])
    hand = EPS * np.log1p(7 * np.exp(-(start.min() + R * growth.min()) / EPS))
    limit = 7 * EPS * np.exp(-((start[None] + R[:, None] * growth[None]).min(1)) / EPS)
    far = np.asarray(_along(W, b, np.array([2000 * v] * len(R)))[0])[0] / 2000
    twins = np.concatenate([W, W[j : j + 1]]), np.append(b, b[j])
    return evidence(
        at_most(
            "f − z_max above its bound by the gap", (f - z[:, -1] - bound).max(), 0.0, slack=1e-13
        ),
        at_most("f − z_j along a ray above (N−1)ε e^{−Δ/ε}", (own - limit).max(), 0.0, slack=1e-13),
        zero("bound by the gap as the tool tells it", by_gap - bound, 1e-13, role="instead"),
        zero(
            "bound along the ray, slope and rate as the tool tells them",
            [*(by_ray - hand), slope - (W @ v).max(), rate - growth.min() / EPS],
            1e-12,
            role="instead",
        ),
        equal("f(rv)/r at r = 2000: max W_j·v", far, float((W @ v).max()), 1e-3, role="instead"),
        equal(
            "entropy far out, winner doubled: log 2",
            np.asarray(_along(*twins, np.array([2000 * v] * len(R)))[1])[0],
            np.log(2),
            1e-9,
            role="instead",
        ),
        picture=Picture(
            "Excess over the largest logit along a ray, and its bound.",
            "distance r",
            "f − z_max",
            {"f − z_max": (R, f - z[:, -1]), "bound": (R, bound)},
            y_log=True,
        ),
    )


CLAIM = Claim(
    id="gap-criterion",
    title="Far from the boundaries one neuron decides",
    source="extrapolation section; project page",
    published="|f − z_max| ≤ ε log(1 + (N−1)e^{−Δ/ε}), at any depth; Δ/ε ≫ log N means one neuron "
    "speaks alone.",
    precise="True, of the last layer's logits at any depth. Along a ray the approach to the "
    "recession function is exponential and the entropy tends to log of the number of ties.",
    check=lambda fast: _measure(1),
    fault="each atom stands there three times, which the bounds do not know",
    control=lambda fast: Evidence(_measure(3).findings[:2]),
    recorded="holds within its bound",
)

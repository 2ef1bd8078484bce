r"""One neuron dominates where its lead is long:   0 <= f - z_max <= eps log(1 + (N-1) e^{-gap/eps}).

Along x_0 + r v with a unique winner of W_j.v the excess falls as (N-1) eps e^{-(gap_0 + r
gap_v)/eps}, f tends to
the recession function, the entropy to log(ties).
"""

import jax
import numpy as np

from hjcontrol.deformation import gibbs_entropy
from hjcontrol.layers import LSE
from hjcontrol.reproduction.claim import Claim, Evidence, Picture, evidence
from hjcontrol.reproduction.claims.setting import cloud
from hjcontrol.reproduction.finding import at_most, equal

EPS, R = 0.5, np.linspace(0, 6, 49)


@jax.jit
def _along(W, b, x):
    layer = LSE(W, b, EPS)
    return jax.vmap(lambda a: (layer(a), gibbs_entropy(layer.scores(a), EPS)))(x)


def _measure(count: float) -> Evidence:
    W, b = cloud(21, 8, 3)
    b = 0.2 * b
    v = np.array([0.6, -0.64, 0.48])
    x = R[:, None] * v
    f, _ = (np.asarray(a) for a in _along(W, b, x))
    z = np.sort(x @ W.T + b, axis=1)
    gap = z[:, -1] - z[:, -2]
    bound = EPS * np.log1p(count * np.exp(-gap / EPS))
    j = int(np.argmax(W @ v))
    others = np.delete(np.arange(8), j)
    growth, start = (W[j] - W[others]) @ v, b[j] - b[others]
    own = f - (x @ W[j] + b[j])
    ray = count * EPS * np.exp(-((start[None] + R[:, None] * growth[None]).min(1)) / EPS)
    far = np.asarray(_along(W, b, np.array([2000 * v] * len(R)))[0])[0] / 2000
    twins = np.concatenate([W, W[j : j + 1]]), np.append(b, b[j])
    return evidence(
        at_most(
            "f − z_max above its bound by the gap", (f - z[:, -1] - bound).max(), 0.0, slack=1e-13
        ),
        at_most("f − z_j along a ray above (N−1)ε e^{−Δ/ε}", (own - ray).max(), 0.0, slack=1e-13),
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
    check=lambda fast: _measure(7.0),
    fault="a tenth of one atom is counted for the other seven",
    control=lambda fast: Evidence(_measure(0.1).findings[:2]),
    recorded="holds within its bound",
)

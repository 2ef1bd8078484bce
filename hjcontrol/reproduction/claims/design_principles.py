r"""Rules for the designer, collected from page and summary, each tried once.

1 eps = N^{-1/d}   2 grow width by 2^d to halve the error   3 raise eps for a smaller curvature
6 watch the gap over eps log N   8 anneal eps -> 0 for a tree   9 depth for functions that are not convex
"""

import jax
import numpy as np

from hjcontrol.analysis.temperature import window
from hjcontrol.layers import LSE
from hjcontrol.reproduction import by_hand
from hjcontrol.reproduction.claim import Claim, Evidence, evidence
from hjcontrol.reproduction.claims.effective_dimension import loss_exponent
from hjcontrol.reproduction.claims.hessian_bound import covariance, published_layer
from hjcontrol.reproduction.claims.setting import cloud
from hjcontrol.reproduction.finding import at_least, at_most, equal


@jax.jit
def _values(W, b, x, eps):
    layer = LSE(W, b, eps)
    return jax.vmap(layer)(x), jax.vmap(layer.scores)(x)


def _measure(margin: float) -> Evidence:
    low, high = (float(a) for a in (window(100, 2).floor, window(100, 2).ceiling))
    halving = [2 ** (2 / loss_exponent(d)) for d in (1, 2)]
    W, x0 = published_layer()
    norms = [np.linalg.norm(covariance(W, x0, e), 2) for e in (0.05, 0.1)]
    W, b = cloud(61, 12, 2)
    x = np.random.default_rng(62).uniform(-2, 2, (500, 2))
    f, z = (np.asarray(a) for a in _values(W, b, x, 0.1))
    top = np.sort(z, axis=1)
    sure = top[:, -1] - top[:, -2] > margin * 0.1 * np.log(12)
    share = by_hand.weights(z, 0.1).max(1)[sure]
    middle = np.asarray(_values(W, b, (x[:250] + x[250:]) / 2, 0.1)[0])
    bend = ((f[:250] + f[250:]) / 2 - middle).min()
    return evidence(
        at_most("1: ε = N^{−1/d} against the window's upper end, N = 100, d = 2", 0.1, high),
        equal("2: width factor that halves the error, d = 1, 2", halving, [2.0, 4.0], 0.1),
        at_most("3: curvature at ε = 0.1 against 0.05", norms[1], norms[0]),
        at_least("6: weight of the winner where Δ > ε log N", share.min(), 0.5),
        at_most(
            "8: f_ε − f_0 against ε log N", (f - z.max(1)).max(), 0.1 * np.log(12), slack=1e-14
        ),
        at_least("9: convexity of one layer, midpoint test", bend, 0.0, slack=1e-12),
        equal(
            "2: the factor is 2^{d/2} for a smooth target",
            halving,
            [2**0.5, 2.0],
            0.1,
            role="instead",
        ),
        at_least("1: the window is not empty", high / low, 1.0, role="instead"),
    )


CLAIM = Claim(
    id="design-principles",
    title="Design principles that follow from the theory",
    source="appendix J (list not seen); collected from page and summary",
    published="Set ε ≈ N^{−1/d}; grow width by 2^d to halve the error; raise ε for robustness; "
    "watch Δ/ε against log N; anneal ε for a tree; use depth for what is not convex.",
    precise="Watching the gap, annealing and depth rest on exact bounds. The others are rules of "
    "thumb: N^{−1/d} lies above the admissible window, smooth targets need 2^{d/2}, and "
    "curvature need not fall with ε.",
    check=lambda fast: _measure(1.0),
    fault="the lead asked for is a hundredth",
    control=lambda fast: Evidence(_measure(0.01).findings[3:4]),
    recorded="heuristic",
    rule=True,
)

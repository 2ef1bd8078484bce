r"""A layer of one input is a KP tau function.

    tau = sum_j a_j exp(k_j x + k_j^2 y + k_j^3 t),     (D_x^4 - 4 D_x D_t + 3 D_y^2) tau.tau = 0

Termwise (a-b)^4 - 4 (a-b)(a^3-b^3) + 3 (a^2-b^2)^2 = 0. Generic weights in the plane are not so.
"""

import jax
import numpy as np

from hjcontrol.layers import LSE
from hjcontrol.reproduction import by_hand
from hjcontrol.reproduction.claim import Claim, Evidence, evidence
from hjcontrol.reproduction.finding import at_least, zero
from hjcontrol.reproduction.questions.solitons import kp


def _hirota(k: np.ndarray, ell: np.ndarray, m: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The bilinear form at points `(n, 3)` for phases `k x + l y + m t`, over the sum of its terms'
    sizes."""
    e = np.exp(x @ np.stack([k, ell, m]) - (x @ np.stack([k, ell, m])).max(1, keepdims=True))
    a, b, c = (v[:, None] - v[None, :] for v in (k, ell, m))
    terms = a**4, -4 * a * c, 3 * b**2
    total = np.einsum("ni,ij,nj->n", e, sum(terms), e)
    size = np.einsum("ni,ij,nj->n", e, sum(np.abs(t) for t in terms), e)
    return total / size


@jax.jit
def _ours(W, b, x, y, s):
    found = jax.vmap(lambda a, t, r: kp(LSE(W, b, 0.5), a, t, r))(x, y, s)
    return found.residual / found.size, found.field


def _measure(power: int, curved: bool = False) -> Evidence:
    """`curved`: the weights in the plane lie on the curve (k, k²)."""
    rng = np.random.default_rng(17)
    k, x = rng.uniform(-1.5, 1.5, 6), rng.uniform(-1, 1, (50, 3))
    W = rng.uniform(-1.5, 1.5, (6, 2))
    if curved:
        W[:, 1] = W[:, 0] ** 2
    ours, field = _ours(k[:, None] / 2, 0.1 * k, x[:, :1], x[:, 1], x[:, 2])
    share = by_hand.weights(x @ np.stack([k, k**2, k**3]) + 0.2 * k, 1.0)
    by_moments = 2 * (share @ k**2 - (share @ k) ** 2)
    plane = _hirota(W[:, 0], W[:, 1], W[:, 0] ** 3, x)
    return evidence(
        zero("Hirota's form, weights in the plane", plane, 1e-12),
        zero(
            "Hirota's form, scalar input",
            _hirota(k, k**2, k**power, x),
            1e-12,
            role="amended",
            published="≤ 2e-14",
        ),
        zero("Hirota's form of our layer, scalar input", np.asarray(ours), 1e-12, role="amended"),
        zero("the field − by moments", np.asarray(field) - by_moments, 1e-12, role="amended"),
        at_least("how far the plane is from it", np.abs(plane).max(), 0.1, role="instead"),
    )


CLAIM = Claim(
    id="solitons",
    title="Layers are tau functions of the KP hierarchy",
    source="appendix M (statement not seen)",
    published="A log-sum-exp layer is the logarithm of a KP tau function; tropical limits are "
    "soliton graphs.",
    precise="For scalar input, with k_j = W_j/ε, y the flow's time and ε → 0 the tropical contour "
    "of line solitons. In the plane only weights on the curve (k, k²) do.",
    check=lambda fast: _measure(3),
    fault="the weights in the plane lie on the curve (k, k²); and the t-phase is k⁴",
    control=lambda fast: Evidence(_measure(4, curved=True).findings[:2]),
    recorded="holds once amended",
)

r"""a (+)_eps b = eps log(e^{a/eps} + e^{b/eps}),

    a (*) b = a + b.
    Is eps -> 0 a homomorphism onto max-plus?

For each eps, s -> eps log s is an isomorphism from (R>=0, +, *). A homomorphism into max-plus would
have to
send a (+)_eps b to max(a, b); what is tied shows that it cannot.
"""

import jax
import numpy as np

from hjcontrol.deformation import lse
from hjcontrol.reproduction.claim import Claim, Evidence, evidence
from hjcontrol.reproduction.finding import at_most, zero

EPS = 0.3


@jax.jit
def _plus(a, b, eps):
    return jax.vmap(lambda p, q: lse(jax.numpy.stack([p, q]), eps))(a, b)


def _measure(scale: float, eps: float) -> Evidence:
    """The homomorphism is tried at `eps`, the laws at EPS."""
    a, b, c = np.random.default_rng(0).uniform(-2, 2, (3, 200))
    plus = lambda p, q: np.asarray(_plus(p, q, EPS)) * scale
    homomorphism = np.abs(np.asarray(_plus(a, a, eps)) - a)  # max(a, a) = a
    s, r = np.exp(a), np.exp(b)
    image = EPS * np.log(s + r) - plus(EPS * np.log(s), EPS * np.log(r))
    return evidence(
        zero("a ⊕ a − max(a, a), ε = 0.3", homomorphism, 1e-12),
        zero("ε log(s + r) − (ε log s ⊕ ε log r)", image, 1e-14, role="instead"),
        zero("associativity", plus(plus(a, b), c) - plus(a, plus(b, c)), 1e-14, role="instead"),
        zero("distributivity", plus(a + c, b + c) - c - plus(a, b), 1e-14, role="instead"),
        at_most(
            "|a ⊕ b − max(a, b)|",
            np.abs(plus(a, b) - np.maximum(a, b)).max(),
            EPS * np.log(2),
            slack=1e-15,
            role="instead",
        ),
    )


def _control(fast: bool) -> Evidence:
    del fast
    return _measure(1.1, 0.0)


CLAIM = Claim(
    id="semiring-limit",
    title="The limit ε → 0 is an exact homomorphism of semirings",
    source="project page: Maslov dequantisation",
    published="Passing to the limit is an exact semiring homomorphism from (+, ×) to (max, +).",
    precise="For each ε > 0, s ↦ ε log s is an isomorphism onto (⊕_ε, +). Those semirings "
    "converge to max-plus, which is idempotent and isomorphic to none of them: |a ⊕_ε b − max(a, "
    "b)| ≤ ε log 2, attained at a = b.",
    check=lambda fast: _measure(1.0, EPS),
    fault="the soft sum is a tenth too large; and the first is tried at ε = 0 itself",
    control=_control,
    recorded="fails as stated",
)

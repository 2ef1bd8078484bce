r"""Is a head the gradient of a Hamilton-Jacobi solution in the query?

d out/d q = Cov_pi(V, K)/eps,   symmetric for every q only if V is K times a symmetric matrix
"""

import jax
import numpy as np

from hjcontrol.layers import LSE, Attention
from hjcontrol.reproduction.claim import Claim, Evidence, evidence, those
from hjcontrol.reproduction.finding import at_least, zero

EPS = 2.0


@jax.jit
def _head(q, k, v):
    out = lambda a: Attention(EPS)(a[None], k, v).output[0]
    return out(q), jax.jacfwd(out)(q), jax.grad(LSE(k, np.zeros(12), EPS))(q)


def _measure(mix: float, of_keys: bool = False) -> Evidence:
    """`mix` of another V in what should be V = K; `of_keys`: the general V is K."""
    rng = np.random.default_rng(8)
    q, k, v = rng.standard_normal(4), rng.standard_normal((12, 4)), rng.standard_normal((12, 4))
    twist = np.asarray(_head(q, k, k if of_keys else v)[1])
    out, plain, slope = (np.asarray(a) for a in _head(q, k, k + mix * v))
    return evidence(
        zero("curl of a head with general V", twist - twist.T, 1e-12),
        at_least("its size", np.abs(twist - twist.T).max(), 0.05, role="instead"),
        zero("curl with V = K", plain - plain.T, 1e-14, role="amended"),
        zero("output with V = K − ∇_q lse(Kq)", out - slope, 1e-14, role="amended"),
    )


def _control(fast: bool) -> Evidence:
    del fast
    found = _measure(0.2, of_keys=True)
    return Evidence(those(found, "curl of a head", "curl with V", "output with V"))


CLAIM = Claim(
    id="attention-gradient",
    title="A transformer head is a Hamilton–Jacobi gradient",
    source="main text, transformers",
    published="Attention heads compute gradients of solutions of the equation.",
    precise="Only for V = K (or K times a symmetric matrix): ∂out/∂q = Cov_π(V, K)/ε is else not "
    "symmetric. With a general V a head is a Gibbs average of another observable.",
    check=lambda fast: _measure(0.0),
    fault="the general V is K, and a fifth of another V is mixed into K",
    control=_control,
    recorded="holds once amended",
)

r"""SiLU:

x sigmoid(x/eps) = E_pi[z] = lse(z, eps) - eps H(pi) = (1 - eps d/deps) lse(z, eps),
z = (x, 0).
"""

import jax
import jax.numpy as jnp
import numpy as np

from hjcontrol.deformation import gibbs_entropy, lse
from hjcontrol.layers import SiLU
from hjcontrol.reproduction.claim import Claim, Evidence, evidence
from hjcontrol.reproduction.finding import zero

X = np.linspace(-6, 6, 121)


@jax.jit
def _routes(x, eps):
    z = jnp.stack([x, jnp.zeros_like(x)], axis=1)
    energy = jax.vmap(lambda r: lse(r, eps) - eps * gibbs_entropy(r, eps))(z)
    value, slope = jax.vmap(
        lambda r: jax.jvp(lambda e: lse(r, e), (jnp.asarray(eps),), (jnp.ones_like(eps),))
    )(z)
    return SiLU(eps)(x), energy, value - eps * slope


def _measure(entropy: float) -> Evidence:
    apart = []
    for eps in (1.0, 0.4):
        silu, energy, dilation = (np.asarray(a) for a in _routes(X, jnp.asarray(eps)))
        hand = X / (1 + np.exp(-X / eps))
        lost = (1 - entropy) * eps * np.log(2) * np.exp(-np.abs(X))
        apart.append([silu - hand - lost, energy - hand - lost, dilation - hand - lost])
    return evidence(
        zero("SiLU − x/(1 + e^{−x/ε})", [a[0] for a in apart], 1e-14),
        zero("lse − εH − SiLU", [a[1] for a in apart], 1e-14),
        zero("(1 − ε∂_ε) lse − SiLU", [a[2] for a in apart], 1e-14),
    )


CLAIM = Claim(
    id="silu",
    title="SiLU is an energy without its entropy",
    source="project page, table of activations (left open there)",
    published="SiLU is x times the gradient of a two-atom layer; its place in the theory is left "
    "open.",
    precise="xσ(x/ε) = E_π[z] = lse_ε(x, 0) − εH(π) = (1 − ε∂_ε) lse_ε(x, 0): the mean energy of "
    "a two-atom Gibbs state. It closes the gap; it is not convex, so it is no layer of the class "
    "itself.",
    check=lambda fast: _measure(1.0),
    fault="part of the entropy is kept",
    control=lambda fast: _measure(0.0),
    recorded="holds exactly",
)

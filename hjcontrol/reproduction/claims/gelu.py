r"""GELU is heat flow of ReLU, less its curvature.

x Phi(x/s) = R - s^2 R_xx,     R(x, s^2) = x Phi(x/s) + s phi(x/s)
R_tau = R_xx/2,                R(x, 0) = max(x, 0)
"""

import jax
import jax.numpy as jnp
import numpy as np

from hjcontrol.layers import GELU
from hjcontrol.reproduction.claim import Claim, Evidence, evidence
from hjcontrol.reproduction.finding import zero

X = np.linspace(-4, 4, 81)
NODES = np.linspace(-9, 9, 2001)


@jax.jit
def _routes(x, tau):
    def flow(a, v):  # ReLU after heat flow of variance v
        s = jnp.sqrt(v)
        return a * jax.scipy.stats.norm.cdf(a / s) + s * jax.scipy.stats.norm.pdf(a / s)

    curve = jax.vmap(jax.grad(jax.grad(flow)), (0, None))(x, tau)
    rate = jax.vmap(jax.grad(flow, argnums=1), (0, None))(x, tau)
    value = jax.vmap(flow, (0, None))(x, tau)
    return GELU(jnp.sqrt(tau))(x), value, curve, rate


def _measure(half: float) -> Evidence:
    apart = []
    for s in (1.0, 0.5):
        gelu, flow, curve, rate = (np.asarray(a) for a in _routes(X, jnp.asarray(s * s)))
        kernel = np.exp(-(NODES**2) * half) / np.exp(-(NODES**2) * half).sum()
        average = np.maximum(X[:, None] + s * NODES, 0) @ kernel
        apart.append(
            (gelu - (flow - 2 * half * s * s * curve), rate - half * curve, flow - average)
        )
    return evidence(
        zero("GELU − (R − σ²R_xx)", [a[0] for a in apart], 1e-14),
        zero("R_τ − ½R_xx", [a[1] for a in apart], 1e-13),
        zero("R − Gaussian average of ReLU, step 0.009", [a[2] for a in apart], 1e-5),
    )


def _control(fast: bool) -> Evidence:
    del fast
    return _measure(1.0)


CLAIM = Claim(
    id="gelu",
    title="GELU is heat flow of ReLU, less its curvature",
    source="project page, table of activations (left open there)",
    published="GELU is x times a heat-kernel integral; its place in the theory is left open.",
    precise="xΦ(x/σ) = R − σ²R_xx where R_τ = ½R_xx from R(·, 0) = ReLU and τ = σ²: linear heat "
    "flow (H = 0), not Hopf–Cole.",
    check=lambda fast: _measure(0.5),
    fault="the heat equation has the coefficient 1 for ½, and its kernel half the variance",
    control=_control,
    recorded="holds exactly",
)

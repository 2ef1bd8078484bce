r"""Any quadratic Hamiltonian:   H(p) = p.Ap,  diffusion eps tr(A hess u),  f + u = x.A^{-1}x/(4t).

u carries (eps/2) log det(4 pi eps t A); the transport cost is (x - y).A^{-1}(x - y)/(4t).
"""

import jax
import numpy as np

from hjcontrol.hamilton_jacobi import Anisotropic, data_of_layer, hopf_cole, pde_residual
from hjcontrol.reproduction import by_hand
from hjcontrol.reproduction.claim import Claim, Evidence, evidence
from hjcontrol.reproduction.claims.setting import cloud
from hjcontrol.reproduction.finding import equal, zero

A = np.array([[1.3, 0.4], [0.4, 0.7]])
T, EPS = 0.8, 0.35


@jax.jit
def _fields(x, W, b, A, D):
    data = data_of_layer(W, b, T, eps=EPS, normalisation="heat", H=Anisotropic(A))
    u = lambda a, s: hopf_cole(data, a, s, EPS, normalisation="heat", H=Anisotropic(A))
    residual = jax.vmap(lambda a: pde_residual(u, a, T, EPS, H=Anisotropic(A), A=D).residual)(x)
    raw = lambda a, s: hopf_cole(data, a, s, EPS, normalisation="raw", H=Anisotropic(A))
    left = jax.vmap(lambda a: pde_residual(raw, a, T, EPS, H=Anisotropic(A), A=A).residual)(x)
    return jax.vmap(lambda a: u(a, T))(x), residual, left


def _measure(diffusion: np.ndarray) -> Evidence:
    W, b = cloud(3, 6, 2)
    x = np.random.default_rng(5).uniform(-2, 2, (12, 2))
    u, residual, left = (np.asarray(a) for a in _fields(x, W, b, A, diffusion))
    f = by_hand.lse(x @ W.T + b, EPS)
    square = np.einsum("ni,ij,nj->n", x, np.linalg.inv(diffusion), x) / (4 * T)
    return evidence(
        zero("f + u − x·A⁻¹x/4t", f + u - square, 1e-13),
        zero("residual of the anisotropic equation", residual, 1e-12),
        equal(
            "residual without the normaliser is −dε/2t",
            left,
            -2 * EPS / (2 * T),
            1e-12,
            role="number",
        ),
    )


CLAIM = Claim(
    id="anisotropic",
    title="The identity holds for anisotropic quadratic Hamiltonians",
    source="abstract and main text; second-hand",
    published="The correspondence is exact for quadratic and for anisotropic quadratic "
    "Hamiltonians.",
    precise="H(p) = p·Ap with diffusion ε tr(A∇²u): W = A⁻¹y/2t, b = −g − y·A⁻¹y/4t − (ε/2) log "
    "det(4πεtA).",
    check=lambda fast: _measure(A),
    fault="the diffusion and the square are isotropic although H is not",
    control=lambda fast: Evidence(_measure(np.eye(2)).findings[:2]),
    recorded="holds exactly",
)

r"""State-space models:

    x' = A x + B u, held over a step D:
    x_+ = e^{DA} x + A^{-1}(e^{DA} - 1) B u, exactly;
the costate of the step is e^{DA^T} p.   H = p.(A x + B u), linear in p, viscosity 0.
"""

import jax
import jax.numpy as jnp
import numpy as np

from hjcontrol.networks import StateSpace, StateSpaceWeights
from hjcontrol.reproduction.claim import Claim, Evidence, evidence
from hjcontrol.reproduction.finding import zero

D, FINE = 0.3, 1000


@jax.jit
def _step(A, B, x, u):
    stage = StateSpace(2, 3, h=jnp.asarray(D))
    move = lambda a: stage.step(a, StateSpaceWeights(A, B), u)
    out, back = jax.vjp(move, x)
    return out, back(out)[0]


def _measure(exact: bool) -> Evidence:
    rng = np.random.default_rng(9)
    A = rng.standard_normal((3, 3)) - 1.5 * np.eye(3)
    B, x, u = rng.standard_normal((3, 2)), rng.standard_normal(3), rng.standard_normal(2)
    held, costate = (np.asarray(a) for a in _step(A, B, x, u))
    if not exact:
        held = x + D * (A @ x + B @ u)
        costate = held + D * A.T @ held
    fine, h, rate = x.copy(), D / FINE, lambda a: A @ a + B @ u
    for _ in range(FINE):
        k1 = rate(fine)
        k2 = rate(fine + h / 2 * k1)
        k3 = rate(fine + h / 2 * k2)
        fine = fine + h / 6 * (k1 + 2 * k2 + 2 * k3 + rate(fine + h * k3))
    w, V = np.linalg.eig(A)
    transposed = (V @ np.diag(np.exp(D * w)) @ np.linalg.inv(V)).real.T
    return evidence(
        zero("held step − 1000 steps of Runge and Kutta", held - fine, 1e-12),
        zero("costate of the step − e^{DA'}p", costate - transposed @ held, 1e-12),
    )


CLAIM = Claim(
    id="state-space",
    title="State-space models are exact steps of a linear Hamiltonian",
    source="abstract (formulas not seen)",
    published="State-space models discretise the same class.",
    precise="With H = p·(Ax + Bu), linear in p and without viscosity, the zero-order hold is no "
    "approximation: x ↦ e^{ΔA}x + A⁻¹(e^{ΔA} − 1)Bu, and the costate step is e^{ΔA'}.",
    check=lambda fast: _measure(True),
    fault="the step is Euler's",
    control=lambda fast: _measure(False),
    recorded="holds exactly",
)

r"""State-space models:   x' = A x + B u, held over a step D:   x_+ = e^{DA} x + A^{-1}(e^{DA} - 1) B u, exactly;
the costate of the step is e^{DA^T} p.   H = p.(A x + B u), linear in p, viscosity 0.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from hjcontrol.control import ControlProblem, backpropagate
from hjcontrol.ledger.claim import Claim, Evidence, evidence
from hjcontrol.ledger.finding import zero

D = 0.3


@jax.jit
def _steps(A, B, x, u):
    E = jax.scipy.linalg.expm(D * A)
    return E, E @ x + jnp.linalg.solve(A, (E - jnp.eye(3)) @ (B @ u))


def _measure(exact: bool) -> Evidence:
    rng = np.random.default_rng(9)
    A = rng.standard_normal((3, 3)) - 1.5 * np.eye(3)
    B, x, u = rng.standard_normal((3, 2)), rng.standard_normal(3), rng.standard_normal(2)
    E, held = (np.asarray(a) for a in _steps(A, B, x, u))
    if not exact:
        E, held = np.eye(3) + D * A, x + D * (A @ x + B @ u)
    fine, n = x.copy(), 4000
    h, rate = D / n, lambda a: A @ a + B @ u
    for _ in range(n):
        k1 = rate(fine)
        k2 = rate(fine + h / 2 * k1)
        k3 = rate(fine + h / 2 * k2)
        fine = fine + h / 6 * (k1 + 2 * k2 + 2 * k3 + rate(fine + h * k3))
    problem = ControlProblem(
        [lambda s: E @ s], x[None], terminal=lambda s: jnp.sum(s**2) / 2
    )
    _, _, costates, _ = eqx.filter_jit(backpropagate)(problem, problem.init(jax.random.key(0)))
    w, V = np.linalg.eig(A)
    transposed = (V @ np.diag(np.exp(D * w)) @ np.linalg.inv(V)).real.T
    p = transposed @ (E @ x)
    return evidence(
        zero("held step − 4000 steps of Runge and Kutta", held - fine, 1e-12),
        zero("costate of the step − e^{DA'}p", np.asarray(costates[0])[0] - p, 1e-12),
    )


CLAIM = Claim(
    id="state-space",
    title="State-space models are exact steps of a linear Hamiltonian",
    source="abstract (formulas not seen)",
    published="State-space models discretise the same class.",
    precise="With H = p·(Ax + Bu), linear in p and without viscosity, the zero-order hold is no approximation: "
    "x ↦ e^{ΔA}x + A⁻¹(e^{ΔA} − 1)Bu, and the costate step is e^{ΔA'}.",
    check=lambda fast: _measure(True),
    fault="the step is Euler's",
    control=lambda fast: _measure(False),
    recorded="holds exactly",
)

r"""The linear-quadratic reference problem: where every solver has one and the same answer.

    minimise   (1/n) sum_i [ 1/2 |x_K^i - y^i|^2 + sum_k (q/2) |x_k^i|^2 ] + sum_k (rho/2) |b_k|^2
    s.t.       x_{k+1}^i = A_k x_k^i + B_k b_k

The weights are the biases `b_k` and enter additively, so `J` is a strictly convex quadratic for
`rho > 0`, whose minimiser linear algebra finds without any of our derivatives. Weights that multiply
states would make the problem bilinear, and Riccati's answer no longer the answer.
"""

import equinox as eqx
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from hjcontrol._ground.arguments import admits
from hjcontrol.control.costs import Ridge, StateCost, least_squares
from hjcontrol.control.problem import ControlProblem
from hjcontrol.networks import Driven


@admits(ridge=">= 0")
def linear_quadratic(
    A: ArrayLike,
    B: ArrayLike,
    inputs: ArrayLike,
    targets: ArrayLike,
    *,
    ridge: ArrayLike,
    state: ArrayLike = 0.0,
) -> ControlProblem:
    """Linear stages whose biases are the controls, least squares at the end, ridge on the biases.

    **Arguments:**

    - `A`: `(K, d, d)`, the stages' matrices; `B`: `(K, d, m)`, how each stage's bias enters.
    - `inputs`, `targets`: `(n, d)`.
    - `ridge`: `rho >= 0` on every bias; `state`: `q >= 0` on every state before the last.

    **Raises:** `ValueError` for shapes that do not fit.
    """
    A, B, inputs, targets = (jnp.asarray(a) for a in (A, B, inputs, targets))
    square = A.ndim == 3 and A.shape[1] == A.shape[2]
    fits = square and B.ndim == 3 and B.shape[:2] == A.shape[:2]
    if not fits or inputs.ndim != 2 or inputs.shape[1] != A.shape[1]:
        raise ValueError(
            "linear_quadratic: `A` (K, d, d), `B` (K, d, m) and `inputs` (n, d) are needed; found "
            f"{A.shape}, {B.shape} and {inputs.shape}."
        )
    if targets.shape != inputs.shape:
        raise ValueError(
            f"linear_quadratic: `targets` must be shaped like `inputs`, {inputs.shape}; "
            f"found {targets.shape}."
        )
    return ControlProblem(
        [Driven(a, b) for a, b in zip(A, B, strict=True)],
        inputs,
        targets,
        terminal=least_squares,
        running=[Ridge(ridge), StateCost(_Energy(state))],
    )


class _Energy(eqx.Module):
    """`(q/2) |x|^2`, whatever the weights are."""

    q: Float[Array, ""] = eqx.field(converter=jnp.asarray)

    def __call__(self, x: Float[Array, " d"], theta: Float[Array, " m"]) -> Float[Array, ""]:
        del theta
        return 0.5 * self.q.astype(x.dtype) * jnp.sum(x**2)

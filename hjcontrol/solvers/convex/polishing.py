r"""Joint polish of slopes and biases: Levenberg-Marquardt on the plain mean square.

    minimise over (W, b)   (1/2n) sum_i (lse(W x_i + b, eps) - y_i)^2

Not convex: what is certified is stationarity, max |dJ/dtheta|, and that no step raised J. Started from
a convex fit it needs few steps. Jacobian row of sample i: pi_j(x_i) (x_i, 1) in the block of atom j.
"""

import time

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jax.typing import ArrayLike
from jaxtyping import Float

from hjcontrol._ground.results import RESULTS
from hjcontrol.control import ControlProblem, Solution, least_squares
from hjcontrol.control.units import unit
from hjcontrol.networks import AffineWeights, Dense, soft_maximum
from hjcontrol.solvers.convex.problem import checked_samples, host, one_blas_thread, plain_answer

TRIES = 8  # dampings tried before a step is given up


def mean_square_problem(inputs: ArrayLike, targets: ArrayLike, stage: Dense) -> ControlProblem:
    """Training of all weights of a log-sum-exp layer on the mean square, as a control problem."""
    return ControlProblem([stage], inputs, jnp.asarray(targets)[:, None], terminal=least_squares)


def polish(
    inputs: ArrayLike,
    targets: ArrayLike,
    theta: AffineWeights,
    eps: ArrayLike,
    *,
    tol: float = 1e-8,
    decrease: float = 0.0,
    max_steps: int = 50,
) -> Solution:
    """Polish slopes and biases `theta` together: a stationary point of the mean square, of which nothing
    more is proven. `history.objective` has `(1/2n) sum r^2` after each step.

    `tol`: stop once `max |dJ/dtheta|` is below it, in the unit (see `control.units`) of what the targets
    contribute, `max_j mean_i |y^i| |df^i/dtheta_j|` at the start; `decrease`: or once a step lowers J by
    a smaller share. **Raises:** `ValueError` for wrong shapes or `eps <= 0`.
    """
    clock = time.perf_counter()
    inputs, targets = checked_samples("polish", inputs, targets)
    count, d = theta.W.shape
    if d != inputs.shape[1] or theta.b.shape != (count,) or not float(np.asarray(eps)) > 0:
        raise ValueError(
            f"polish: W (N, {inputs.shape[1]}), b (N,) and eps > 0 are needed; found "
            f"{theta.W.shape}, {theta.b.shape} and {eps}."
        )
    model = _Layer(host(inputs), host(targets), float(np.asarray(eps)))
    T = np.column_stack([host(theta.W), host(theta.b)])
    with one_blas_thread():
        tol = tol * model.unit(T)
        T, history, size, stuck = _levenberg_marquardt(model, T, tol, decrease, max_steps)
    if size <= tol:
        result = RESULTS.successful
    else:
        result = RESULTS.stagnated if stuck else RESULTS.max_steps_reached
    stage = soft_maximum(d, count, jnp.asarray(eps, inputs.dtype))
    new = AffineWeights(jnp.asarray(T[:, :-1], inputs.dtype), jnp.asarray(T[:, -1], inputs.dtype))
    return plain_answer(
        mean_square_problem(inputs, targets, stage),
        (jax.tree.map(lambda a: a[None], new),),
        jnp.asarray(history[-1], inputs.dtype),
        result,
        seconds=time.perf_counter() - clock,
        steps=len(history) - 1,
        solver="Levenberg-Marquardt on slopes and biases",
        stationarity=size,
        history=np.array(history),
    )


class _Layer:
    """Residuals, Gibbs weights and normal equations of the layer on the samples."""

    def __init__(self, x: Float[np.ndarray, "n d"], y: Float[np.ndarray, " n"], eps: float):
        self.x, self.y, self.eps = np.column_stack([x, np.ones(len(x))]), y, eps

    def residual(self, T: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        z = self.x @ T.T / self.eps
        top = z.max(axis=1, keepdims=True)
        np.exp(z - top, out=z)
        total = z.sum(axis=1, keepdims=True)
        return (self.eps * (top + np.log(total)))[:, 0] - self.y, z / total

    def unit(self, T: np.ndarray) -> float:
        """Of the gradient: of its summands, were the residuals as large as the targets."""
        _, pi = self.residual(T)
        size = (np.abs(self.y)[:, None] * pi).T @ np.abs(self.x) / len(self.y)
        return float(unit(jnp.asarray(size.max())))

    def normal_equations(self, pi: np.ndarray, r: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Lower triangle of `J^T J / n`, and the gradient."""
        n = len(r)
        J = (pi[:, :, None] * self.x[:, None, :]).reshape(n, -1)
        return scipy.linalg.blas.dsyrk(1.0 / n, J.T, lower=1), r @ J / n


def _levenberg_marquardt(model, T, tol, decrease, max_steps):
    r, pi = model.residual(T)
    value, damping, history = 0.5 * float(np.mean(r**2)), 1e-3, []
    history.append(value)
    for _ in range(max_steps):
        H, g = model.normal_equations(pi, r)
        size = float(np.abs(g).max())
        if size <= tol:
            return T, history, size, False
        scale = float(np.mean(np.diag(H)))
        step = _damped_step(model, T, H, g, value, damping, scale)
        if step is None:
            return T, history, size, True
        T, r, pi, new, damping = step
        stop = value - new < decrease * value
        value = new
        history.append(value)
        if stop:
            break
    g = model.normal_equations(pi, r)[1]
    return T, history, float(np.abs(g).max()), False


def _damped_step(model, T, H, g, value, damping, scale):
    """The least damped step that lowers the value; `None` if none does."""
    for _ in range(TRIES):
        damped = H.copy(order="F")
        damped[np.diag_indices(len(g))] += damping * scale
        try:
            factor = scipy.linalg.cho_factor(
                damped, lower=True, overwrite_a=True, check_finite=False
            )
        except np.linalg.LinAlgError:
            damping *= 10
            continue
        tried = T - scipy.linalg.cho_solve(factor, g, check_finite=False).reshape(T.shape)
        r, pi = model.residual(tried)
        new = 0.5 * float(np.mean(r**2))
        if new < value:
            return tried, r, pi, new, max(damping / 5, 1e-12)
        damping *= 6
    return None

r"""Training on the host: standardised samples, values with their gradients, L-BFGS.

    z = (x - centre)/scale,  constant features keep their scale          W x + b = (W/scale) x + b - ...
    soft maxima   s_g = lse over group g of the atoms,  d s_g/d z_j = pi_j
    costates      x_{k+1} = x_k + h sigma(W_k x_k + b_k),  p_k = p_{k+1} + h W_k^T (sigma' p_{k+1})

Nothing is compiled: a cross-validation fits many shapes, each of which a compiler would see anew.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.special import logsumexp


class Units(NamedTuple):
    """Centre and scale of the columns."""

    centre: np.ndarray
    scale: np.ndarray

    def __call__(self, X: np.ndarray) -> np.ndarray:
        return (X - self.centre) / self.scale

    def back(self, W: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The affine map of standardised inputs as one of the inputs."""
        W = W / self.scale
        return W, b - W @ self.centre


def units_of(X: np.ndarray) -> Units:
    """Mean and standard deviation, in whatever unit a column is measured; one that is constant, up to
    rounding, keeps its scale.

    **Raises:** `ValueError` for numbers whose squares overflow.
    """
    with np.errstate(over="ignore"):
        centre, spread = X.mean(axis=0), X.std(axis=0)
    if not np.isfinite(spread).all():
        k = int(np.flatnonzero(~np.isfinite(spread))[0])
        raise ValueError(
            f"units_of: numbers up to 1e150 can be scaled; found {np.abs(X[:, k]).max():.3g} in column "
            f"{k}. Measure it in a larger unit."
        )
    flat = spread <= 1e-12 * np.abs(centre)
    return Units(centre, np.where(flat, 1.0, spread))


class Descent(NamedTuple):
    """Where L-BFGS ended."""

    theta: np.ndarray
    value: float
    slope: float
    steps: int
    converged: bool


def descend(
    value_and_gradient: Callable[[np.ndarray], tuple[float, np.ndarray]],
    start: np.ndarray,
    max_iter: int,
    tol: float,
) -> Descent:
    """Minimise by L-BFGS until the largest entry of the gradient is at most `tol`."""
    options = {"maxiter": max_iter, "gtol": tol, "ftol": 1e-15, "maxfun": 4 * max_iter}
    found = minimize(value_and_gradient, start, jac=True, method="L-BFGS-B", options=options)
    slope = float(np.abs(found.jac).max(initial=0.0))
    done = slope <= tol or found.status == 0
    return Descent(found.x, float(found.fun), slope, max(1, int(found.nit)), bool(done))


def soft_maxima(z: np.ndarray, eps: float) -> tuple[np.ndarray, np.ndarray]:
    """`lse` and Gibbs weights along the last axis; `eps = 0`: the maximum and its first place."""
    if eps == 0:
        return z.max(axis=-1), np.eye(z.shape[-1])[z.argmax(axis=-1)]
    value = eps * np.asarray(logsumexp(z / eps, axis=-1))
    return value, np.exp((z - value[..., None]) / eps)


def pieces(X: np.ndarray, W: np.ndarray, b: np.ndarray) -> np.ndarray:
    """`W x + b` of every sample, atoms in their groups: `(n, groups, atoms)`."""
    return (X @ W.reshape(-1, W.shape[-1]).T).reshape(len(X), *b.shape) + b


def cut(theta: np.ndarray, shapes: Sequence[tuple[int, ...]]) -> list[np.ndarray]:
    """A flat vector as arrays of these shapes."""
    ends = np.cumsum([int(np.prod(s)) for s in shapes])
    return [p.reshape(s) for p, s in zip(np.split(theta, ends[:-1]), shapes, strict=True)]


def joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Arrays as one flat vector."""
    return np.concatenate([np.ravel(p) for p in parts])


class Slopes(NamedTuple):
    """An activation and its derivative."""

    value: Callable[[np.ndarray], np.ndarray]
    slope: Callable[[np.ndarray], np.ndarray]


ACTIVATIONS = {
    "relu": Slopes(lambda a: np.maximum(a, 0.0), lambda a: (a > 0).astype(a.dtype)),
    "tanh": Slopes(np.tanh, lambda a: 1.0 - np.tanh(a) ** 2),
}


def residual_network(
    theta: Sequence[np.ndarray], X: np.ndarray, h: float, activation: str
) -> tuple[np.ndarray, list[np.ndarray], list[np.ndarray]]:
    """Outputs, and what the costates need: states and affine parts of every step."""
    sigma, x = ACTIVATIONS[activation], X @ theta[0].T + theta[1]
    states, parts = [x], []
    for k in range(2, len(theta) - 2, 2):
        parts.append(x @ theta[k].T + theta[k + 1])
        x = x + h * sigma.value(parts[-1])
        states.append(x)
    return x @ theta[-2].T + theta[-1], states, parts


def by_costates(
    theta: Sequence[np.ndarray],
    X: np.ndarray,
    h: float,
    activation: str,
    terminal: Callable[[np.ndarray], tuple[float, np.ndarray]],
) -> tuple[float, list[np.ndarray]]:
    """Cost and its gradient: `terminal(outputs)` gives the cost and its slope, costates carry it back."""
    out, states, parts = residual_network(theta, X, h, activation)
    cost, p = terminal(out)
    slope = ACTIVATIONS[activation].slope
    gradient: list[Any] = [p.sum(axis=0), p.T @ states[-1]]
    p = p @ theta[-2]
    for k in range(len(parts) - 1, -1, -1):
        inner = h * slope(parts[k]) * p
        gradient += [inner.sum(axis=0), inner.T @ states[k]]
        p = p + inner @ theta[2 + 2 * k]
    gradient += [p.sum(axis=0), p.T @ X]
    return cost, gradient[::-1]

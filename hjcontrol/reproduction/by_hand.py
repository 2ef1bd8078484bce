r"""The formulas once more, in NumPy, without the library: the independent route of the checks.

    lse(z, eps) = max z + eps log sum exp((z - max z)/eps)        weights = exp((z - lse)/eps)

Rows are the last axis. eps = 0 is `max`. No function here calls the library that it checks.
"""

import numpy as np

Rows = np.ndarray


def lse(z: Rows, eps: float) -> Rows:
    """Soft maximum of each row."""
    top = z.max(axis=-1)
    if eps == 0:
        return top
    return top + eps * np.log(np.exp((z - top[..., None]) / eps).sum(axis=-1))


def weights(z: Rows, eps: float) -> Rows:
    """Gibbs weights of each row."""
    e = np.exp((z - z.max(axis=-1, keepdims=True)) / eps)
    return e / e.sum(axis=-1, keepdims=True)


def entropy(p: Rows) -> Rows:
    """Shannon entropy of each row, 0 log 0 = 0."""
    return -np.sum(np.where(p > 0, p * np.log(np.where(p > 0, p, 1.0)), 0.0), axis=-1)


def energies(x: Rows, y: Rows, g: Rows, t: float) -> Rows:
    """`g_j + |x_i - y_j|^2/(4t)`, `(n, N)`, for points `(n, d)` and atoms `(N, d)`."""
    square = (x**2).sum(-1)[:, None] + (y**2).sum(-1)[None, :] - 2 * x @ y.T
    return g[None, :] + np.maximum(square, 0.0) / (4 * t)


def slope(n: Rows, e: Rows) -> float:
    """Least-squares slope of `log e` against `log n`."""
    return float(np.polyfit(np.log(np.asarray(n, float)), np.log(np.asarray(e, float)), 1)[0])


def adam(gradient, W: Rows, b: Rows, steps: int, rate: float) -> tuple[Rows, Rows]:
    """Weights and biases after `steps` of Adam (0.9, 0.999, 1e-8) along `gradient(W, b)`."""
    theta = [W.copy(), b.copy()]
    m, v = [0.0, 0.0], [0.0, 0.0]
    for k in range(1, steps + 1):
        for i, g in enumerate(gradient(*theta)):
            m[i] = 0.9 * m[i] + 0.1 * g
            v[i] = 0.999 * v[i] + 0.001 * g * g
            theta[i] = theta[i] - rate * (m[i] / (1 - 0.9**k)) / (
                np.sqrt(v[i] / (1 - 0.999**k)) + 1e-8
            )
    return theta[0], theta[1]


def squares(x: Rows, y: Rows, eps: float):
    """Gradient of the mean square of `lse(x W^T + b) - y` in `W` `(N, d)` and `b` `(N,)`."""

    def gradient(W: Rows, b: Rows) -> tuple[Rows, Rows]:
        z = (x @ W.T + b) / eps
        z -= z.max(axis=1, keepdims=True)
        np.maximum(z, -80.0, out=z)  # denormals cost more than they weigh
        top = (x @ W.T + b).max(axis=1)
        e = np.exp(z, out=z)
        total = e.sum(axis=1)
        r = (2 / len(x)) * (top + eps * np.log(total) - y) / total
        return e.T @ (r[:, None] * x), e.T @ r

    return gradient


def least_squares(x: Rows, y: Rows, W: Rows, b: Rows, eps: float, **options):
    """SciPy's L-BFGS-B on the mean square of `lse(x W^T + b) - y`, from `W` and `b`: the least mean
    square found, with its `W` `(N, d)` and `b` `(N,)`."""
    from scipy.optimize import minimize

    slopes, cut = squares(x, y, eps), W.size

    def objective(p: Rows) -> tuple[float, Rows]:
        at = p[:cut].reshape(W.shape), p[cut:]
        error = lse(x @ at[0].T + at[1], eps) - y
        return float(np.mean(error**2)), np.concatenate([a.ravel() for a in slopes(*at)])

    start = np.concatenate([W.ravel(), b])
    found = minimize(objective, start, jac=True, method="L-BFGS-B", options=options)
    return float(found.fun), found.x[:cut].reshape(W.shape), found.x[cut:]

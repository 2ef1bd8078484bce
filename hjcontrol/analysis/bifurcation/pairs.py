r"""Critical points as zeros of a sum over pairs of atoms, which stays accurate however cold.

    g(x) = sum over i < j of (W_i - W_j) s_ij e^{E_ij}          s_ij = s_i - s_j,  s = (W x + b)/eps
    E_ij = s_i + s_j - s_p - s_q                                (p, q): the two largest logits at x

g is Cov_pi(W, s) = -eps grad H times a positive factor, so it has the same zeros with the same
signs; but its largest term is of order one where grad H is 1e-300. In two dimensions its rows are
taken along W_p - W_q and across, where the pair (p, q) drops out exactly: on a cold ridge the
second row is what decides. `lam = log eps` is the parameter of a family: d s/d lam = -s.
"""

from typing import NamedTuple

import numpy as np


class Pairs(NamedTuple):
    """All pairs of atoms: `first`, `second` (K,), slope and offset of `z_i - z_j` and of `z_i + z_j`."""

    first: np.ndarray
    second: np.ndarray
    slope: np.ndarray  # (K, d)
    offset: np.ndarray
    slope_sum: np.ndarray
    offset_sum: np.ndarray
    W: np.ndarray
    b: np.ndarray


class Field(NamedTuple):
    """g at one point and its derivatives; rows are scaled, which moves no zero."""

    value: np.ndarray  # (d,)
    jacobian: np.ndarray  # (d, d): row a, derivative along x_b
    slope: np.ndarray  # (d,): in lam
    bend: np.ndarray  # (d, d, d): derivative of the jacobian along x_c
    twist: np.ndarray  # (d, d): derivative of the jacobian in lam


def pairs_of(W: np.ndarray, b: np.ndarray) -> Pairs:
    """The table of pairs; needs two atoms."""
    i, j = np.triu_indices(len(b), 1)
    return Pairs(i, j, W[i] - W[j], b[i] - b[j], W[i] + W[j], b[i] + b[j], W, b)


def leading(s: np.ndarray) -> np.ndarray:
    """Which pair holds the two largest logits; `s` (..., N)."""
    n = s.shape[-1]
    two = np.sort(np.argpartition(s, n - 2, axis=-1)[..., n - 2 :], axis=-1)
    i, j = two[..., 0], two[..., 1]
    return np.asarray(i * (2 * n - i - 1) // 2 + (j - i - 1))


def frame(direction: np.ndarray) -> np.ndarray:
    """Orthonormal rows, the first along `direction` (..., d), d = 1 or 2. Shape (..., d, d)."""
    length = np.linalg.norm(direction, axis=-1, keepdims=True)
    axis = np.zeros_like(direction)
    axis[..., 0] = 1.0
    along = np.where(length > 0, direction / np.where(length > 0, length, 1.0), axis)
    if direction.shape[-1] == 1:
        return along[..., None, :]
    across = np.stack([-along[..., 1], along[..., 0]], axis=-1)
    return np.stack([along, across], axis=-2)


def field(pairs: Pairs, x: np.ndarray, lam: float) -> Field:
    """g and its derivatives at one point, rows divided by the sum of their absolute terms."""
    eps = np.exp(lam)
    k = int(leading(pairs.W @ x + pairs.b))
    s = (pairs.slope @ x + pairs.offset) / eps
    p = pairs.slope / eps
    D = (pairs.slope_sum - pairs.slope_sum[k]) / eps
    E = D @ x + (pairs.offset_sum - pairs.offset_sum[k]) / eps
    rows = frame(pairs.slope[k])
    P = pairs.slope @ rows.T  # (K, d)
    P[k, 1:] = 0.0
    P = P * np.exp(np.minimum(E, 0.0))[:, None]
    size = np.abs(P * (1 + np.abs(s[:, None]))).sum(axis=0)
    P = P / np.where(size > 0, size, 1.0)
    inner = p + s[:, None] * D
    return Field(
        value=P.T @ s,
        jacobian=P.T @ inner,
        slope=P.T @ (-s - s * E),
        bend=np.einsum("ka,kb,kc->abc", P, D, p) + np.einsum("ka,kb,kc->abc", P, inner, D),
        twist=P.T @ (-p - 2 * s[:, None] * D - inner * E[:, None]),
    )


def polish(pairs: Pairs, x: np.ndarray, lam: float, steps: int = 40) -> tuple[np.ndarray, float]:
    """Newton at fixed `lam` from a near point; the point, and the length of the last step."""
    last = np.inf
    for _ in range(steps):
        f = field(pairs, x, lam)
        try:
            step = np.linalg.solve(f.jacobian, f.value)
        except np.linalg.LinAlgError:
            return x, np.inf
        x = x - step
        size = float(np.max(np.abs(step)))
        if not np.isfinite(size):
            return x, np.inf
        if size <= 4e-16 * (1 + np.max(np.abs(x))) or (size >= last and size < 1e-12):
            return x, size
        last = size
    return x, last


def kind(pairs: Pairs, x: np.ndarray, lam: float) -> str:
    """`maximum`, `minimum` or `saddle` of the entropy, by the sign of the Jacobian of g."""
    f = field(pairs, x, lam)
    k = int(leading(pairs.W @ x + pairs.b))
    jac = f.jacobian @ frame(pairs.slope[k]).T  # rows are in the frame: the columns too
    if len(x) == 2 and np.linalg.det(jac) < 0:
        return "saddle"
    return "maximum" if jac[0, 0] > 0 else "minimum"  # hess H = -(positive) J

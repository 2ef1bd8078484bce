r"""The point of least norm in a polyhedron (Lawson & Hanson, Solving Least Squares Problems, chapter 23).

    minimise |z|   subject to   C z >= need

With `E = [C, need]^T` and `r = E u - e_{d+1}` at the nonnegative least-squares fit `u`, the answer is
`-r[:d]/r[d]`; the polyhedron is empty exactly when r vanishes.
"""

import numpy as np
import scipy.optimize
from jaxtyping import Float

EMPTY = 1e-13  # a residual below it is roundoff


def least_distance(
    C: Float[np.ndarray, "n d"], need: Float[np.ndarray, " n"]
) -> Float[np.ndarray, " d"] | None:
    """The point of least norm, or `None` if there is none."""
    if np.all(need <= 0):
        return np.zeros(C.shape[1])
    length = np.linalg.norm(C, axis=1)
    rows = length > 0
    if np.any(need[~rows] > 0):
        return None
    C, need = C[rows] / length[rows, None], need[rows] / length[rows]
    scale = np.abs(need).max()
    E = np.vstack([C.T, need / scale])
    target = np.zeros(len(E))
    target[-1] = 1.0
    fit = scipy.optimize.nnls(E, target, maxiter=50 * E.shape[1])[0]
    residual = E @ fit - target
    if -residual[-1] <= EMPTY:
        return None
    return -residual[:-1] / residual[-1] * scale

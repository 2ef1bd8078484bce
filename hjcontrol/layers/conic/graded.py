r"""The one linear system of polish and derivative, and how it is solved.

    K = [[P, C'], [C, -diag tau]]          C = sqrt(sigma) c A

K is graded: a probability of 1e-25 stands beside one of 1, and both are right in it. A least-squares
solution, an equilibration or a multiple of the unit matrix added to K would destroy the small entries.
So K is solved by elimination in the order x, held rows, curvatures, slack rows; what makes it singular,
rows that depend on others and columns that nothing decides, is found beforehand and left out.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jaxtyping import Bool, Float

from hjcontrol.layers.conic.cones import Cones, Either, Layout, namespace
from hjcontrol.layers.conic.splitting import Local, along

RANK = 1e-10  # of the largest pivot, in float64


class Dropped(NamedTuple):
    """Rows and columns that are left out, and the columns that are not determined by the program."""

    columns: Bool[Either, " n"]
    rows: Bool[Either, " m"]
    loose: Bool[Either, " n"]


def dropped(P: Either, A: Either, cones: Cones | Layout, local: Local) -> Dropped:
    """Find both by pivoted QR of rows and columns of unit length."""
    xp = namespace(P)
    m = A.shape[0]
    limit = RANK if P.dtype == np.float64 else 1e-5
    bare = local._replace(sigma=(local.sigma > 0).astype(P.dtype))
    C = _unit_rows(along(cones, bare, A))
    stack = xp.concatenate([_unit_rows(P), C])
    length = xp.linalg.norm(stack, axis=0)
    stack = stack / xp.where(length > 0, length, 1.0)[None]
    columns, loose = _dependent(stack, limit)
    held = (local.tau == 0) & (local.sigma > 0)
    rows = xp.zeros(m, bool)
    if m:
        kept = xp.where(held[:, None] & ~columns[None], C, 0.0)
        rows = _dependent(_unit_rows(kept).T, limit)[0] & held
    return Dropped(columns, rows, loose)


def _unit_rows(M: Either) -> Either:
    xp = namespace(M)
    length = xp.linalg.norm(M, axis=1, keepdims=True)
    return M / xp.where(length > 0, length, 1.0)


def _dependent(M: Either, limit: float) -> tuple[Either, Either]:
    """Columns that the columns before them (in pivot order) span, and all columns in a null vector."""
    xp = namespace(M)
    linalg: Any = scipy.linalg if xp is np else jax.scipy.linalg
    r, n = M.shape
    if r < n:
        M = xp.concatenate([M, xp.zeros((n - r, n), M.dtype)])
    R, pivots = linalg.qr(M, mode="r", pivoting=True)
    R = R[:n]
    size = abs(xp.diagonal(R))
    over = ~(size > limit * xp.maximum(size[0], limit))
    square = xp.where(over[:, None], xp.eye(n, dtype=M.dtype), R)
    square = xp.where((over[None, :] & ~over[:, None]), 0.0, square)
    right = xp.where(over[None, :] & ~over[:, None], R, 0.0)
    mixed = linalg.solve_triangular(square, right)
    touched = over | xp.any(abs(mixed) > limit**0.5, axis=1)
    back = xp.argsort(pivots)
    return over[back], touched[back]


class System(NamedTuple):
    """K with what is left out replaced by the unit matrix, its rows and columns in order."""

    K: Float[Either, "N N"]
    order: Either
    alive: Bool[Either, " N"]


def system(P: Either, A: Either, cones: Cones | Layout, local: Local, out: Dropped) -> System:
    """The matrix."""
    xp = namespace(P)
    n = P.shape[0]
    C = along(cones, local, A)
    K = xp.concatenate(
        [
            xp.concatenate([P, C.T], axis=1),
            xp.concatenate([C, -xp.diag(local.tau)], axis=1),
        ]
    )
    alive = ~xp.concatenate([out.columns, out.rows])
    K = xp.where(alive[:, None] & alive[None, :], K, xp.eye(K.shape[0], dtype=K.dtype))
    kind = xp.where(local.tau == 0, 1, xp.where(local.sigma > 0, 2, 3))
    kind = xp.where(out.rows, 4, kind)
    order = xp.argsort(xp.concatenate([xp.zeros(n, kind.dtype), kind]), stable=True)
    if cones.straight:  # at most n rows hold, and the others know nothing of x
        order = order[: 2 * n]
    return System(K[order][:, order], order, alive)


def solved(K: System, right: Float[Either, " N"]) -> Float[Either, " N"]:
    """K^-1 right, 0 where left out. Linear in `right`: forward and reverse mode pass through."""
    xp = namespace(K.K)
    right = xp.where(K.alive, right, 0.0)
    try:
        out = xp.linalg.solve(K.K, right[K.order])
    except np.linalg.LinAlgError:  # NumPy's; JAX returns what is not finite
        return np.full_like(right, np.nan)
    if xp is np:
        whole = np.zeros_like(right)
        whole[K.order] = out
    else:
        whole = jnp.zeros_like(right).at[K.order].set(out, unique_indices=True)
    return xp.where(K.alive, whole, 0.0)

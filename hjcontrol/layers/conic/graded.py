r"""The one linear system of polish and derivative, and how it is solved.

    K = [[P, C'], [C, -diag tau]]          C = sqrt(sigma) c A

K is graded: a probability of 1e-25 stands beside one of 1, and both are right in it. A least-squares
solution, an equilibration or a multiple of the unit matrix added to K would destroy the small entries.
So K is solved by elimination in the order x, held rows, curvatures, slack rows; what makes it singular,
rows that depend on others and columns that nothing decides, is found beforehand and left out.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from hjcontrol.layers.conic.cones import Cones
from hjcontrol.layers.conic.splitting import Local, along

RANK = 1e-10  # of the largest pivot; about the root of roundoff in float32


class Dropped(NamedTuple):
    """Rows and columns that are left out, and the columns that are not determined by the program."""

    columns: Bool[Array, " n"]
    rows: Bool[Array, " m"]
    loose: Bool[Array, " n"]


def dropped(P: Array, A: Array, cones: Cones, local: Local) -> Dropped:
    """Find both by pivoted QR of rows and columns of unit length."""
    P, A, local = jax.lax.stop_gradient((P, A, local))
    n, m = P.shape[0], A.shape[0]
    limit = RANK if P.dtype == jnp.float64 else 1e-5
    C = along(cones, local._replace(sigma=(local.sigma > 0).astype(P.dtype)), A)
    C = _unit_rows(C)
    stack = jnp.concatenate([_unit_rows(P), C])
    length = jnp.linalg.norm(stack, axis=0)
    stack = stack / jnp.where(length > 0, length, 1.0)
    columns, loose = _dependent(stack, limit)
    held = (local.tau == 0) & (local.sigma > 0)
    rows = jnp.zeros(m, bool)
    if m:
        kept = jnp.where(held[:, None] & ~columns, C, 0.0)
        rows = _dependent(_unit_rows(kept).T, limit)[0] & held
    return Dropped(columns, rows, loose)


def _unit_rows(M: Array) -> Array:
    length = jnp.linalg.norm(M, axis=1, keepdims=True)
    return M / jnp.where(length > 0, length, 1.0)


def _dependent(M: Array, limit: float) -> tuple[Array, Array]:
    """Columns that the columns before them (in pivot order) span, and all columns in a null vector."""
    r, n = M.shape
    if r < n:
        M = jnp.concatenate([M, jnp.zeros((n - r, n), M.dtype)])
    R, pivots = jax.scipy.linalg.qr(M, mode="r", pivoting=True)
    R = R[:n]
    size = jnp.abs(jnp.diagonal(R))
    over = ~(size > limit * jnp.maximum(size[0], limit))
    square = jnp.where(over[:, None], jnp.eye(n, dtype=M.dtype), R)
    square = jnp.where((over[None, :] & ~over[:, None]), 0.0, square)
    right = jnp.where(over[None, :] & ~over[:, None], R, 0.0)
    mixed = jax.scipy.linalg.solve_triangular(square, right)
    touched = over | jnp.any(jnp.abs(mixed) > jnp.sqrt(limit), axis=1)
    none = jnp.zeros(n, bool)
    return none.at[pivots].set(over), none.at[pivots].set(touched)


class System(NamedTuple):
    """K with what is left out replaced by the unit matrix, its rows and columns in order."""

    K: Float[Array, "N N"]
    order: Array
    alive: Bool[Array, " N"]


def system(P: Array, A: Array, cones: Cones, local: Local, out: Dropped) -> System:
    """The matrix."""
    n = P.shape[0]
    C = along(cones, local, A)
    K = jnp.concatenate(
        [
            jnp.concatenate([P, C.T], axis=1),
            jnp.concatenate([C, -jnp.diag(local.tau)], axis=1),
        ]
    )
    alive = ~jnp.concatenate([out.columns, out.rows])
    K = jnp.where(alive[:, None] & alive[None, :], K, jnp.eye(K.shape[0], dtype=K.dtype))
    kind = jnp.where(local.tau == 0, 1, jnp.where(local.sigma > 0, 2, 3))
    order = jnp.argsort(jnp.concatenate([jnp.zeros(n, kind.dtype), kind]), stable=True)
    return System(K[order][:, order], order, alive)


def solved(K: System, right: Float[Array, " N"]) -> Float[Array, " N"]:
    """K^-1 right, 0 where left out. Linear in `right`: forward and reverse mode pass through."""
    right = jnp.where(K.alive, right, 0.0)
    out = jnp.linalg.solve(K.K, right[K.order])
    return jnp.where(K.alive, out[jnp.argsort(K.order)], 0.0)

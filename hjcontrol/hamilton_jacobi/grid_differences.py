r"""Differences on the grid: one-sided slopes for the Hamiltonian, the Laplacian for the viscosity.

    p-_k = (u_k - u_{k-1})/h,  p+_k = (u_{k+1} - u_k)/h                         `first`, order 1
    p-+  = w_0 q_0 + w_1 q_1 + w_2 q_2, a convex combination of three
           third-order slopes, chosen so that none reads across a kink         `weno5`, order 5

    (lap u)_k = sum_j c_j u_{k+j} / h^2     j = -1..1, order 2 (`first`);  j = -3..3, order 6 (`weno5`)

Weights of WENO-Z: Borges, Carmona, Costa, Don, J. Comput. Phys. 227 (2008); slopes of a potential:
Jiang and Peng, SIAM J. Sci. Comput. 21 (2000).
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from hjcontrol.hamilton_jacobi.grid import GHOSTS, Grid

ORDERS = ("first", "weno5")
_LAPLACE = {
    "first": (1.0, -2.0, 1.0),
    "weno5": (1 / 90, -3 / 20, 3 / 2, -49 / 18, 3 / 2, -3 / 20, 1 / 90),
}


def slopes(
    u: Float[Array, "*shape"], grid: Grid, order: str
) -> tuple[Float[Array, "*shape d"], Float[Array, "*shape d"]]:
    """Slopes `p-` from the left and `p+` from the right, along every axis."""
    pairs = [_along(u, grid, order, axis) for axis in range(grid.dimension)]
    left, right = zip(*pairs, strict=True)
    return jnp.stack(left, axis=-1), jnp.stack(right, axis=-1)


def laplacian_matrix(grid: Grid, order: str, axis: int) -> np.ndarray:
    """The second difference along one axis, `(n, n)`, times `h^2`; boundary included."""
    n, weights = grid.shape[axis], _LAPLACE[order]
    line = Grid(0.0, 1.0, n, periodic=grid.periodic[axis], extrapolation=grid.extrapolation)
    with jax.ensure_compile_time_eval():
        extended = np.asarray(line.extended(jnp.eye(n), 0))
    first = GHOSTS - len(weights) // 2
    return sum(c * extended[first + j : first + j + n] for j, c in enumerate(weights))


def _along(u: Array, grid: Grid, order: str, axis: int) -> tuple[Array, Array]:
    n, h = u.shape[axis], grid.spacing[axis]
    differences = jnp.diff(grid.extended(u, axis), axis=axis) / h  # n + 2 GHOSTS - 1 of them
    d = lambda j: jax.lax.slice_in_dim(differences, j, j + n, axis=axis)
    if order == "first":
        return d(GHOSTS - 1), d(GHOSTS)
    return _weno(d(0), d(1), d(2), d(3), d(4)), _weno(d(5), d(4), d(3), d(2), d(1))


# Its own derivative, but said as five partial derivatives: five fused loops in the reverse pass instead
# of some thirty arrays written and read, which takes three times as long (256 x 256, two cores).
@jax.custom_jvp
def _weno(a: Array, b: Array, c: Array, d: Array, e: Array) -> Array:
    return weno_by_definition(a, b, c, d, e)


@_weno.defjvp
def _weno_derivative(primals, tangents):
    one, zero = jnp.ones_like(primals[0]), jnp.zeros_like(primals[0])
    units = [tuple(one if j == i else zero for j in range(5)) for i in range(5)]
    partials = [jax.jvp(weno_by_definition, primals, unit)[1] for unit in units]
    return _weno(*primals), sum(x * dx for x, dx in zip(partials, tangents, strict=True))


def weno_by_definition(a: Array, b: Array, c: Array, d: Array, e: Array) -> Array:
    """The slope at the point between `c` and `d`, from five first differences."""
    q0 = a / 3 - 7 / 6 * b + 11 / 6 * c
    q1 = -b / 6 + 5 / 6 * c + d / 3
    q2 = c / 3 + 5 / 6 * d - e / 6
    beta0 = 13 / 12 * (a - 2 * b + c) ** 2 + (a - 4 * b + 3 * c) ** 2 / 4
    beta1 = 13 / 12 * (b - 2 * c + d) ** 2 + (b - d) ** 2 / 4
    beta2 = 13 / 12 * (c - 2 * d + e) ** 2 + (3 * c - 4 * d + e) ** 2 / 4
    # Below the floor roughness is rounding: straight lines keep the optimal weights, in any precision.
    # It counts all five slopes, and its least value has a square that does not underflow: where some or
    # all of them are zero (a step, a flat) a ratio would overflow, and its derivative be 0/0.
    size = jnp.finfo(a.dtype)
    largest = a**2 + b**2 + c**2 + d**2 + e**2
    floor = jax.lax.stop_gradient(float(size.eps) * largest) + float(size.tiny) ** 0.5
    spread = jnp.abs(beta0 - beta2)
    w0 = 0.1 * (1 + (spread / (beta0 + floor)) ** 2)
    w1 = 0.6 * (1 + (spread / (beta1 + floor)) ** 2)
    w2 = 0.3 * (1 + (spread / (beta2 + floor)) ** 2)
    return (w0 * q0 + w1 * q1 + w2 * q2) / (w0 + w1 + w2)

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


# Its own derivative, in closed form: five arrays in the reverse pass instead of some thirty written and
# read, and a program a third as large to compile.
@jax.custom_jvp
def _weno(a: Array, b: Array, c: Array, d: Array, e: Array) -> Array:
    return weno_by_definition(a, b, c, d, e)


@_weno.defjvp
def _weno_derivative(primals, tangents):
    """`w dp = sum_k w_k dq_k + (q_k - p) dw_k`, `w_k = d_k (1 + r_k^2)`, `r_k = s/(beta_k + floor)`."""
    a, b, c, d, e = primals
    q, beta, floor = _stencils(*primals)
    s = jnp.abs(beta[0] - beta[2])
    r = [s / (x + floor) for x in beta]
    w = [ideal * (1 + x**2) for ideal, x in zip(_IDEAL, r, strict=True)]
    total = w[0] + w[1] + w[2]
    p = (w[0] * q[0] + w[1] * q[1] + w[2] * q[2]) / total
    share = [x / total for x in w]
    # dw_k = 2 ideal_k r_k (ds - r_k dbeta_k)/(beta_k + floor)
    pull = [
        2 * ideal * x / total * (y - p) / (z + floor)
        for ideal, x, y, z in zip(_IDEAL, r, q, beta, strict=True)
    ]
    # Of beta_0, falling in beta_2
    rise = jnp.sign(beta[0] - beta[2]) * (pull[0] + pull[1] + pull[2])
    k0, k1, k2 = rise - r[0] * pull[0], -r[1] * pull[1], -rise - r[2] * pull[2]
    bend0, bend1, bend2 = (
        13 / 6 * (a - 2 * b + c),
        13 / 6 * (b - 2 * c + d),
        13 / 6 * (c - 2 * d + e),
    )
    lean0, lean1, lean2 = (a - 4 * b + 3 * c) / 2, (b - d) / 2, (3 * c - 4 * d + e) / 2
    partials = (
        share[0] / 3 + k0 * (bend0 + lean0),
        -7 / 6 * share[0] - share[1] / 6 - 2 * k0 * (bend0 + 2 * lean0) + k1 * (bend1 + lean1),
        (11 * share[0] + 5 * share[1] + 2 * share[2]) / 6
        + k0 * (bend0 + 3 * lean0)
        - 2 * k1 * bend1
        + k2 * (bend2 + 3 * lean2),
        share[1] / 3 + 5 / 6 * share[2] + k1 * (bend1 - lean1) - 2 * k2 * (bend2 + 2 * lean2),
        -share[2] / 6 + k2 * (bend2 + lean2),
    )
    return p, sum(x * dx for x, dx in zip(partials, tangents, strict=True))


def weno_by_definition(a: Array, b: Array, c: Array, d: Array, e: Array) -> Array:
    """The slope at the point between `c` and `d`, from five first differences."""
    q, beta, floor = _stencils(a, b, c, d, e)
    spread = jnp.abs(beta[0] - beta[2])
    w = [ideal * (1 + (spread / (x + floor)) ** 2) for ideal, x in zip(_IDEAL, beta, strict=True)]
    return (w[0] * q[0] + w[1] * q[1] + w[2] * q[2]) / (w[0] + w[1] + w[2])


_IDEAL = (0.1, 0.6, 0.3)


def _stencils(a, b, c, d, e) -> tuple[tuple[Array, ...], tuple[Array, ...], Array]:
    """Three slopes of third order, how rough each is, and below what roughness is rounding."""
    q = (a / 3 - 7 / 6 * b + 11 / 6 * c, -b / 6 + 5 / 6 * c + d / 3, c / 3 + 5 / 6 * d - e / 6)
    beta = (
        13 / 12 * (a - 2 * b + c) ** 2 + (a - 4 * b + 3 * c) ** 2 / 4,
        13 / 12 * (b - 2 * c + d) ** 2 + (b - d) ** 2 / 4,
        13 / 12 * (c - 2 * d + e) ** 2 + (3 * c - 4 * d + e) ** 2 / 4,
    )
    # Straight lines keep the ideal weights, in any precision. The floor counts all five slopes, and its
    # least value has a square that does not underflow: where some or all of them are zero (a step, a
    # flat) a ratio would overflow, and its derivative be 0/0.
    size = jnp.finfo(a.dtype)
    largest = a**2 + b**2 + c**2 + d**2 + e**2
    floor = jax.lax.stop_gradient(float(size.eps) * largest) + float(size.tiny) ** 0.5
    return q, beta, floor

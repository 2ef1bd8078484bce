r"""The permutahedron by semismooth Newton on the dual of isotonic regression; and its KKT system.

    s = y - w sorted,  v = argmin over v_1 >= ... >= v_n of |v - s|^2/2,     p = y - v
    v = s + D^T mu,   mu_i >= 0,   (D v)_i = v_i - v_(i+1) >= 0,   mu_i (D v)_i = 0
    step:   A = {i : mu_i > (D v)_i},     (D D^T)_AA mu_A = -(D s)_A,   mu = 0 off A

D D^T = tridiag(-1, 2, -1) is an M-matrix, for which the iteration ends, at the optimum, from any start
(Hintermueller, Ito, Kunisch 2002). p = w - D^T mu, so that an entry in no block is exactly w's. Steps
before the last act on it through comparisons alone: differentiating the last differentiates them all.

    implicit:   dp + sum_b E_b dlam_b = dy,    E_b . dp = 0 for every block b of tied sums

There are no log variables here: the multipliers of a polyhedron are zero or not.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def onto_hull(
    y: Float[Array, " n"], w: Float[Array, " n"], steps: int | None = None
) -> Float[Array, " n"]:
    """The projection of `y` on the permutahedron of `w`; at most `steps` steps, without it `n`."""
    n = y.shape[0]
    order = jnp.argsort(-jax.lax.stop_gradient(y), stable=True)
    top = -jnp.sort(-w)
    if n == 1:
        return top + 0.0 * y
    fall = lambda v: v[:-1] - v[1:]
    drop = fall(y[order]) - fall(top)
    most = n if steps is None else steps

    def unfinished(state: tuple[Array, Array, Array]) -> Bool[Array, ""]:
        active, before, k = state
        return (k < most) & jnp.any(active != before)

    def settle(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        active, _, k = state
        mu = _multipliers(active, fixed)
        return mu > fixed + _laplacian(mu), active, k + 1

    fixed = jax.lax.stop_gradient(drop)
    start = fixed < 0
    active = jax.lax.while_loop(unfinished, settle, (start, ~start, jnp.zeros((), int)))[0]
    mu = _multipliers(active, drop)
    zero = jnp.zeros(1, y.dtype)
    spread = jnp.concatenate([mu, zero]) - jnp.concatenate([zero, mu])
    return jnp.zeros_like(y).at[order].set(top - spread)


def pulled_onto_hull(
    y: Float[Array, " n"], w: Float[Array, " n"], g: Float[Array, " n"]
) -> Float[Array, " n"]:
    """`g` pulled back through the KKT system at the solution. The Jacobian is symmetric.

    A sum of the k largest binds where its multiplier, a drop of y - p, exceeds its slack."""
    n = y.shape[0]
    p = onto_hull(y, w)
    order = jnp.argsort(-y, stable=True)
    rest, top = (y - p)[order], -jnp.sort(-w)
    slack = jnp.cumsum(top - p[order])[:-1]
    binding = rest[:-1] - rest[1:] > slack
    ids = jnp.concatenate([jnp.zeros(1, int), jnp.cumsum(binding)])
    E = (ids[:, None] == jnp.arange(n)[None]).astype(y.dtype)
    unused = jnp.diag((jnp.arange(n) > ids[-1]).astype(y.dtype))
    matrix = jnp.block([[jnp.eye(n, dtype=y.dtype), E], [E.T, unused]])
    right = jnp.concatenate([g[order], jnp.zeros(n, y.dtype)])
    dp = jnp.linalg.solve(matrix, right)[:n]
    return jnp.zeros_like(g).at[order].set(dp)


def _laplacian(mu: Float[Array, " m"]) -> Float[Array, " m"]:
    zero = jnp.zeros(1, mu.dtype)
    return 2.0 * mu - jnp.concatenate([mu[1:], zero]) - jnp.concatenate([zero, mu[:-1]])


def _multipliers(active: Bool[Array, " m"], drop: Float[Array, " m"]) -> Float[Array, " m"]:
    m = drop.shape[0]
    both = active[:, None] & active[None]
    T = 2.0 * jnp.eye(m) - jnp.eye(m, k=1) - jnp.eye(m, k=-1)
    matrix = jnp.where(both, T, jnp.eye(m)).astype(drop.dtype)
    return jnp.where(active, jnp.linalg.solve(matrix, jnp.where(active, -drop, 0.0)), 0.0)

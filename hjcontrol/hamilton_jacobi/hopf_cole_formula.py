r"""Hopf-Cole: the viscous equation with quadratic H, solved anywhere without a grid.

    u_t + grad u.A grad u = eps tr(A hess u),    u = -eps log w,    w_t = eps tr(A hess w)
    u(x, t) = -eps log sum_j m_j exp(-(g_j + (x - y_j).A^{-1}(x - y_j)/(4t))/eps) + c

c   the normaliser; only `heat` solves the equation, `raw` misses it by -d eps/(2t)
Limit  eps = 0 is Hopf-Lax: min_j g_j + t L((x - y_j)/t)

`hopf_cole` takes one point, has derivatives of every order, and is what residuals are computed from.
`hopf_cole_batch` streams queries and atoms through tiles in memory that does not grow with their product.
A density enters as atoms at quadrature nodes (`density`), or, smooth and in few dimensions, through nodes
that move with the kernel (`hopf_cole_smooth`).
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from hjcontrol._ground.arguments import admits
from hjcontrol.deformation import lse, softmin
from hjcontrol.deformation.streaming import TILE, streaming_lse
from hjcontrol.hamilton_jacobi.dictionary import Scalar, layer_of_data
from hjcontrol.hamilton_jacobi.hamiltonian import AbstractHamiltonian
from hjcontrol.hamilton_jacobi.initial_data import InitialData
from hjcontrol.hamilton_jacobi.normalisation import Normalisation, metric, normaliser
from hjcontrol.hamilton_jacobi.pairs import Quadratic


@admits(t="> 0", eps=">= 0")
def hopf_cole(
    data: InitialData,
    x: Float[Array, " d"],
    t: Scalar,
    eps: Scalar,
    *,
    normalisation: Normalisation = "heat",
    H: AbstractHamiltonian = Quadratic(),  # noqa: B008
) -> Float[Array, ""]:
    """`u(x, t)` at one point. Batch few points with `jax.vmap`, many with `hopf_cole_batch`.

    **Raises:** `ValueError` for `t <= 0`, `eps < 0`, a point of wrong length, `H` not quadratic.
    """
    _require_dimension(data, x.shape, "hopf_cole")
    cost = _squares(x[None, :] - data.atoms, H) / (4 * jnp.asarray(t, x.dtype))
    return softmin(data.energies(eps) + cost, eps) + normaliser(normalisation, data, t, eps, H)


@admits(t="> 0", eps=">= 0")
def hopf_cole_batch(
    data: InitialData,
    X: Float[Array, "n d"],
    t: Scalar,
    eps: Scalar,
    *,
    normalisation: Normalisation = "heat",
    H: AbstractHamiltonian = Quadratic(),  # noqa: B008
    tile: tuple[int, int] = TILE,
) -> Float[Array, " n"]:
    """`u` at every row of `X`; reverse-mode derivatives stream too, and the one in `X` is free.

    The square is completed, so that tiles meet by matrix products: `u = |x|^2/(4t) - f(x)` after
    shifting the origin to the middle of the atoms. Absolute error about one unit in the last place of
    `(|x|^2 + |y|^2)/(4t)`, lengths from there; `hopf_cole` has that of `|x - y|^2/(4t)`.

    **Raises:** `ValueError` as `hopf_cole`.
    """
    _require_dimension(data, X.shape[1:], "hopf_cole_batch")
    t, eps = jnp.asarray(t, X.dtype), jnp.asarray(eps, X.dtype)
    return _batch(data, X, t, eps, normalisation, H, tile)


@admits(t="> 0", eps="> 0", order=">= 1")
def hopf_cole_smooth(
    g: Callable[[Array], Array],
    x: Float[Array, " d"],
    t: Scalar,
    eps: Scalar,
    *,
    order: int = 40,
    H: AbstractHamiltonian = Quadratic(),  # noqa: B008
) -> Float[Array, ""]:
    r"""Heat-normalised `u(x, t)` from a smooth density `g`, by Gauss-Hermite quadrature.

    $$u = -\varepsilon\log\,\mathbb{E}\, e^{-g(x+\sqrt{2\varepsilon t A}\,\xi)/\varepsilon},
      \quad \xi\sim N(0, I)$$

    `order ** d` nodes that move with the kernel; exact for polynomial `exp(-g/eps)` of degree below
    `2 order`. At `eps = 0` the nodes collapse: use `hopf_lax`.

    **Raises:** `ValueError` for `t <= 0`, `eps <= 0`, `order < 1`, `H` not quadratic.
    """
    d = x.shape[0]
    at, weight = np.polynomial.hermite_e.hermegauss(order)
    nodes = np.stack([a.ravel() for a in np.meshgrid(*[at] * d, indexing="ij")], axis=1)
    masses = np.prod(
        np.stack([a.ravel() for a in np.meshgrid(*[weight] * d, indexing="ij")], axis=1), axis=1
    )
    log_masses = jnp.asarray(np.log(masses / masses.sum()), x.dtype)
    eps, t = jnp.asarray(eps, x.dtype), jnp.asarray(t, x.dtype)
    root = jnp.linalg.cholesky(metric(H, d).astype(x.dtype)) * jnp.sqrt(2 * eps * t)
    places = x[None, :] + jnp.asarray(nodes, x.dtype) @ root.T
    return -lse(eps * log_masses - jax.vmap(g)(places), eps)


@eqx.filter_jit  # one program for callers outside `jit`
def _batch(
    data: InitialData,
    X: Array,
    t: Array,
    eps: Array,
    normalisation: Normalisation,
    H: AbstractHamiltonian,
    tile: tuple[int, int],
) -> Array:
    middle = jax.lax.stop_gradient(jnp.mean(data.atoms, axis=0))  # u does not depend on it
    shifted = InitialData(data.atoms - middle[None, :], data.values, data.masses)
    X = X - middle[None, :]
    W, b = layer_of_data(shifted, t, eps=eps, H=H)
    f = streaming_lse(X, W, b, eps, tile=tile)
    return _squares(X, H) / (4 * t) - f + normaliser(normalisation, data, t, eps, H)


def _squares(D: Float[Array, "n d"], H: AbstractHamiltonian) -> Float[Array, " n"]:
    """`D_i.A^{-1} D_i` of every row. The inverse is formed once: it depends on no point."""
    inverse = jnp.linalg.inv(metric(H, D.shape[1])).astype(D.dtype)
    rows = D if isinstance(H, Quadratic) else D @ inverse
    return jnp.sum(rows * D, axis=1)


def _require_dimension(data: InitialData, shape: tuple[int, ...], asker: str) -> None:
    if shape != (data.dimension,):
        raise ValueError(
            f"{asker}: the atoms lie in dimension {data.dimension}; found a point of shape {shape}."
        )

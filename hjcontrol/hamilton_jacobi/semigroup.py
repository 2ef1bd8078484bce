r"""The Lax-Oleinik semigroup as a matrix product in the log-semiring.

    S_t g = K_t (x) g,    (K (x) L)_ik = -eps log sum_j m_j exp(-(K_ij + L_jk)/eps)    at 0: min_j
    K_t(x, y) = t L((x - y)/t) + (eps/2) log det(4 pi eps t A)                  energies, not weights

Law    K_s (x) K_t = K_{s+t}: S_s S_t = S_{s+t}, once the nodes resolve the kernels (viscous: to roundoff;
       eps = 0: to O(h^2/(4t))). Without the normaliser the defect is -(d eps/2) log(4 pi eps st/(s+t)).

Linear over (soft minimum, +): a chain of such products is a deep network without nonlinear re-embedding.
The composition of layers as maps of their inputs is *not* this semigroup.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from hjcontrol._ground.arguments import admits
from hjcontrol._ground.concrete import known
from hjcontrol.deformation import softmin
from hjcontrol.hamilton_jacobi.dictionary import Scalar
from hjcontrol.hamilton_jacobi.hamiltonian import AbstractHamiltonian, require_convex
from hjcontrol.hamilton_jacobi.initial_data import InitialData
from hjcontrol.hamilton_jacobi.normalisation import Normalisation, normaliser
from hjcontrol.hamilton_jacobi.pairs import Quadratic


@admits(t="> 0", eps=">= 0")
def kernel(
    X: Float[Array, "n d"],
    Y: Float[Array, "m d"],
    t: Scalar,
    eps: Scalar,
    *,
    normalisation: Normalisation = "heat",
    H: AbstractHamiltonian = Quadratic(),  # noqa: B008
) -> Float[Array, "n m"]:
    """Energies `K_t(x_i, y_j)`. At `eps = 0` any convex `H`; else a quadratic one, or `raw`.

    **Raises:** `ValueError` for `t <= 0`, `eps < 0`, `H` not convex, disagreeing dimensions,
    `normalisation='mean'`, which belongs to sums, not to kernels.
    """
    require_convex(H, "kernel")
    if X.shape[1] != Y.shape[1]:
        raise ValueError(f"kernel: points of one dimension are needed; found {X.shape}, {Y.shape}.")
    if normalisation == "mean":
        raise ValueError(
            "kernel: 'raw' or 'heat' is needed; 'mean' divides by the masses of a sum."
        )
    t = jnp.asarray(t, X.dtype)
    cost = jax.vmap(lambda x: jax.vmap(lambda y: t * H.lagrangian((x - y) / t))(Y))(X)
    cold = known(jnp.asarray(eps))
    if normalisation == "raw" or (cold is not None and cold == 0):
        return cost  # no normaliser: any convex H
    unit = InitialData(Y, jnp.zeros_like(Y[:, 0]))
    return cost + normaliser(normalisation, unit, t, eps, H)


@admits(eps=">= 0")
def log_product(
    K: Float[Array, "n m"], L: Float[Array, "m k"], masses: Float[Array, " m"], eps: Scalar
) -> Float[Array, "n k"]:
    """`K (x) L`, the sum over the middle nodes weighted by their `masses`; min-plus at `eps = 0`.

    **Raises:** `ValueError` for disagreeing shapes or `eps < 0`.
    """
    if K.shape[1] != L.shape[0] or masses.shape != (L.shape[0],):
        raise ValueError(
            "log_product: (n, m), (m, k) and masses (m,) are needed; found "
            f"{K.shape}, {L.shape} and {masses.shape}."
        )
    node = InitialData(jnp.zeros_like(L[:, :1]), jnp.zeros_like(masses), masses).energies(eps)
    rows = K + node[None, :]
    return jax.lax.map(lambda row: softmin(row[:, None] + L, eps, axis=0), rows)


@admits(eps=">= 0")
def evolve(K: Float[Array, "n m"], data: InitialData, eps: Scalar) -> Float[Array, " n"]:
    """`S_t g` at the kernel's rows, from data at its columns.

    **Raises:** `ValueError` as `log_product`.
    """
    return log_product(K, data.values[:, None], data.masses, eps)[:, 0]

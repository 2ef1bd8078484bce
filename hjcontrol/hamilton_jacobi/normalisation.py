r"""Three normalisations of one sum, each by its name.

    u_raw  = -eps log sum_j m_j exp(-(g_j + cost_j)/eps)
    u_mean = u_raw + eps log sum_j m_j
    u_heat = u_raw + (eps/2) log det(4 pi eps t A)

raw    what a layer computes. Misses the PDE by exactly -d eps/(2t); diverges like -eps log N
mean   converges to Hopf-Lax along any path with eps -> 0; commutes with N -> infinity
heat   the heat kernel's: solves u_t + grad u.A grad u = eps tr(A hess u) to roundoff. A = 1: |grad u|^2
"""

from typing import Literal

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Real

from hjcontrol._ground.arguments import admits
from hjcontrol.hamilton_jacobi.combined import Scaled
from hjcontrol.hamilton_jacobi.hamiltonian import AbstractHamiltonian
from hjcontrol.hamilton_jacobi.initial_data import InitialData
from hjcontrol.hamilton_jacobi.pairs import Anisotropic, HalfQuadratic, Quadratic

Normalisation = Literal["raw", "mean", "heat"]


@admits(t="> 0", eps=">= 0")
def normaliser(
    normalisation: Normalisation,
    data: InitialData,
    t: Real[ArrayLike, ""] | float | int,
    eps: Real[ArrayLike, ""] | float | int,
    H: AbstractHamiltonian,
) -> Float[Array, ""]:
    """What is to be added to the raw sum; 0 at `eps = 0`, for every normalisation.

    **Raises:** `ValueError` for an unknown name or `H` that is not quadratic.
    """
    dtype = data.values.dtype
    eps, t = jnp.asarray(eps, dtype), jnp.asarray(t, dtype)
    warm = jnp.where(eps > 0, eps, 1.0)
    if normalisation == "raw":
        constant = jnp.zeros((), dtype)
    elif normalisation == "mean":
        present = data.masses * jnp.isfinite(data.values)
        total = jnp.sum(present)
        constant = jnp.log(jnp.where(total > 0, total, 1.0))
    elif normalisation == "heat":
        _, logdet = jnp.linalg.slogdet(metric(H, data.dimension).astype(dtype))
        constant = (data.dimension * jnp.log(4 * jnp.pi * warm * t) + logdet) / 2
    else:
        raise ValueError(
            f"normalisation: one of 'raw', 'mean' and 'heat' is needed; found {normalisation!r}."
        )
    return eps * constant


def metric(H: AbstractHamiltonian, d: int) -> Float[Array, "d d"]:
    """`A` of a quadratic `H(p) = p.Ap`.

    **Raises:** `ValueError` for any other Hamiltonian: only these are linearised by Hopf and Cole.
    """
    if isinstance(H, Scaled):
        return H.c * metric(H.H, d)
    if isinstance(H, Quadratic):
        return jnp.eye(d)
    if isinstance(H, HalfQuadratic):
        return jnp.eye(d) / 2
    if isinstance(H, Anisotropic):
        if H.A.shape[0] != d:
            raise ValueError(f"metric: A of shape {(d, d)} is needed; found {H.A.shape}.")
        return H.A
    raise ValueError(
        "Hopf-Cole and the weight dictionary need a quadratic Hamiltonian (Quadratic, "
        f"HalfQuadratic, Anisotropic, or one of them scaled); found {type(H).__name__}. "
        "At eps = 0 `hopf_lax` takes any convex one."
    )

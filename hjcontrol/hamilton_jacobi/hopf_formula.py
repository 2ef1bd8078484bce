r"""Hopf's formula: convex initial data, any H.

    u(x, t) = (g* + t H)*(x) = sup_p p.x - g*(p) - t H(p)        u_t + H(grad u) = 0, g convex

The maximiser p is the gradient of u. With convex H the supremum is that of a concave function and comes
with a certificate; there Hopf agrees with Hopf-Lax. With any other H it is a global search in p: a lower
bound on u, and the result says so.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from hjcontrol._ground.arguments import admits
from hjcontrol.hamilton_jacobi.dictionary import Scalar
from hjcontrol.hamilton_jacobi.hamiltonian import AbstractHamiltonian, require_convex
from hjcontrol.hamilton_jacobi.hopf_lax_formula import Searched, search
from hjcontrol.hamilton_jacobi.user_hamiltonian import Conjugate, UserConvex


@admits(t="> 0", radius="> 0")
def hopf(
    g_star: Callable[[Array], Array],
    x: Float[Array, " d"],
    t: Scalar,
    radius: Scalar,
    *,
    H: AbstractHamiltonian,
) -> Conjugate:
    """`u(x, t)` for convex `H`, in `[value, value + gap]`; slopes `|p| <= radius` are admitted.

    `g_star` is the conjugate of the convex initial data, a function of one momentum.

    **Raises:** `ValueError` for `t <= 0`, `radius <= 0`, `H` not convex (use `hopf_search`).
    """
    require_convex(H, "hopf")
    t = jnp.asarray(t, x.dtype)
    return UserConvex(lambda p: g_star(p) + t * H(p), radius).certificate(x)


@admits(x="finite", t="> 0", radius="> 0", starts=">= 1")
def hopf_search(
    g_star: Callable[[Array], Array],
    x: Float[Array, " d"],
    t: Scalar,
    radius: Scalar,
    *,
    key: Key[Array, ""],
    starts: int = 64,
    H: AbstractHamiltonian,
) -> Searched:
    """The same for any `H`, by ascent from many starts: `value` is a *lower* bound on `u(x, t)`.

    `minimiser` is the momentum found.

    **Raises:** `ValueError` for `t <= 0`, `radius <= 0`, `starts < 2`.
    """
    t = jnp.asarray(t, x.dtype)
    found = search(
        lambda p: g_star(p) + t * H(p) - p @ x, jnp.zeros_like(x), radius, key=key, starts=starts
    )
    return Searched(-found.value, found.minimiser, found.agreeing, found.result)


@admits(t="> 0")
def hopf_sampled(
    slopes: Float[Array, "m d"],
    g_star: Float[Array, " m"],
    x: Float[Array, " d"],
    t: Scalar,
    *,
    H: AbstractHamiltonian,
) -> Float[Array, ""]:
    """`max_i p_i.x - g*(p_i) - t H(p_i)` over slopes that are given, for any `H`.

    **Raises:** `ValueError` for `t <= 0` or disagreeing shapes.
    """
    if slopes.shape[1:] != x.shape or g_star.shape != slopes.shape[:1] or not len(g_star):
        raise ValueError(
            "hopf_sampled: slopes (m, d), values (m,) and x (d,) are needed; found "
            f"{slopes.shape}, {g_star.shape} and {x.shape}."
        )
    return jnp.max(slopes @ x - g_star - jnp.asarray(t, x.dtype) * jax.vmap(H)(slopes))

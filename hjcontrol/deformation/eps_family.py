r"""The $\varepsilon$-family: one formula from soft to hard.

    lse(z, eps) = eps log sum_j exp(z_j / eps)      lse(z, 0) = max_j z_j
    gibbs(z, eps) = grad_z lse = softmax(z / eps)   gibbs(z, 0) = uniform over the exact maximisers
    softmin(q, eps) = -lse(-q, eps)

z, q   logits and energies along one axis      eps   temperature = viscosity >= 0
Law    max z <= lse(z, eps) <= max z + eps log N        d lse / d eps = entropy(gibbs)
Limit  eps -> 0+ is max-plus. An entry of -inf is masked; nothing but masked entries gives -inf.

An entry whose weight would underflow is dropped *before* it is divided by eps: no 0 * inf is ever
formed, so every derivative is finite, of any order, with or without custom rules.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Real

from hjcontrol._ground.concrete import known_to_fail


def lse(
    z: Real[ArrayLike, "..."], eps: Real[ArrayLike, ""] | float | int, axis: int = -1
) -> Float[Array, "..."]:
    r"""Soft maximum $\varepsilon\log\sum_j e^{z_j/\varepsilon}$ along `axis`; the maximum at `eps = 0`.

    **Arguments:** `z` real logits, `-inf` allowed (masked); `eps >= 0` scalar, in the units of `z`.

    **Returns:** `z` reduced along `axis`, in `z`'s dtype. The derivative in `z` is
    [`gibbs`][hjcontrol.deformation.gibbs]; in `eps` it is the entropy, at `eps = 0` the right one,
    `log(number of exact ties)`.

    **Raises:** `ValueError` for a negative, NaN or non-scalar `eps` (a traced negative gives NaN).
    """
    z, eps = _check(z, eps)
    top = _top(z, axis)
    alive, e = _weights(z, eps, top)
    some = jnp.any(alive, axis=axis)
    total = jnp.where(some, jnp.sum(e, axis=axis), 1.0)
    warm = jnp.where(eps > 0, eps, 1.0)
    shift = jnp.squeeze(top, axis)
    soft = shift + warm * jnp.log(total)
    ties = jnp.maximum(jnp.sum(_ties(z, axis), axis=axis), 1).astype(z.dtype)
    # 0 * log(ties): no value, but the right derivative in eps.
    hard = jnp.max(z, axis=axis) + eps * jnp.log(ties)
    value = jnp.where(eps > 0, soft, hard)
    edge = jax.lax.stop_gradient(jnp.max(z, axis=axis))  # -inf: all masked; +inf, NaN: no value
    return jnp.where(jnp.isfinite(edge), jnp.where(eps >= 0, value, jnp.nan), edge)


def softmin(
    q: Real[ArrayLike, "..."], eps: Real[ArrayLike, ""] | float | int, axis: int = -1
) -> Float[Array, "..."]:
    r"""Soft minimum $-\varepsilon\log\sum_j e^{-q_j/\varepsilon}$ of energies; `+inf` is masked.

    Same contract as [`lse`][hjcontrol.deformation.lse], of which it is the mirror image.
    """
    return -lse(-jnp.asarray(q), eps, axis=axis)


def gibbs(
    z: Real[ArrayLike, "..."], eps: Real[ArrayLike, ""] | float | int, axis: int = -1
) -> Float[Array, "..."]:
    r"""Gibbs weights $\pi = \nabla_z\,\mathrm{lse}(z,\varepsilon)$: softmax at temperature `eps`.

    At `eps = 0` the mass is shared equally by the entries that attain the maximum exactly. A row
    in which everything is masked has no maximiser and gets weight zero throughout.
    Arguments and errors as for [`lse`][hjcontrol.deformation.lse]; same shape as `z`.
    """
    z, eps = _check(z, eps)
    top = _top(z, axis)
    alive, e = _weights(z, eps, top)
    total = jnp.where(
        jnp.any(alive, axis=axis, keepdims=True), jnp.sum(e, axis=axis, keepdims=True), 1.0
    )
    ties = _ties(z, axis).astype(z.dtype)
    hard = ties / jnp.maximum(jnp.sum(ties, axis=axis, keepdims=True), 1.0)
    edge = jnp.max(z, axis=axis, keepdims=True)
    pi = jnp.where((eps > 0) & ~jnp.isposinf(edge), e / total, hard)
    return jnp.where((eps >= 0) & ~jnp.isnan(edge), pi, jnp.nan)


def _check(z: ArrayLike, eps: ArrayLike) -> tuple[Array, Array]:
    z = jnp.asarray(z)
    if not jnp.issubdtype(z.dtype, jnp.floating):
        z = z.astype(jnp.result_type(float))
    if z.ndim == 0:
        raise ValueError("lse/gibbs: `z` must have at least one axis; found a scalar.")
    eps = jnp.asarray(eps)
    if eps.ndim != 0:
        raise ValueError(
            f"lse/gibbs: `eps` must be a scalar; found shape {eps.shape}. "
            "Use `jax.vmap` to sweep temperatures."
        )
    if known_to_fail(eps >= 0):
        raise ValueError(f"lse/gibbs: `eps` must be >= 0; found {float(eps)}.")
    return z, eps.astype(z.dtype)


def _top(z: Array, axis: int) -> Array:
    """The shift: the row's maximum where finite, else 0. A constant for derivatives."""
    top = jax.lax.stop_gradient(jnp.max(z, axis=axis, keepdims=True))
    return jnp.where(jnp.isfinite(top), top, 0.0)


def _ties(z: Array, axis: int) -> Bool[Array, "..."]:
    top = jnp.max(z, axis=axis, keepdims=True)
    return (z == top) & ~jnp.isneginf(top)


def _weights(z: Array, eps: Array, top: Array) -> tuple[Array, Array]:
    """Entries that do not underflow, and `exp((z - top)/eps)` for them, 0 elsewhere."""
    floor = float(np.log(float(jnp.finfo(z.dtype).tiny)))
    warm = jnp.where(eps > 0, eps, 1.0).astype(z.dtype)
    gap = z - top
    alive = (gap > floor * warm) & (gap <= 0)  # above the shift only where the maximum is +inf
    return alive, jnp.where(alive, jnp.exp(jnp.where(alive, gap, 0.0) / warm), 0.0)

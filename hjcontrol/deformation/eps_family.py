r"""The $\varepsilon$-family: one formula from soft to hard.

    lse(z, eps) = eps log sum_j exp(z_j / eps)      lse(z, 0) = max_j z_j
    gibbs(z, eps) = grad_z lse = softmax(z / eps)   gibbs(z, 0) = uniform over the exact maximisers
    softmin(q, eps) = -lse(-q, eps)

z, q   logits and energies along one axis      eps   temperature = viscosity >= 0
Law    max z <= lse(z, eps) <= max z + eps log N        d lse / d eps = entropy(gibbs)
Limit  eps -> 0+ is max-plus. An entry of -inf is masked; nothing but masked entries gives -inf.

An entry whose weight would underflow is dropped *before* it is divided by eps: no 0 * inf is ever
formed, so every derivative is finite, of any order, with or without custom rules.

The value is taken from the maximum, log(1 + rest), with the maximiser left out of the rest:

    lse(z, eps) = z_m + eps log1p( sum_{j != m} exp((z_j - z_m)/eps) )      lse([0, -40], 1) = 4.2e-18

Floats of half precision are summed in float32, and the answer is rounded once.

The rules of differentiation are for accuracy. `pi (g - pi.g)` cancels once one weight is near 1: in
float64 it has no correct digit as soon as the others are under 1e-16. With g measured from the
maximiser m, and the row of m recovered from sum_j dpi_j = 0, nothing cancels:

    y_j = (g_j - g_m)/eps,   dpi_j = pi_j (y_j - sum_{k != m} pi_k y_k)  (j != m),   dpi_m = -sum dpi_j

The map is written symmetric, so that its transpose (reverse mode) is the same accurate sum.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Real

from hjcontrol._ground.arguments import admits, in_range
from hjcontrol._ground.concrete import known_to_fail


@admits(eps=">= 0")
def lse(
    z: Real[ArrayLike, "..."], eps: Real[ArrayLike, ""] | float | int, axis: int = -1
) -> Float[Array, "..."]:
    r"""Soft maximum $\varepsilon\log\sum_j e^{z_j/\varepsilon}$ along `axis`; the maximum at `eps = 0`.

    **Arguments:** `z` real logits, `-inf` allowed (masked); `eps >= 0` scalar, in the units of `z`.

    **Returns:** `z` reduced along `axis`, in `z`'s dtype, to full *relative* accuracy where the maximum
    is 0. The derivative in `z` is
    [`gibbs`][hjcontrol.deformation.gibbs]; in `eps` it is the entropy, at `eps = 0` the right one,
    `log(number of exact ties)`.

    **Raises:** `ValueError` for a negative, NaN or non-scalar `eps` (a traced negative gives NaN), for
    an axis without entries, and for logits that are not real numbers.
    """
    z, eps, dtype = _check(z, eps, axis)
    return _LSE(z, eps, axis).astype(dtype)


@admits(eps=">= 0")
def softmin(
    q: Real[ArrayLike, "..."], eps: Real[ArrayLike, ""] | float | int, axis: int = -1
) -> Float[Array, "..."]:
    r"""Soft minimum $-\varepsilon\log\sum_j e^{-q_j/\varepsilon}$ of energies; `+inf` is masked.

    Same contract as [`lse`][hjcontrol.deformation.lse], of which it is the mirror image.
    """
    q, eps, dtype = _check(q, eps, axis)  # before the sign turns: integers without one wrap round
    return -_LSE(-q, eps, axis).astype(dtype)


@admits(eps=">= 0")
def gibbs(
    z: Real[ArrayLike, "..."], eps: Real[ArrayLike, ""] | float | int, axis: int = -1
) -> Float[Array, "..."]:
    r"""Gibbs weights $\pi = \nabla_z\,\mathrm{lse}(z,\varepsilon)$: softmax at temperature `eps`.

    At `eps = 0` the mass is shared equally by the entries that attain the maximum exactly. A row
    in which everything is masked has no maximiser and gets weight zero throughout.
    Arguments and errors as for [`lse`][hjcontrol.deformation.lse]; same shape as `z`.
    """
    z, eps, dtype = _check(z, eps, axis)
    return _GIBBS(z, eps, axis).astype(dtype)


@admits(eps=">= 0")
def heat(
    z: Real[ArrayLike, "..."], eps: Real[ArrayLike, ""] | float | int, axis: int = -1
) -> Float[Array, "..."]:
    r"""$d\,\mathrm{lse}/d\varepsilon$, the entropy of the Gibbs state, to full *relative* accuracy.

    $\log\big(1+\sum_{j\ne m} e_j\big) + \sum_{j\ne m}\pi_j (z_m - z_j)/\varepsilon$ with
    $e_j = e^{(z_j - z_m)/\varepsilon}$: terms of one sign, none of them lost beside a weight near 1.
    `log(#exact ties)` at `eps = 0`. Arguments and errors as for [`lse`][hjcontrol.deformation.lse].
    """
    z, eps, dtype = _check(z, eps, axis)
    return _HEAT(z, eps, axis).astype(dtype)


def _heat(z: Array, eps: Array, axis: int) -> Array:
    _, alive, top = _rivals(z, eps, axis)
    scaled = jnp.where(alive, jnp.where(alive, top - z, 0.0) / _warm(eps), 0.0)
    e = jnp.where(alive, jnp.exp(-scaled), 0.0)
    pi = _gibbs(z, eps, axis)
    soft = jnp.log1p(jnp.sum(e, axis)) + jnp.sum(jnp.where(alive, pi, 0.0) * scaled, axis)
    ties = jnp.maximum(jnp.sum(_ties(z, axis), axis=axis), 1).astype(z.dtype)
    edge = jax.lax.stop_gradient(jnp.max(z, axis=axis))
    value = jnp.where((eps > 0) & jnp.isfinite(edge), soft, jnp.log(ties))
    return jnp.where((eps >= 0) & ~jnp.isnan(edge), value, jnp.nan)


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def _lse(z: Array, eps: Array, axis: int) -> Array:
    # One maximiser is left out of the sum, by its place: XLA may compute `z` twice and round the copies
    # differently, and then no entry equals the maximum.
    edge = jax.lax.stop_gradient(jnp.max(z, axis=axis))
    _, alive, top = _rivals(z, eps, axis)
    e = jnp.where(alive, jnp.exp(jnp.where(alive, z - top, 0.0) / _warm(eps)), 0.0)
    soft = jnp.squeeze(top, axis) + _warm(eps) * jnp.log1p(jnp.sum(e, axis))
    # 0 * log(ties): no value, but the right derivative in eps.
    ties = jnp.maximum(jnp.sum(_ties(z, axis), axis=axis, dtype=jnp.int32), 1).astype(z.dtype)
    hard = jnp.max(z, axis=axis) + eps * jnp.log(ties)
    value = jnp.where(eps > 0, soft, hard)
    return jnp.where(jnp.isfinite(edge), jnp.where(eps >= 0, value, jnp.nan), edge)


@_lse.defjvp
def _lse_rule(axis: int, primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    (z, eps), (dz, deps) = primals, tangents
    edge = jax.lax.stop_gradient(jnp.max(z, axis=axis))
    none = jnp.where(jnp.isnan(edge), edge, 0.0)  # all masked: no slope; a NaN: no number
    sound = jnp.isfinite(edge)
    wide = lambda a: jnp.expand_dims(a, axis)
    weights = jnp.where(wide(sound), _gibbs(z, eps, axis), wide(none))
    entropy = jnp.where(sound, _heat(z, eps, axis), none)
    return _lse(z, eps, axis), jnp.sum(weights * dz, axis) + entropy * deps


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def _gibbs(z: Array, eps: Array, axis: int) -> Array:
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


@_gibbs.defjvp
def _gibbs_rule(axis: int, primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    (z, eps), (dz, deps) = primals, tangents
    pi = _gibbs(z, eps, axis)
    first, alive, top = _rivals(z, eps, axis)
    at_top = jnp.sum(jnp.where(first, dz, 0.0), axis, keepdims=True)
    warm = _warm(eps)
    scaled = jnp.where(alive, z - top, 0.0) / warm
    y = jnp.where(alive, (dz - at_top) / warm - scaled * (deps / warm), 0.0)
    rivals = jnp.where(alive, pi, 0.0)
    moved = rivals * (y - jnp.sum(rivals * y, axis, keepdims=True))
    return pi, jnp.where(first, -jnp.sum(moved, axis, keepdims=True), moved)


# Called by themselves each is one program, not thirty; in a program they leave no call behind.
_LSE, _GIBBS, _HEAT = (jax.jit(f, static_argnums=2, inline=True) for f in (_lse, _gibbs, _heat))


def _warm(eps: Array) -> Array:
    return jnp.where(eps > 0, eps, 1.0).astype(eps.dtype)


def _rivals(z: Array, eps: Array, axis: int) -> tuple[Array, Array, Array]:
    """The first maximiser, one-hot; the others whose weight does not underflow (none at `eps = 0`,
    nor in a row without a finite maximum); and the maximum, this time not a constant."""
    n = z.shape[axis]
    shape = [1] * z.ndim
    shape[axis] = n
    position = jnp.arange(n).reshape(shape)
    found = jnp.expand_dims(jnp.argmax(z, axis), axis)
    first = jnp.broadcast_to(position, z.shape) == found
    edge = jnp.max(jax.lax.stop_gradient(z), axis, keepdims=True)
    sound = jnp.isfinite(edge) & (eps > 0)
    alive, _ = _weights(jax.lax.stop_gradient(z), eps, jnp.where(jnp.isfinite(edge), edge, 0.0))
    top = jnp.sum(jnp.where(first & jnp.isfinite(edge), z, 0.0), axis, keepdims=True)
    return first, alive & sound & ~first, top


def _check(z: ArrayLike, eps: ArrayLike, axis: int) -> tuple[Array, Array, np.dtype]:
    """Logits and temperature as they are computed with, and the dtype of the answer."""
    z = jnp.asarray(z)
    if not jnp.issubdtype(z.dtype, jnp.floating):
        z = z.astype(jnp.result_type(float))
    if z.ndim == 0:
        raise ValueError("lse/gibbs: `z` must have at least one axis; found a scalar.")
    in_range("lse/gibbs", "axis", axis, f">= {-z.ndim}, < {z.ndim}")
    if z.shape[axis] == 0:
        raise ValueError(
            f"lse/gibbs: at least one entry is needed along axis {axis}; found shape {z.shape}. "
            "A maximum over nothing has no value."
        )
    eps = jnp.asarray(eps)
    if eps.ndim != 0:
        raise ValueError(
            f"lse/gibbs: `eps` must be a scalar; found shape {eps.shape}. "
            "Use `jax.vmap` to sweep temperatures."
        )
    if known_to_fail(eps >= 0):
        raise ValueError(f"lse/gibbs: `eps` must be >= 0; found {float(eps)}.")
    dtype = z.dtype
    wide = z.astype(jnp.promote_types(dtype, jnp.float32))  # a half's sum ends at 65504
    return wide, eps.astype(wide.dtype), dtype


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
    warm = _warm(eps)
    gap = z - top
    # Above the shift by roundoff, where XLA computes `z` twice; by more where the maximum is +inf.
    alive = (gap > floor * warm) & (gap <= warm)
    return alive, jnp.where(alive, jnp.exp(jnp.where(alive, gap, 0.0) / warm), 0.0)

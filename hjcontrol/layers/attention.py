r"""Attention: rows of the simplex contracted with values.

    z_ij = q_i.k_j     pi_i = argmax over the simplex of pi.z_i + eps H(pi)     out_i = sum_j pi_ij v_j
    energy_i = -lse(z_i, eps)        entropy_i = H(pi_i)        gap_i = Fenchel-Young gap of pi_i

eps = sqrt(d) is the usual scaling; at eps = 0 each query takes its nearest key, ties shared. Only
V = K (or V = K A) makes the output a gradient in q: a general V is the Gibbs average of an observable.
A masked key is as if absent; a query that may look at nothing gets output 0 and energy +inf.
"""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Real

from hjcontrol.deformation import gibbs, heat, lse
from hjcontrol.layers.layer import floating, temperature
from hjcontrol.layers.rows import RowSoftmax
from hjcontrol.layers.softmax import Softmax


class Attended(eqx.Module):
    """What attention returns beside its output, one entry a query."""

    output: Float[Array, "queries value"]
    weights: Float[Array, "queries keys"]
    energy: Float[Array, " queries"]
    entropy: Float[Array, " queries"]
    gap: Float[Array, " queries"]


class Attention(eqx.Module):
    """Scaled dot-product attention of one head and one sample. `eps=None`: `sqrt(d)`."""

    eps: Float[Array, ""] | None = eqx.field(
        converter=lambda eps: None if eps is None else temperature(eps), default=None
    )

    def logits(
        self,
        q: Real[ArrayLike, "queries d"],
        k: Real[ArrayLike, "keys d"],
        mask: Bool[ArrayLike, "queries keys"] | None = None,
    ) -> Float[Array, "queries keys"]:
        """`q.k`, `-inf` where `mask` is False."""
        q, k = floating(q), floating(k)
        if q.shape[-1] != k.shape[-1] or 0 in (*q.shape, *k.shape):
            raise ValueError(
                f"Attention: queries and keys must share their last axis, and neither be empty; "
                f"found {q.shape} and {k.shape}."
            )
        z = q @ k.T
        if mask is None:
            return z
        if jnp.shape(mask) != z.shape:
            raise ValueError(
                f"Attention: `mask` must have shape (queries, keys) = {z.shape}; found "
                f"{jnp.shape(mask)}."
            )
        return jnp.where(mask, z, -jnp.inf)

    def __call__(
        self,
        q: Real[ArrayLike, "queries d"],
        k: Real[ArrayLike, "keys d"],
        v: Real[ArrayLike, "keys value"],
        mask: Bool[ArrayLike, "queries keys"] | None = None,
    ) -> Attended:
        """Output, weights, energy, entropy and gap. `mask` is True where a query may look.

        **Raises:** `ValueError` for shapes that do not fit.
        """
        z, eps = self.logits(q, k, mask), self.temperature(jnp.shape(q)[-1])
        v = floating(v)
        if v.ndim != 2 or v.shape[0] != z.shape[1]:
            raise ValueError(
                f"Attention: one value a key is needed, ({z.shape[1]}, d_v); found {v.shape}."
            )
        eps = eps.astype(z.dtype)
        weights = gibbs(z, eps)
        looking = jnp.any(~jnp.isneginf(z), axis=-1)
        safe = jnp.where(looking[:, None], z, 0.0)
        gap = jax.vmap(Softmax(eps).gap)(safe, gibbs(safe, eps))
        return Attended(
            output=weights @ v.astype(z.dtype),
            weights=weights,
            energy=-lse(z, eps),
            entropy=heat(z, eps),
            gap=jnp.where(looking, gap, 0.0),
        )

    def temperature(self, width: int) -> Float[Array, ""]:
        """`eps`, or the root of the width of a key."""
        return jnp.asarray(math.sqrt(width)) if self.eps is None else self.eps

    def program(
        self,
        q: Real[ArrayLike, "queries d"],
        k: Real[ArrayLike, "keys d"],
        mask: Bool[ArrayLike, "queries keys"] | None = None,
    ) -> Any:
        """The program of the weights: certify any candidate for them."""
        return RowSoftmax(self.temperature(jnp.shape(q)[-1])).program(self.logits(q, k, mask))

    def as_cvxpy(
        self,
        q: Real[ArrayLike, "queries d"],
        k: Real[ArrayLike, "keys d"],
        mask: Bool[ArrayLike, "queries keys"] | None = None,
    ) -> Any:
        """The same as a `cvxpy.Problem` in `p`, `(queries, keys)`."""
        return RowSoftmax(self.temperature(jnp.shape(q)[-1])).as_cvxpy(self.logits(q, k, mask))

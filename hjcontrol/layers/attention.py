r"""Attention: rows of the simplex contracted with values.

    z_ij = q_i.k_j     pi_i = argmax over the simplex of pi.z_i + eps H(pi)     out_i = sum_j pi_ij v_j
    energy_i = -lse(z_i, eps)        entropy_i = H(pi_i)        gap_i = Fenchel-Young gap of pi_i

The form "distance" has z_ij = -|q_i - k_j|^2/2 = q_i.k_j - |k_j|^2/2 - |q_i|^2/2. What depends on the
query alone moves no weight, so the two forms weigh alike exactly when all keys have one norm (keys
normalised); else adding `key_norms(k)` to the distances gives the dot products' weights back. As
initial data of u_t + |grad u|^2 = eps Lap u at time t: atoms y_j = 2 t k_j, with g_j = -t |k_j|^2 for dot
products and (1/2 - t) |k_j|^2 for distances: at t = 1/2 the flat one.

eps = sqrt(d) is the usual scaling; at eps = 0 each query takes its nearest key, ties shared. Only
V = K (or V = K A) makes the output a gradient in q: a general V is the Gibbs average of an observable.
A masked key is as if absent; a query that may look at nothing gets output 0 and energy +inf.
"""

import math
from typing import Any, ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Real

from hjcontrol._ground.arguments import admits
from hjcontrol._ground.shown import Shown
from hjcontrol.deformation import gibbs, heat, lse
from hjcontrol.deformation.soft_maximum import floating, temperature
from hjcontrol.hamilton_jacobi import InitialData
from hjcontrol.hamilton_jacobi.dictionary import Scalar
from hjcontrol.layers.rows import RowSoftmax
from hjcontrol.layers.softmax import Softmax

FORMS = ("dot", "distance")


@admits()
def key_norms(k: Real[ArrayLike, "keys d"]) -> Float[Array, " keys"]:
    """`|k_j|^2/2`: what must be added to logits of the form "distance" to weigh as dot products do."""
    return 0.5 * jnp.sum(floating(k) ** 2, axis=-1)


class Attended(Shown):
    """What attention returns beside its output, one entry a query."""

    output: Float[Array, "queries value"]
    weights: Float[Array, "queries keys"]
    energy: Float[Array, " queries"]
    entropy: Float[Array, " queries"]
    gap: Float[Array, " queries"]


@admits(eps=">= 0")
class Attention(Shown):
    """Scaled attention of one head and one sample, by dot products or by distances.

    `eps=None`: `sqrt(d)`.
    """

    held: ClassVar[tuple[str, ...]] = ("eps",)
    eps: Float[Array, ""] | None = eqx.field(
        converter=lambda eps: None if eps is None else temperature(eps), default=None
    )
    form: Literal["dot", "distance"] = eqx.field(static=True, default="dot")

    def __check_init__(self):
        if self.form not in FORMS:
            raise ValueError(
                f"Attention: `form` must be one of {', '.join(FORMS)}; found {self.form!r}."
            )

    def logits(
        self,
        q: Real[ArrayLike, "queries d"],
        k: Real[ArrayLike, "keys d"],
        mask: Bool[ArrayLike, "queries keys"] | None = None,
    ) -> Float[Array, "queries keys"]:
        """`q.k`, or `-|q - k|^2/2`; `-inf` where `mask` is False."""
        return _logits(self, q, k, mask)

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
        return _attended(self, q, k, v, mask)

    def temperature(self, width: int) -> Float[Array, ""]:
        """`eps`, or the root of the width of a key."""
        return jnp.asarray(math.sqrt(width)) if self.eps is None else self.eps

    def initial_data(self, k: Real[ArrayLike, "keys d"], t: Scalar = 0.5) -> InitialData:
        """The atoms whose viscous solution `u` at time `t` has this head's weights for its Gibbs state.

        The heat kernel's normaliser aside, `lse(z, eps) = |q|^2/4t - u(q, t)` for dot products, less
        `|q|^2/2` for distances.
        """
        k = floating(k)
        share = 1.0 if self.form == "distance" else 0.0
        return InitialData(2 * t * k, (share - 2 * t) * key_norms(k))

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


def _logits(
    attention: Attention,
    q: Real[ArrayLike, "queries d"],
    k: Real[ArrayLike, "keys d"],
    mask: Bool[ArrayLike, "queries keys"] | None = None,
) -> Float[Array, "queries keys"]:
    q, k = floating(q), floating(k)
    if q.shape[-1] != k.shape[-1] or 0 in (*q.shape, *k.shape):
        raise ValueError(
            f"Attention: queries and keys must share their last axis, and neither be empty; "
            f"found {q.shape} and {k.shape}."
        )
    z = q @ k.T
    if attention.form == "distance":
        z = -0.5 * jnp.sum((q[:, None, :] - k[None, :, :]) ** 2, axis=-1)
    if mask is None:
        return z
    if jnp.shape(mask) != z.shape:
        raise ValueError(
            f"Attention: `mask` must have shape (queries, keys) = {z.shape}; found "
            f"{jnp.shape(mask)}."
        )
    return jnp.where(mask, z, -jnp.inf)


def _attended(
    attention: Attention,
    q: Real[ArrayLike, "queries d"],
    k: Real[ArrayLike, "keys d"],
    v: Real[ArrayLike, "keys value"],
    mask: Bool[ArrayLike, "queries keys"] | None = None,
) -> Attended:
    z, eps = attention.logits(q, k, mask), attention.temperature(jnp.shape(q)[-1])
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

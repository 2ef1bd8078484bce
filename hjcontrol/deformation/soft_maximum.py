r"""The soft maximum of affine functions.

    f(x) = lse(W x + b, eps)          eps = 0: the max-affine function max_j W_j.x + b_j
    pi(x) = gibbs(W x + b, eps)       Gibbs weights of the atoms
    grad f(x) = W^T pi(x)

The soft maximum is a layer of a network, a Hopf-Cole solution at one time, and the unknown of a
convex training problem. Its Legendre dual is in `layers.legendre`.
"""

from collections.abc import Iterator
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Real

from hjcontrol._ground.arguments import admits, fits
from hjcontrol._ground.concrete import known, known_to_fail
from hjcontrol._ground.shown import Shown
from hjcontrol.deformation.eps_family import gibbs, lse


def floating(x: Real[ArrayLike, "*shape"]) -> Float[Array, "*shape"]:
    """`x` as an array of a floating dtype: its own, or the default one for integers."""
    x = jnp.asarray(fits("layer", "logits", x, Real[ArrayLike, "..."]))
    return x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(jnp.result_type(float))


def wide(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Half precision as float32, all else as it is: a sum of halves ends at 65504."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def temperature(eps: Real[ArrayLike, ""] | float | int) -> Float[Array, ""]:
    """`eps` as a floating scalar array: a leaf, so that sweeps do not recompile.

    **Raises:** `ValueError` if negative, NaN or not scalar.
    """
    if not isinstance(eps, (int, float, np.ndarray, np.generic, jax.Array)):
        return eps  # type: ignore  # a placeholder of some tree transformation
    eps = floating(eps)
    if eps.ndim != 0 and known(eps) is not None:
        raise ValueError(
            f"layer: `eps` must be a scalar; found shape {eps.shape}. Use `jax.vmap` to sweep."
        )
    if known_to_fail(jnp.isfinite(eps) & (eps >= 0)):
        raise ValueError(f"layer: `eps` must be finite and >= 0; found {np.asarray(eps)}.")
    return eps


def checked(
    who: str, z: Real[ArrayLike, "*shape"], *, axes: int | None = None, mask: bool = True
) -> Float[Array, "*shape"]:
    """`z` as a floating array: not empty, not NaN, not `+inf`; `-inf` only as a `mask`, and not all.

    **Raises:** `ValueError` where that can be seen now; under `jit` a NaN stays one in the answer.
    """
    z = floating(z)
    if axes is not None and z.ndim != axes:
        raise ValueError(
            f"{who}: one sample has {axes} axis; found shape {z.shape}. Batch with `jax.vmap`."
        )
    if z.size == 0:
        raise ValueError(f"{who}: at least one logit is needed; found shape {z.shape}.")
    value = known(z)
    if value is None:
        return z
    bad = np.isnan(value) | np.isposinf(value) | (False if mask else np.isneginf(value))
    if bad.any():
        where = np.argwhere(bad)[0].tolist()
        allowed = "finite (or -inf, masked)" if mask else "finite"
        raise ValueError(
            f"{who}: logits must be {allowed}; found {value[tuple(where)]} at {where}. "
            "Look for an overflow upstream."
        )
    if np.isneginf(value).all():
        raise ValueError(f"{who}: every logit is -inf. Unmask at least one.")
    return z


@admits(eps=">= 0")
class LSE(Shown):
    """`f(x) = lse(W x + b, eps)`, one scalar a sample; max-affine at `eps = 0`. Batch with `jax.vmap`.

    As a stage of a network its weights are `W` and `b`; its temperature is held.

    **Example:**

        >>> import jax.numpy as jnp, hjcontrol as hj
        >>> layer = hj.deformation.LSE(jnp.eye(2), jnp.zeros(2), 0.0)
        >>> float(layer(jnp.array([1.0, 3.0]))), layer.weights(jnp.array([1.0, 3.0])).tolist()
        (3.0, [0.0, 1.0])
    """

    held: ClassVar[tuple[str, ...]] = ("eps",)
    W: Float[Array, "atoms d"]
    b: Float[Array, " atoms"]
    eps: Float[Array, ""] = eqx.field(converter=temperature)

    def __init__(
        self,
        W: Real[ArrayLike, "atoms d"],
        b: Real[ArrayLike, " atoms"],
        eps: float | Float[Array, ""] = 1.0,
    ):
        """**Raises:** `ValueError` if `W` is not a matrix with one row an entry of `b`."""
        W, b = floating(W), floating(b)
        if W.ndim != 2 or b.shape != W.shape[:1] or W.size == 0:
            raise ValueError(
                f"LSE: `W` must be (atoms, d) and `b` (atoms,); found {W.shape}, {b.shape}."
            )
        self.W, self.b, self.eps = W, b, eps

    def __iter__(self) -> Iterator[Array]:
        """`W, b = layer`."""
        return iter((self.W, self.b))

    def scores(self, x: Real[ArrayLike, " d"]) -> Float[Array, " atoms"]:
        """`W x + b`.

        **Raises:** `ValueError` for an `x` of another shape, or known not to be finite.
        """
        x = checked("LSE", x, axes=1, mask=False)
        if x.shape != self.W.shape[1:]:
            raise ValueError(
                f"LSE: one sample has shape {self.W.shape[1:]}; found {x.shape}. "
                "Batch with `jax.vmap`."
            )
        return self.W @ x + self.b

    @admits()
    def __call__(self, x: Real[ArrayLike, " d"]) -> Float[Array, ""]:
        """`f(x)`."""
        z = self.scores(x)
        return lse(z, self.eps.astype(z.dtype))

    def weights(self, x: Real[ArrayLike, " d"]) -> Float[Array, " atoms"]:
        """The Gibbs weights `pi(x)`: of sum one; at `eps = 0` shared equally by the maximisers."""
        z = self.scores(x)
        return gibbs(z, self.eps.astype(z.dtype))

    def slope(self, x: Real[ArrayLike, " d"]) -> Float[Array, " d"]:
        """`grad f(x) = W^T pi(x)`."""
        return self.W.T @ self.weights(x)

r"""Softmax and log-sum-exp: the simplex with Shannon's entropy; and the maximum, their hard limit.

    value(z) = eps log sum_j exp(z_j/eps) = lse(z, eps)        layer(z) = softmax(z/eps)
    value(z) = max_j z_j                  at eps = 0           uniform over the exact maximisers

Sharp: 0 <= lse(z, eps) - max z <= eps log n.
"""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Real

from hjcontrol._ground.arguments import admits
from hjcontrol._ground.third_party import needs
from hjcontrol.deformation import entropy, gibbs, lse
from hjcontrol.deformation.soft_maximum import checked, floating, temperature
from hjcontrol.layers.layer import SLACK, AbstractConvexLayer
from hjcontrol.layers.regulariser import Shannon
from hjcontrol.layers.separable import BoxFace, SeparableProgram


@admits(eps=">= 0")
class Softmax(AbstractConvexLayer):
    """`max over the simplex of p.z + eps H(p)`: `value` is log-sum-exp, the argmax softmax.

    **Example:**

        >>> import jax.numpy as jnp, hjcontrol as hj
        >>> layer = hj.layers.Softmax(0.5)
        >>> print(layer(jnp.array([1.0, 0.0])).round(4), f"{layer.value(jnp.array([1.0, 0.0])):.4f}")
        [0.8808 0.1192] 1.0635
    """

    eps: Float[Array, ""] = eqx.field(converter=temperature, default=1.0)
    phi: Shannon = eqx.field(init=False, default_factory=Shannon)
    total: int = eqx.field(init=False, static=True, default=1)
    kind = "simplex, entropy"
    domain = "simplex"
    regulariser = "sum p log p (Shannon)"
    curvature = "smooth; strongly convex dual"

    @property
    def modulus(self) -> Float[Array, ""]:
        return self.eps

    def value(self, z: Real[ArrayLike, " n"]) -> Float[Array, ""]:
        z = checked("Softmax", z, axes=1)
        return lse(z, self.eps.astype(z.dtype))

    def __call__(self, z: Real[ArrayLike, " n"]) -> Float[Array, " n"]:
        z = checked("Softmax", z, axes=1)
        return gibbs(z, self.eps.astype(z.dtype))

    def conjugate(self, p: Real[ArrayLike, " n"]) -> Float[Array, ""]:
        p = floating(p)
        off = jnp.maximum(jnp.max(-p), jnp.abs(jnp.sum(p) - 1.0))
        value = -self.eps.astype(p.dtype) * entropy(jnp.maximum(p, 0.0))
        return jnp.where(off > jnp.finfo(p.dtype).eps ** SLACK, jnp.inf, value)

    def face(self, z: Real[ArrayLike, " n"]) -> BoxFace:
        z = checked("Softmax", z, axes=1)
        p = self(z)
        upper = jnp.where(self.eps > 0, p, (z == jnp.max(z)).astype(z.dtype))
        tied = (self.eps <= 0) & (jnp.sum(upper) > 1)
        return BoxFace(jnp.where(tied, 0.0, p), upper, 1)

    def sandwich(self, shape: tuple[int, ...]) -> tuple[float, float]:
        return 0.0, float(jnp.log(shape[0]))

    def program(self, z: Real[ArrayLike, " n"]) -> SeparableProgram:
        z = checked("Softmax", z, axes=1)
        eps = self.eps.astype(z.dtype)
        pivot = jnp.max(z)
        return SeparableProgram(z, eps, self.phi, pivot, lse(z - pivot, eps) - eps, 1)

    def as_cvxpy(self, z: Real[ArrayLike, " n"]) -> Any:
        needs("Softmax.as_cvxpy", "cvxpy")
        import cvxpy as cp

        z = np.asarray(checked("Softmax", z, axes=1), float)
        p = cp.Variable(z.shape[0], name="p")
        kept = np.isfinite(z)
        objective = p @ np.where(kept, z, 0.0)
        if float(self.eps) > 0:
            objective = objective + float(self.eps) * cp.sum(cp.entr(p))
        masked = [] if kept.all() else [p[~kept] == 0]
        return cp.Problem(cp.Maximize(objective), [cp.sum(p) == 1, p >= 0, *masked])


def maximum() -> Softmax:
    """The maximum: [`Softmax`][hjcontrol.layers.Softmax] at `eps = 0`, ties shared equally."""
    return Softmax(0.0)

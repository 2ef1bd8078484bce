r"""Permutahedron: sorting and ranking as projections.

    C = P(w) = conv{ w_sigma },  w_1 >= ... >= w_n         psi = its indicator
    eps = 0:   value = sum_i w_i z_(i)  (z sorted),        argmax = w in the order of z
    eps > 0:   p = projection of z/eps on P(w) = z/eps - isotonic(sorted z/eps - w), put back in place

    soft_rank(x) = projection of -x/eps on P(n, ..., 1)    1 for the largest
    soft_sort(x) = projection of (n, ..., 1)/eps on P(x)   descending

Majorisation: p in P(w) when the sums of its k largest entries are at most those of w, for all k, and
equal for k = n. Source: Blondel, Teboul, Berthet, Djolonga, "Fast differentiable sorting and ranking",
2020.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Real

from hjcontrol._ground.arguments import admits
from hjcontrol._ground.third_party import needs
from hjcontrol.deformation.soft_maximum import checked, floating, temperature
from hjcontrol.layers.gauge import AbstractGauge, Units
from hjcontrol.layers.isotonic_regression import block_means, blocks
from hjcontrol.layers.layer import AbstractFace
from hjcontrol.layers.prox import AbstractGaugeLayer


def project(z: Float[Array, " n"], w: Float[Array, " n"]) -> Float[Array, " n"]:
    """The projection of `z` on the permutahedron of `w` (in any order); differentiable in both."""
    order = jnp.argsort(-jax.lax.stop_gradient(z), stable=True)
    top = w[jnp.argsort(-jax.lax.stop_gradient(w), stable=True)]
    ids = blocks(z[order] - top)
    spread = z[order] - block_means(z[order], ids)  # 0 exactly in a block of one
    return jnp.zeros_like(z).at[order].set(spread + block_means(top, ids))


class Hull(AbstractGauge):
    """The indicator of the permutahedron of `w`."""

    w: Float[Array, " n"]

    def cost(self, p: Float[Array, " n"]) -> Float[Array, ""]:
        return jnp.zeros((), p.dtype)

    def violation(self, p: Float[Array, " n"]) -> dict[str, Float[Array, "..."]]:
        slack = jnp.cumsum(_descending(p) - _descending(self.w))
        return {"sums": jnp.maximum(slack[:-1], 0.0), "sum": jnp.abs(slack[-1])}

    def support(self, r: Float[Array, " n"]) -> Float[Array, ""]:
        return jnp.sum(_descending(self.w) * _descending(r))

    def dual_violation(self, r: Float[Array, " n"]) -> dict[str, Float[Array, ""]]:
        return {}

    def complementarity(
        self, p: Float[Array, " n"], r: Float[Array, " n"]
    ) -> dict[str, Float[Array, "..."]]:
        order = jnp.argsort(-r, stable=True)
        slack = jnp.cumsum(_descending(self.w) - p[order])
        return {"sums": jnp.abs((r[order][:-1] - r[order][1:]) * slack[:-1])}

    def extent(self, z: Float[Array, " n"], eps: Float[Array, ""]) -> Units:
        unit = jnp.finfo(z.dtype).eps
        width = jnp.max(self.w) - jnp.min(self.w) + 64.0 * unit * jnp.max(jnp.abs(self.w))
        soft = jnp.where(eps > 0, eps * width, 0.0)
        steps = -jnp.diff(_descending(z))  # of the multipliers, which are ordered as the logits are
        nearest = jnp.min(jnp.where(steps > 0, steps, jnp.inf), initial=jnp.inf)
        least = jnp.where(eps > 0, soft, nearest)
        return Units(width, soft + jnp.abs(z), {"sums": (soft + steps) * width}, least)

    def centre(self, z: Float[Array, " n"]) -> Float[Array, ""]:
        return jax.lax.stop_gradient(jnp.max(z))

    def prox(self, z: Float[Array, " n"], eps: Float[Array, ""]) -> Float[Array, " n"]:
        z = z - self.centre(z)  # the sum is fixed: what all logits share only costs digits
        soft = project(z / jnp.where(eps > 0, eps, 1.0), self.w)
        order = jnp.argsort(-z, stable=True)
        fresh = jnp.concatenate([jnp.zeros(1, int), (jnp.diff(z[order]) != 0).astype(int)])
        shared = block_means(_descending(self.w), jnp.cumsum(fresh))
        hard = jnp.zeros_like(z).at[order].set(shared)
        return jnp.where(eps > 0, soft, jax.lax.stop_gradient(hard))

    def as_cvxpy(self, p: Any) -> tuple[Any, list]:
        needs("Hull.as_cvxpy", "cvxpy")
        import cvxpy as cp

        w = -np.sort(-np.asarray(self.w, float))
        sums = np.cumsum(w)
        some = [cp.sum_largest(p, k) <= sums[k - 1] for k in range(1, len(w))]
        return 0.0, [*some, cp.sum(p) == sums[-1]]


class HullFace(AbstractFace):
    """All orders of `w` that agree with `z`: free within the blocks of tied logits."""

    z: Float[Array, " n"]
    p: Float[Array, " n"]
    w: Float[Array, " n"]
    hard: Bool[Array, ""]

    def support(self, direction: Float[Array, " n"]) -> Float[Array, ""]:
        order = jnp.lexsort((-direction, -self.z))  # by z, then by direction among the tied
        best = jnp.sum(_descending(self.w) * direction[order])
        return jnp.where(self.hard, best, jnp.sum(self.p * direction))

    @property
    def unique(self) -> Bool[Array, ""]:
        return ~jnp.any(self.ties)

    @property
    def ties(self) -> Bool[Array, " n"]:
        order = jnp.argsort(-self.z, stable=True)
        w = _descending(self.w)
        rank = jnp.zeros_like(order).at[order].set(jnp.arange(order.size))
        same = self.z[:, None] == self.z[None]
        return self.hard & jnp.any(same & (w[rank][:, None] != w[rank][None]), axis=1)


@admits(eps=">= 0")
class Permutahedron(AbstractGaugeLayer):
    """Projection of `z/eps` on the permutahedron of `anchors`; their sorted assignment at `eps = 0`."""

    eps: Float[Array, ""] = eqx.field(converter=temperature)
    anchors: Float[Array, " n"]
    kind = "permutahedron"
    domain = "permutahedron of w"
    regulariser = "|p|^2/2"
    curvature = "piecewise quadratic; strongly convex dual"

    def __init__(self, eps: float | Float[Array, ""], anchors: Real[ArrayLike, " n"]):
        """`anchors`: `w`, in any order. **Raises:** `ValueError` if not finite or `eps < 0`."""
        self.eps, self.anchors = eps, checked("Permutahedron", anchors, axes=1, mask=False)

    @property
    def entries(self) -> int:
        return self.anchors.shape[0]

    @property
    def gauge(self) -> Hull:
        return Hull(self.anchors)

    def face(self, z: Real[ArrayLike, " n"]) -> HullFace:
        z = checked("Permutahedron", z, axes=1, mask=False)
        return HullFace(z, self(z), self.anchors, self.eps <= 0)

    def sandwich(self, shape: tuple[int, ...]) -> tuple[float, float]:
        w = np.asarray(self.anchors, float)
        return -0.5 * float(np.sum(w**2)), -0.5 * float(np.sum(w)) ** 2 / w.size


@admits(eps=">= 0")
def soft_rank(x: Real[ArrayLike, " n"], eps: Real[ArrayLike, ""] | float) -> Float[Array, " n"]:
    """Ranks of `x`, 1 for the largest, exact for gaps of at least `eps`; averaged ranks at `eps = 0`."""
    x = checked("soft_rank", x, axes=1, mask=False)
    return Permutahedron(eps, jnp.arange(x.size, 0, -1, dtype=x.dtype))(-x)


@admits(eps=">= 0")
def soft_sort(x: Real[ArrayLike, " n"], eps: Real[ArrayLike, ""] | float) -> Float[Array, " n"]:
    """`x` in descending order, exact while `eps` is at most `1/(max x - min x)`."""
    x = checked("soft_sort", x, axes=1, mask=False)
    eps = floating(temperature(eps)).astype(x.dtype)
    w = jnp.arange(x.size, 0, -1, dtype=x.dtype)
    soft = project(w / jnp.where(eps > 0, eps, 1.0), x)
    return jnp.where(eps > 0, soft, _descending(x))


def _descending(x: Float[Array, " n"]) -> Float[Array, " n"]:
    return x[jnp.argsort(-jax.lax.stop_gradient(x), stable=True)]

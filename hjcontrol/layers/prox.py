r"""Layers with a Euclidean regulariser and a gauge psi: proximal maps and projections.

    value(z) = max over p of  p.z - psi(p) - eps |p|^2/2         layer(z) = prox of psi at z/eps
    dual:  min over r of  psi*(r) + |z - r|^2/(2 eps),           r = z - eps p

psi is the indicator of a convex set (the layer projects z/eps on it) or a norm (it thresholds). The
certificate is Fenchel's: psi(p) + psi*(r) - p.r >= 0, coordinate by coordinate where it separates.

    BallProjection               |p|_2 <= radius       value: Huber's function of |z|_2
    SoftThreshold        psi = lam |p|_1       p = sign(z) (|z| - lam)_+ / eps
    GroupSoftThreshold   psi = lam sum_g |p_g|_2, groups are the rows of z
"""

import abc
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Real

from hjcontrol._ground.arguments import admits
from hjcontrol._ground.third_party import needs
from hjcontrol.deformation.soft_maximum import checked, floating, temperature
from hjcontrol.layers.gauge import AbstractGauge, GaugeProgram, Units, slack, worst
from hjcontrol.layers.layer import AbstractConvexLayer, AbstractFace


class BallFace(AbstractFace):
    """A ball around `p`, of radius 0 where the maximiser is one point; `inf`: no maximiser."""

    p: Float[Array, "*shape"]
    radius: Float[Array, ""]

    def support(self, direction: Float[Array, "*shape"]) -> Float[Array, ""]:
        size = jnp.sqrt(jnp.sum(direction**2))
        ball = jnp.where(size > 0, self.radius * jnp.where(size > 0, size, 1.0), 0.0)
        return jnp.sum(self.p * direction) + ball

    @property
    def unique(self) -> Bool[Array, ""]:
        return self.radius == 0

    @property
    def ties(self) -> Bool[Array, "*shape"]:
        return jnp.broadcast_to(self.radius > 0, self.p.shape)


class RayFace(AbstractFace):
    """`{ s_g ray_g : s_g >= 0 }` added to `p`: where a threshold is met exactly at `eps = 0`."""

    p: Float[Array, "groups size"]
    ray: Float[Array, "groups size"]

    def support(self, direction: Float[Array, "..."]) -> Float[Array, ""]:
        d = direction.reshape(self.p.shape)
        outward = jnp.any(jnp.sum(self.ray * d, axis=-1) > 0)
        return jnp.where(outward, jnp.inf, jnp.sum(jnp.where(d == 0, 0.0, self.p * d)))

    @property
    def unique(self) -> Bool[Array, ""]:
        return jnp.all(self.ray == 0)

    @property
    def ties(self) -> Bool[Array, "groups size"]:
        return self.ray != 0


class AbstractGaugeLayer(AbstractConvexLayer):
    """A layer made of a gauge; its file states psi."""

    @property
    @abc.abstractmethod
    def gauge(self) -> AbstractGauge:
        """psi."""

    @property
    def entries(self) -> int | None:
        """How many entries a sample has, where the set says so."""
        return None

    def _checked(self, z: Any) -> Array:
        name = type(self).__name__
        z = checked(name, z, mask=False)
        if self.entries is not None and z.shape != (self.entries,):
            raise ValueError(
                f"{name}: one sample has shape {(self.entries,)}; found {z.shape}. Batch with `jax.vmap`."
            )
        return z

    @property
    def modulus(self) -> Float[Array, ""]:
        return self.eps

    def value(self, z: Real[ArrayLike, "*shape"]) -> Float[Array, ""]:
        z = self._checked(z)
        p, eps = self(z), self.eps.astype(z.dtype)
        finite = jnp.all(jnp.isfinite(p))
        held = jnp.where(finite, p, 0.0)
        value = jnp.sum(held * z) - self.gauge.cost(held) - 0.5 * eps * jnp.sum(held**2)
        return jnp.where(finite, value, jnp.where(jnp.any(jnp.isnan(p)), jnp.nan, jnp.inf))

    def __call__(self, z: Real[ArrayLike, "*shape"]) -> Float[Array, "*shape"]:
        z = self._checked(z)
        return self.gauge.prox(z, self.eps.astype(z.dtype)).astype(z.dtype)

    def conjugate(self, p: Real[ArrayLike, "*shape"]) -> Float[Array, ""]:
        p = floating(p)
        cost = self.gauge.cost(p) + 0.5 * self.eps.astype(p.dtype) * jnp.sum(p**2)
        return jnp.where(worst(self.gauge.violation(p), p) > slack(p), jnp.inf, cost)

    def program(self, z: Real[ArrayLike, "*shape"]) -> GaugeProgram:
        z = self._checked(z)
        eps = self.eps.astype(z.dtype)
        p = self(z)
        best = (z - self.gauge.centre(z)) - eps * jnp.where(jnp.isfinite(p), p, 0.0)
        return GaugeProgram(z, eps, self.gauge, best)

    def as_cvxpy(self, z: Real[ArrayLike, "*shape"]) -> Any:
        needs("AbstractGaugeLayer.as_cvxpy", "cvxpy")
        import cvxpy as cp

        z = np.asarray(self._checked(z), float)
        p = cp.Variable(z.shape, name="p")
        cost, constraints = self.gauge.as_cvxpy(p)
        objective = cp.sum(cp.multiply(z, p)) - cost
        if float(self.eps) > 0:
            objective = objective - 0.5 * float(self.eps) * cp.sum_squares(p)
        return cp.Problem(cp.Maximize(objective), constraints)


class Ball(AbstractGauge):
    """The indicator of `|p|_2 <= radius`."""

    radius: Float[Array, ""]

    def cost(self, p: Float[Array, "*shape"]) -> Float[Array, ""]:
        return jnp.zeros((), p.dtype)

    def violation(self, p: Float[Array, "*shape"]) -> dict[str, Float[Array, ""]]:
        return {"norm": jnp.maximum(norm(p.ravel()) - self.radius, 0.0)}

    def support(self, r: Float[Array, "*shape"]) -> Float[Array, ""]:
        return self.radius * norm(r.ravel())

    def dual_violation(self, r: Float[Array, "*shape"]) -> dict[str, Float[Array, ""]]:
        return {}

    def complementarity(
        self, p: Float[Array, "*shape"], r: Float[Array, "*shape"]
    ) -> dict[str, Float[Array, ""]]:
        return {"norm": jnp.abs(self.support(r) - jnp.sum(p * r))}

    def extent(self, z: Float[Array, "*shape"], eps: Float[Array, ""]) -> Units:
        size = norm(z.ravel())
        return Units(self.radius, size, {"norm": size * self.radius})

    def prox(self, z: Float[Array, "*shape"], eps: Float[Array, ""]) -> Float[Array, "*shape"]:
        size, warm = norm(z.ravel()), jnp.where(eps > 0, eps, 1.0)
        beyond = size > self.radius * eps
        on = self.radius * (z / jnp.where(size > 0, size, 1.0))
        return jnp.where(beyond, on, jnp.where(eps > 0, z / warm, 0.0 * z))

    def as_cvxpy(self, p: Any) -> tuple[Any, list]:
        needs("Ball.as_cvxpy", "cvxpy")
        import cvxpy as cp

        return 0.0, [cp.norm(cp.vec(p, order="C"), 2) <= float(self.radius)]


class RowNorms(AbstractGauge):
    """`lam` times the sum of the Euclidean norms of groups: entries, or rows of the last axis."""

    lam: Float[Array, ""]
    rows: bool = eqx.field(static=True)

    def sizes(self, p: Float[Array, "*shape"]) -> Float[Array, "..."]:
        """The norms of the groups, the last axis kept for rows."""
        return norm(p, axis=-1) if self.rows else jnp.abs(p)

    def cost(self, p: Float[Array, "*shape"]) -> Float[Array, ""]:
        return self.lam * jnp.sum(self.sizes(p))

    def violation(self, p: Float[Array, "*shape"]) -> dict[str, Float[Array, ""]]:
        return {}

    def support(self, r: Float[Array, "*shape"]) -> Float[Array, ""]:
        return jnp.zeros((), r.dtype)

    def dual_violation(self, r: Float[Array, "*shape"]) -> dict[str, Float[Array, "..."]]:
        return {"norm": jnp.maximum(self.sizes(r) - self.lam, 0.0)}

    def complementarity(
        self, p: Float[Array, "*shape"], r: Float[Array, "*shape"]
    ) -> dict[str, Float[Array, "..."]]:
        inner = jnp.sum(p * r, axis=-1, keepdims=True) if self.rows else p * r
        return {"norm": jnp.abs(self.lam * self.sizes(p) - inner)}

    def extent(self, z: Float[Array, "*shape"], eps: Float[Array, ""]) -> Units:
        force = self.sizes(z) + self.lam
        point = jnp.where(eps > 0, force / jnp.where(eps > 0, eps, 1.0), 0.0)
        return Units(point, force, {"norm": force * point})

    def prox(self, z: Float[Array, "*shape"], eps: Float[Array, ""]) -> Float[Array, "*shape"]:
        size = self.sizes(z)
        left = jnp.maximum(size - self.lam, 0.0)
        unit = z / jnp.where(size > 0, size, 1.0)
        soft = left * unit / jnp.where(eps > 0, eps, 1.0)
        hard = jnp.where((left > 0) & (unit != 0), jnp.sign(unit) * jnp.inf, 0.0)
        return jnp.where(eps > 0, soft, jnp.where(jnp.isnan(z), z, hard))

    def as_cvxpy(self, p: Any) -> tuple[Any, list]:
        needs("RowNorms.as_cvxpy", "cvxpy")
        import cvxpy as cp

        one = cp.sum(cp.norm(p, 2, axis=1)) if self.rows else cp.norm1(cp.vec(p, order="C"))
        return float(self.lam) * one, []


def positive(x: Real[ArrayLike, ""] | float) -> Float[Array, ""]:
    """A radius or a threshold: `temperature` with another name in the error."""
    if isinstance(x, (int, float)) and not (0 < x < float("inf")):
        raise ValueError(f"layer: a radius or threshold must be positive and finite; found {x}.")
    return temperature(x)


@admits(eps=">= 0", radius=">= 0")
class BallProjection(AbstractGaugeLayer):
    """Projection of `z/eps` on the Euclidean ball; `radius z/|z|` at `eps = 0`."""

    eps: Float[Array, ""] = eqx.field(converter=temperature, default=1.0)
    radius: Float[Array, ""] = eqx.field(converter=positive, default=1.0)
    kind = "ball"
    domain = "l2 ball"
    regulariser = "|p|^2/2"
    curvature = "piecewise smooth; strongly convex dual"

    @property
    def gauge(self) -> Ball:
        return Ball(self.radius)

    def face(self, z: Real[ArrayLike, "*shape"]) -> BallFace:
        z = checked("BallProjection", z, mask=False)
        whole = (self.eps <= 0) & jnp.all(z == 0)
        return BallFace(self(z), jnp.where(whole, self.radius, 0.0).astype(z.dtype))

    def sandwich(self, shape: tuple[int, ...]) -> tuple[float, float]:
        return -0.5 * float(self.radius) ** 2, 0.0


@admits(eps=">= 0", lam=">= 0")
class SoftThreshold(AbstractGaugeLayer):
    """`sign(z) (|z| - lam)_+ / eps`, entry by entry: the prox of the l1 norm.

    **Example:**

        >>> import jax.numpy as jnp, hjcontrol as hj
        >>> hj.layers.SoftThreshold(1.0, 0.5)(jnp.array([2.0, -0.25])).tolist()
        [1.5, -0.0]
    """

    eps: Float[Array, ""] = eqx.field(converter=temperature, default=1.0)
    lam: Float[Array, ""] = eqx.field(converter=positive, default=1.0)
    kind = "threshold"
    domain = "R^n"
    regulariser = "|p|^2/2, beside the norm lam |p|_1"
    curvature = "piecewise quadratic; strongly convex dual"

    @property
    def gauge(self) -> RowNorms:
        return RowNorms(self.lam, False)

    def face(self, z: Real[ArrayLike, "*shape"]) -> RayFace:
        z = checked("SoftThreshold", z, mask=False)
        met = (self.eps <= 0) & (jnp.abs(z) == self.lam)
        return RayFace(self(z)[..., None], jnp.where(met, jnp.sign(z), 0.0)[..., None])

    def sandwich(self, shape: tuple[int, ...]) -> tuple[float, float]:
        return -float("inf"), 0.0  # the hard value is +inf beyond the threshold


@admits(eps=">= 0", lam=">= 0")
class GroupSoftThreshold(AbstractGaugeLayer):
    """`(|z_g| - lam)_+ z_g/|z_g| / eps` for each row `z_g` of `z`: the prox of the group norm."""

    eps: Float[Array, ""] = eqx.field(converter=temperature, default=1.0)
    lam: Float[Array, ""] = eqx.field(converter=positive, default=1.0)
    kind = "group threshold"
    domain = "R^(groups x size)"
    regulariser = "|p|^2/2, beside the norm lam sum_g |p_g|_2"
    curvature = "piecewise smooth; strongly convex dual"

    @property
    def gauge(self) -> RowNorms:
        return RowNorms(self.lam, True)

    def face(self, z: Real[ArrayLike, "groups size"]) -> RayFace:
        z = checked("GroupSoftThreshold", z, axes=2, mask=False)
        met = (self.eps <= 0) & (self.gauge.sizes(z) == self.lam)
        return RayFace(self(z), jnp.where(met, z, 0.0))

    def sandwich(self, shape: tuple[int, ...]) -> tuple[float, float]:
        return -float("inf"), 0.0


def norm(x: Float[Array, "*shape"], axis: int | None = None) -> Float[Array, "..."]:
    """Euclidean norm, of everything or along `axis` (kept); scaled against overflow; slope 0 at 0."""
    top = jnp.max(jnp.abs(x), axis=axis, keepdims=axis is not None)
    safe = jnp.where((top > 0) & jnp.isfinite(top), top, 1.0)
    squares = jnp.sum((x / safe) ** 2, axis=axis, keepdims=axis is not None)
    return jnp.where(top > 0, safe * jnp.sqrt(jnp.where(top > 0, squares, 1.0)), 0.0 * squares)

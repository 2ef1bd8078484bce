r"""Projections on sets, one small class a set: what differs is the gauge.

    layer(z) = the point of C nearest to z/eps        value(z) = max over C of p.z - eps |p|^2/2

L1BallProjection  |p|_1 <= radius   p = sign(z) (|z|/eps - theta)_+; eps = 0: signed unit vectors, shared
HalfSpace         a.p <= b          p = y - (a.y - b)_+ a/|a|^2,   y = z/eps
AffineSet         A p = b           p = y - A^+ (A y - b): rows may repeat each other

The last two are unbounded: `eps > 0`. A box with a sum is [`Separable`][hjcontrol.layers.Separable], a
polyhedron a [`ProgramLayer`][hjcontrol.layers.ProgramLayer].
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Real

from hjcontrol._ground.arguments import admits
from hjcontrol._ground.concrete import known, known_to_fail
from hjcontrol._ground.third_party import needs
from hjcontrol.deformation.soft_maximum import checked, floating, temperature
from hjcontrol.layers.entmax import simplex_threshold
from hjcontrol.layers.gauge import AbstractGauge, Units
from hjcontrol.layers.layer import AbstractFace
from hjcontrol.layers.prox import AbstractGaugeLayer, BallFace, positive


class CrossPolytope(AbstractGauge):
    """The indicator of `|p|_1 <= radius`."""

    radius: Float[Array, ""]

    def cost(self, p: Float[Array, " n"]) -> Float[Array, ""]:
        return jnp.zeros((), p.dtype)

    def violation(self, p: Float[Array, " n"]) -> dict[str, Float[Array, ""]]:
        return {"norm": jnp.maximum(jnp.sum(jnp.abs(p)) - self.radius, 0.0)}

    def support(self, r: Float[Array, " n"]) -> Float[Array, ""]:
        return self.radius * jnp.max(jnp.abs(r))

    def dual_violation(self, r: Float[Array, " n"]) -> dict[str, Float[Array, ""]]:
        return {}

    def complementarity(
        self, p: Float[Array, " n"], r: Float[Array, " n"]
    ) -> dict[str, Float[Array, "..."]]:
        most, size = jnp.max(jnp.abs(r)), jnp.abs(p)
        return {
            "p": jnp.abs(size * (most - jnp.sign(p) * r)),
            "norm": jnp.abs((self.radius - jnp.sum(size)) * most),
        }

    def extent(self, z: Float[Array, " n"], eps: Float[Array, ""]) -> Units:
        force = jnp.max(jnp.abs(z))
        return Units(self.radius, force, dict.fromkeys(("p", "norm"), force * self.radius))

    def prox(self, z: Float[Array, " n"], eps: Float[Array, ""]) -> Float[Array, " n"]:
        warm = jnp.where(eps > 0, eps, 1.0)
        radius = jnp.where(self.radius > 0, self.radius, 1.0)
        y = jnp.abs(z) / warm
        top = jax.lax.stop_gradient(jnp.max(y))
        edge = simplex_threshold((y - top) / radius) * radius + top
        active = jax.lax.stop_gradient(y > edge)
        theta = (jnp.sum(jnp.where(active, y, 0.0)) - self.radius) / jnp.maximum(jnp.sum(active), 1)
        on = jnp.sign(z) * jnp.where(active, y - theta, 0.0)
        soft = jnp.where(jnp.sum(y) <= self.radius, z / warm, on)
        tied = jnp.abs(z) == jnp.max(jnp.abs(z))
        hard = self.radius * jnp.sign(z) * jax.lax.stop_gradient(tied / jnp.sum(tied))
        return jnp.where(jnp.isnan(jnp.sum(z)), jnp.nan, jnp.where(eps > 0, soft, hard))

    def as_cvxpy(self, p: Any) -> tuple[Any, list]:
        needs("CrossPolytope.as_cvxpy", "cvxpy")
        import cvxpy as cp

        return 0.0, [cp.norm1(p) <= float(self.radius)]


class Plane(AbstractGauge):
    """The indicator of `a.p <= b`; multipliers are `s a/|a|`, `s >= 0`."""

    a: Float[Array, " n"]
    b: Float[Array, ""]

    @property
    def unit(self) -> tuple[Float[Array, " n"], Float[Array, ""]]:
        """The normal of length 1, and the distance of the plane from 0."""
        size = jnp.sqrt(jnp.sum(self.a**2))
        return self.a / size, self.b / size

    def cost(self, p: Float[Array, " n"]) -> Float[Array, ""]:
        return jnp.zeros((), p.dtype)

    def violation(self, p: Float[Array, " n"]) -> dict[str, Float[Array, ""]]:
        a, b = self.unit
        return {"plane": jnp.maximum(jnp.sum(a * p) - b, 0.0)}

    def support(self, r: Float[Array, " n"]) -> Float[Array, ""]:
        a, b = self.unit
        return jnp.maximum(jnp.sum(a * r), 0.0) * b

    def dual_violation(self, r: Float[Array, " n"]) -> dict[str, Float[Array, " n"]]:
        a, _ = self.unit
        return {"ray": jnp.abs(r - jnp.maximum(jnp.sum(a * r), 0.0) * a)}

    def complementarity(
        self, p: Float[Array, " n"], r: Float[Array, " n"]
    ) -> dict[str, Float[Array, ""]]:
        a, b = self.unit
        return {"plane": jnp.abs(jnp.maximum(jnp.sum(a * r), 0.0) * (b - jnp.sum(a * p)))}

    def extent(self, z: Float[Array, " n"], eps: Float[Array, ""]) -> Units:
        return _unbounded(z, eps, jnp.abs(self.unit[1]), "plane")

    def prox(self, z: Float[Array, " n"], eps: Float[Array, ""]) -> Float[Array, " n"]:
        a, b = self.unit
        y = z / jnp.where(eps > 0, eps, 1.0)
        return y - jnp.maximum(jnp.sum(a * y) - b, 0.0) * a

    def as_cvxpy(self, p: Any) -> tuple[Any, list]:
        return 0.0, [np.asarray(self.a, float) @ p <= float(self.b)]


class Flat(AbstractGauge):
    """The indicator of `A p = b`; multipliers are `A^T nu`."""

    A: Float[Array, "m n"]
    b: Float[Array, " m"]

    @property
    def rows(self) -> tuple[Float[Array, "m n"], Float[Array, " m"]]:
        """Rows of length 1."""
        size = jnp.sqrt(jnp.sum(self.A**2, axis=1))
        return self.A / size[:, None], self.b / size

    def cost(self, p: Float[Array, " n"]) -> Float[Array, ""]:
        return jnp.zeros((), p.dtype)

    def violation(self, p: Float[Array, " n"]) -> dict[str, Float[Array, " m"]]:
        A, b = self.rows
        return {"rows": jnp.abs(A @ p - b)}

    def support(self, r: Float[Array, " n"]) -> Float[Array, ""]:
        A, b = self.rows
        return jnp.sum((jnp.linalg.pinv(A).T @ r) * b)

    def dual_violation(self, r: Float[Array, " n"]) -> dict[str, Float[Array, " n"]]:
        A, _ = self.rows
        return {"span": jnp.abs(r - A.T @ (jnp.linalg.pinv(A).T @ r))}

    def complementarity(
        self, p: Float[Array, " n"], r: Float[Array, " n"]
    ) -> dict[str, Float[Array, " m"]]:
        A, b = self.rows
        return {"rows": jnp.abs((jnp.linalg.pinv(A).T @ r) * (A @ p - b))}

    def extent(self, z: Float[Array, " n"], eps: Float[Array, ""]) -> Units:
        return _unbounded(z, eps, jnp.max(jnp.abs(self.rows[1])), "rows")

    def prox(self, z: Float[Array, " n"], eps: Float[Array, ""]) -> Float[Array, " n"]:
        A, b = self.rows
        y = z / jnp.where(eps > 0, eps, 1.0)
        return y - jnp.linalg.pinv(A) @ (A @ y - b)

    def as_cvxpy(self, p: Any) -> tuple[Any, list]:
        return 0.0, [np.asarray(self.A, float) @ p == np.asarray(self.b, float)]


def _unbounded(z: Array, eps: Array, offset: Array, name: str) -> Units:
    size = jnp.sqrt(jnp.sum(z**2)) / jnp.where(eps > 0, eps, 1.0) + offset
    return Units(size, eps * size, {name: eps * size**2})


class CrossFace(AbstractFace):
    """At `eps = 0` the signed unit vectors of the largest `|z_j|`, all of the ball where `z = 0`."""

    p: Float[Array, " n"]
    corners: Float[Array, " n"]  # radius times the sign, 0 where there is none
    whole: Bool[Array, ""]

    def support(self, direction: Float[Array, " n"]) -> Float[Array, ""]:
        radius = jnp.max(jnp.abs(self.corners))
        one = jnp.where(self.corners != 0, self.corners * direction, -jnp.inf)
        several = jnp.where(self.whole, radius * jnp.max(jnp.abs(direction)), jnp.max(one))
        return jnp.where(self.unique, jnp.sum(self.p * direction), several)

    @property
    def unique(self) -> Bool[Array, ""]:
        return ~self.whole & (jnp.sum(self.corners != 0) <= 1)

    @property
    def ties(self) -> Bool[Array, " n"]:
        return ~self.unique & (self.corners != 0)


@admits(eps=">= 0", radius=">= 0")
class L1BallProjection(AbstractGaugeLayer):
    """Projection of `z/eps` on `|p|_1 <= radius`: sparse; at `eps = 0` a signed unit vector.

    **Example:**

        >>> import jax.numpy as jnp, hjcontrol as hj
        >>> hj.layers.L1BallProjection(1.0, 2.0)(jnp.array([2.0, -1.0, 0.25])).tolist()
        [1.5, -0.5, 0.0]
    """

    eps: Float[Array, ""] = eqx.field(converter=temperature, default=1.0)
    radius: Float[Array, ""] = eqx.field(converter=positive, default=1.0)
    domain = "l1 ball"
    regulariser = "|p|^2/2"
    curvature = "piecewise quadratic; strongly convex dual"

    @property
    def gauge(self) -> CrossPolytope:
        return CrossPolytope(self.radius)

    def face(self, z: Real[ArrayLike, " n"]) -> CrossFace:
        z = checked("L1BallProjection", z, axes=1, mask=False)
        tied = (jnp.abs(z) == jnp.max(jnp.abs(z))) & (self.eps <= 0)
        sign = jnp.where(z < 0, -1.0, 1.0)
        corners = jnp.where(tied, self.radius.astype(z.dtype) * sign, 0.0)
        return CrossFace(self(z), corners, (self.eps <= 0) & jnp.all(z == 0))

    def sandwich(self, shape: tuple[int, ...]) -> tuple[float, float]:
        return -0.5 * float(self.radius) ** 2, 0.0


class AbstractUnbounded(AbstractGaugeLayer):
    """A set without bounds, on which the hard program has no maximum."""

    def __check_init__(self):
        if known_to_fail(self.eps > 0):
            raise ValueError(
                f"{type(self).__name__}: `eps` must be > 0; found {float(self.eps)}. The set is "
                "unbounded, and a linear function has no maximum on it."
            )

    def face(self, z: Real[ArrayLike, " n"]) -> BallFace:
        p = self(z)
        return BallFace(p, jnp.zeros((), p.dtype))

    def sandwich(self, shape: tuple[int, ...]) -> tuple[float, float]:
        return -float("inf"), 0.0  # the hard value is +inf


@admits(eps="> 0", a="finite", b="finite")
class HalfSpace(AbstractUnbounded):
    """Projection of `z/eps` on `{ p : a.p <= b }`."""

    eps: Float[Array, ""] = eqx.field(converter=temperature)
    a: Float[Array, " n"]
    b: Float[Array, ""]
    domain = "half-space"
    regulariser = "|p|^2/2"
    curvature = "piecewise quadratic; strongly convex dual"

    def __init__(
        self,
        eps: float | Float[Array, ""],
        a: Real[ArrayLike, " n"],
        b: Real[ArrayLike, ""] | float,
    ):
        """**Raises:** `ValueError` for `a = 0` or `eps <= 0`."""
        self.eps, self.a, self.b = eps, floating(a), floating(b)
        if known_to_fail(jnp.any(self.a != 0)):
            raise ValueError("HalfSpace: `a` must not be 0; found 0 throughout.")

    @property
    def entries(self) -> int:
        return self.a.shape[0]

    @property
    def gauge(self) -> Plane:
        return Plane(self.a, self.b)


@admits(eps="> 0", A="finite", b="finite")
class AffineSet(AbstractUnbounded):
    """Projection of `z/eps` on `{ p : A p = b }`; rows that repeat each other are allowed."""

    eps: Float[Array, ""] = eqx.field(converter=temperature)
    A: Float[Array, "m n"]
    b: Float[Array, " m"]
    domain = "affine set"
    regulariser = "|p|^2/2"
    curvature = "quadratic; strongly convex dual"

    def __init__(
        self,
        eps: float | Float[Array, ""],
        A: Real[ArrayLike, "m n"],
        b: Real[ArrayLike, " m"],
    ):
        """**Raises:** `ValueError` for a row of zeros, or equations that contradict each other."""
        self.eps, self.A, self.b = eps, floating(A), floating(b)
        if known_to_fail(jnp.all(jnp.any(self.A != 0, axis=1))):
            raise ValueError("AffineSet: a row of `A` is 0. Leave that equation out.")
        rows, right = known(self.A), known(self.b)
        if rows is not None and right is not None:
            point = np.linalg.lstsq(rows, right, rcond=None)[0]
            off = np.abs(rows @ point - right)
            if np.max(off) > 1e-6 * (np.max(np.abs(right)) or 1.0):
                raise ValueError(
                    f"AffineSet: no point meets all equations; the best misses row {np.argmax(off)} by "
                    f"{np.max(off):.2g}."
                )

    @property
    def entries(self) -> int:
        return self.A.shape[1]

    @property
    def gauge(self) -> Flat:
        return Flat(self.A, self.b)

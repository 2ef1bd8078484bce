r"""Layers whose entries are free of each other:  C = [lo, hi]^n.

    value(z) = sum_j max over p in [lo, hi] of p z_j - eps phi(p)

BinaryEntropy, q = (p - lo)/(hi - lo):   value = sum lo z + eps softplus((hi - lo) z/eps)
    Softplus     [0, 1]     value softplus, argmax sigmoid
    ReLU         [0, 1]     the same at eps = 0: value relu, argmax the gate
    LeakyReLU    [a, 1]     value leaky ReLU at eps = 0
    Tanh         [-1, 1]    argmax tanh(z/eps) = pi_+ - pi_-, the signed pair of softmax(z, -z)
Quadratic:
    Clip         [lo, hi]   argmax clip(z/eps): hard tanh on [-1, 1], projection on the l-inf ball
    Huber        [-1, 1]    value: z^2/(2 eps) within eps, |z| - eps/2 beyond

Read which of the two, value or argmax, is the activation: ReLU and Huber are values, tanh an argmax.
At `eps = 0` a zero logit leaves its entry undecided; the gate there is the limit eps -> 0+, one half.
"""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Real

from hjcontrol._ground.arguments import admits
from hjcontrol._ground.third_party import needs
from hjcontrol.deformation.soft_maximum import checked, floating, temperature
from hjcontrol.layers.layer import SLACK, AbstractConvexLayer
from hjcontrol.layers.regulariser import (
    AbstractRegulariser,
    BinaryEntropy,
    Quadratic,
    QuadraticBetween,
    check_interval,
)
from hjcontrol.layers.separable import BoxFace, SeparableProgram


class AbstractBoxLayer(AbstractConvexLayer):
    """Any shape of logits; the value is the sum over entries, `values` gives them one by one."""

    phi: eqx.AbstractVar[AbstractRegulariser]

    @property
    def modulus(self) -> Float[Array, ""]:
        return self.eps * self.phi.modulus

    def values(self, z: Real[ArrayLike, "*shape"]) -> Float[Array, "*shape"]:
        """The optimal value of each entry's own program: the activation of a value layer."""
        return _values(self, checked(type(self).__name__, z, mask=False))

    def value(self, z: Real[ArrayLike, "*shape"]) -> Float[Array, ""]:
        return jnp.sum(self.values(z))

    def __call__(self, z: Real[ArrayLike, "*shape"]) -> Float[Array, "*shape"]:
        return _argmax(self, checked(type(self).__name__, z, mask=False))

    def conjugate(self, p: Real[ArrayLike, "*shape"]) -> Float[Array, ""]:
        p = floating(p)
        lo, hi = self.phi.lo, self.phi.hi
        off = jnp.max(jnp.maximum(lo - p, p - hi))
        value = self.eps.astype(p.dtype) * jnp.sum(self.phi.value(jnp.clip(p, lo, hi)))
        return jnp.where(off > jnp.finfo(p.dtype).eps ** SLACK, jnp.inf, value)

    def face(self, z: Real[ArrayLike, "*shape"]) -> BoxFace:
        z = checked(type(self).__name__, z, mask=False)
        p = _argmax(self, z)
        undecided = (self.eps <= 0) & (z == 0)
        lower = jnp.where(undecided, self.phi.lo, p)
        return BoxFace(lower, jnp.where(undecided, self.phi.hi, p), None)

    def sandwich(self, shape: tuple[int, ...]) -> tuple[float, float]:
        if isinstance(self.phi, QuadraticBetween):
            values = self.phi.value(self.phi.lo), self.phi.value(self.phi.hi)
            free = self.phi.value(self.phi.respond(jnp.zeros(shape)))
            return -float(jnp.sum(jnp.maximum(*values))), -float(jnp.sum(free))
        ends = jnp.array([self.phi.lo, self.phi.hi])
        size = int(np.prod(shape))
        least = self.phi.respond(jnp.zeros(()))
        return (
            -size * float(jnp.max(self.phi.value(ends))),
            -size * float(self.phi.value(least)),
        )

    def program(self, z: Real[ArrayLike, "*shape"]) -> SeparableProgram:
        z = checked(type(self).__name__, z, mask=False)
        return SeparableProgram(z, self.eps.astype(z.dtype), self.phi, None, None, None)

    def as_cvxpy(self, z: Real[ArrayLike, "*shape"]) -> Any:
        needs("AbstractBoxLayer.as_cvxpy", "cvxpy")
        import cvxpy as cp

        z = np.asarray(checked(type(self).__name__, z, mask=False), float)
        p = cp.Variable(z.shape, name="p")
        objective = cp.sum(cp.multiply(z, p))
        if float(self.eps) > 0:
            objective = objective - float(self.eps) * self.phi.as_cvxpy(p)
        return cp.Problem(cp.Maximize(objective), [p >= self.phi.lo, p <= self.phi.hi])


@eqx.filter_custom_jvp
def _argmax(layer: AbstractBoxLayer, z: Array) -> Array:
    eps, phi = layer.eps.astype(z.dtype), layer.phi
    soft = phi.respond(z / jnp.where(eps > 0, eps, 1.0))
    tie = phi.respond(jnp.zeros_like(z))
    hard = jnp.where(z > 0, phi.hi, jnp.where(z < 0, phi.lo, tie))
    return jnp.where(jnp.isnan(z), z, jnp.where(eps > 0, soft, hard))


@_argmax.def_jvp
def _argmax_rule(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    (layer, z), (dlayer, dz) = primals, tangents
    eps = layer.eps.astype(z.dtype)
    warm = jnp.where(eps > 0, eps, 1.0)
    p, u = _argmax(layer, z), z / warm
    w = jnp.where(eps > 0, layer.phi.weight(u, p), 0.0)
    du = jnp.zeros_like(z) if dz is None else dz / warm
    if dlayer is not None and dlayer.eps is not None:
        du = du - jnp.where(w > 0, u, 0.0) * (dlayer.eps.astype(z.dtype) / warm)
    return p, w * du + _with_bounds(layer, dlayer, p, jnp.ones_like(p))


def _with_bounds(layer: Any, dlayer: Any, p: Array, force: Array) -> Array:
    """How entries at a bound of their own move with it, times `force`."""
    moved = jnp.zeros_like(p)
    if not isinstance(layer.phi, QuadraticBetween) or dlayer is None:
        return moved
    for edge, change in ((layer.phi.hi, dlayer.phi.hi), (layer.phi.lo, dlayer.phi.lo)):
        if change is not None:
            moved = moved + jnp.where(p == edge, force * change, 0.0).astype(p.dtype)
    return moved


@eqx.filter_custom_jvp
def _values(layer: AbstractBoxLayer, z: Array) -> Array:
    eps, phi = layer.eps.astype(z.dtype), layer.phi
    warm = jnp.where(eps > 0, eps, 1.0)
    hard = jnp.maximum(phi.lo * z, phi.hi * z)
    return jnp.where(eps > 0, warm * phi.conjugate(z / warm), hard)


@_values.def_jvp
def _values_rule(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    (layer, z), (dlayer, dz) = primals, tangents
    p = _argmax(layer, z)
    change = jnp.zeros_like(z) if dz is None else p * dz
    if dlayer is not None and dlayer.eps is not None:
        warm = jnp.where(layer.eps > 0, layer.eps, 1.0).astype(z.dtype)
        depth = jnp.where(layer.eps > 0, layer.phi.depth(z / warm), -layer.phi.value(p))
        change = change + depth * dlayer.eps.astype(z.dtype)
    force = z - layer.eps.astype(z.dtype) * p
    return _values(layer, z), change + _with_bounds(layer, dlayer, p, force)


@admits(eps=">= 0")
class Softplus(AbstractBoxLayer):
    """Binary entropy on [0, 1]: `values` are `eps softplus(z/eps)`, the argmax is the sigmoid."""

    eps: Float[Array, ""] = eqx.field(converter=temperature, default=1.0)
    phi: AbstractRegulariser = eqx.field(init=False, default_factory=BinaryEntropy)
    kind = "box, entropy"
    domain = "box [0, 1]"
    regulariser = "binary entropy"
    curvature = "smooth; strongly convex dual"


@admits(eps=">= 0")
class ReLU(AbstractBoxLayer):
    """The hard limit of `Softplus`: `values` are `max(z, 0)`, the argmax is the gate."""

    eps: Float[Array, ""] = eqx.field(converter=temperature, default=0.0)
    phi: AbstractRegulariser = eqx.field(init=False, default_factory=BinaryEntropy)
    kind = "box, entropy"
    domain = "box [0, 1]"
    regulariser = "none (binary entropy for eps > 0)"
    curvature = "polyhedral"


@admits(eps=">= 0", slope="finite")
class LeakyReLU(AbstractBoxLayer):
    """`values` are `max(z, slope z)` at `eps = 0`, smoothed by the binary entropy above it."""

    eps: Float[Array, ""] = eqx.field(converter=temperature)
    slope: float = eqx.field(static=True)
    phi: AbstractRegulariser = eqx.field(init=False)
    kind = "box, entropy"
    domain = "box [slope, 1]"
    regulariser = "none (binary entropy for eps > 0)"
    curvature = "polyhedral"

    def __init__(self, eps: float | Float[Array, ""] = 0.0, slope: float = 0.01):
        """**Raises:** `ValueError` unless `slope < 1` and `eps >= 0`."""
        check_interval("LeakyReLU", slope, 1.0)
        self.eps, self.slope, self.phi = eps, float(slope), BinaryEntropy(float(slope), 1.0)


@admits(eps=">= 0")
class Tanh(AbstractBoxLayer):
    """Binary entropy on [-1, 1]: the argmax is `tanh(z/eps)`, the signed pair `pi_+ - pi_-` of
    `softmax((z, -z)/eps)`; `values` are `eps log(2 cosh(z/eps))`, `|z|` at `eps = 0`."""

    eps: Float[Array, ""] = eqx.field(converter=temperature, default=1.0)
    phi: AbstractRegulariser = eqx.field(
        init=False, default_factory=lambda: BinaryEntropy(-1.0, 1.0)
    )
    kind = "box, entropy"
    domain = "box [-1, 1]"
    regulariser = "binary entropy of (1 + p)/2"
    curvature = "smooth; strongly convex dual"


@admits(eps=">= 0", lo="finite", hi="finite")
class Clip(AbstractBoxLayer):
    """`|p|^2/2` on [lo, hi]: the argmax is `clip(z/eps, lo, hi)`, hard tanh on [-1, 1].

    Bounds are numbers, or arrays in the shape of the logits, with derivatives.
    """

    held = ("eps", "phi")

    eps: Float[Array, ""] = eqx.field(converter=temperature)
    phi: AbstractRegulariser
    kind = "box, quadratic"
    domain = "box [lo, hi]"
    regulariser = "|p|^2/2"
    curvature = "piecewise quadratic; strongly convex dual"

    def __init__(
        self,
        eps: float | Float[Array, ""] = 1.0,
        lo: Real[ArrayLike, "..."] | float = -1.0,
        hi: Real[ArrayLike, "..."] | float = 1.0,
    ):
        """**Raises:** `ValueError` unless `lo < hi` are finite and `eps >= 0`."""
        self.eps = eps
        if np.ndim(lo) == np.ndim(hi) == 0:
            self.phi = Quadratic(float(lo), float(hi))  # pyright: ignore[reportArgumentType]
        else:
            self.phi = QuadraticBetween(*jnp.broadcast_arrays(floating(lo), floating(hi)))


@admits(eps=">= 0")
class Huber(AbstractBoxLayer):
    """`|p|^2/2` on [-1, 1], read as a value: `values` are Huber's loss of width `eps`."""

    eps: Float[Array, ""] = eqx.field(converter=temperature, default=1.0)
    phi: AbstractRegulariser = eqx.field(init=False, default_factory=lambda: Quadratic(-1.0, 1.0))
    kind = "box, quadratic"
    domain = "box [-1, 1]"
    regulariser = "|p|^2/2"
    curvature = "piecewise quadratic; strongly convex dual"

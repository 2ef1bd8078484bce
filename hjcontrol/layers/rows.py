r"""A product of simplices: each row of logits has its own, all at one temperature.

    value(z) = sum_i lse(z_i, eps)        layer(z)_i = softmax(z_i/eps)        C = simplex^rows

What pools and attention are made of. A row in which everything is masked has no program: its weights
are 0 and its value -inf, which the certificate reports as infeasible.
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
from hjcontrol.deformation import entropy, gibbs, lse
from hjcontrol.deformation.soft_maximum import checked, floating, temperature
from hjcontrol.layers.layer import SLACK, AbstractConvexLayer, AbstractFace
from hjcontrol.layers.program import AbstractProgram, Residuals
from hjcontrol.layers.separable import BoxFace
from hjcontrol.layers.softmax import Softmax


class RowProgram(AbstractProgram):
    """One softmax program a row; objectives add, residuals stay apart."""

    z: Float[Array, "rows n"]
    layer: Softmax

    def residuals(self, candidate: Any, dual: Any = None) -> Residuals:
        """Residuals of `(rows, n)` weights; multipliers as for one row, with a leading axis."""
        p = floating(candidate).astype(self.z.dtype)
        if p.shape != self.z.shape:
            raise ValueError(
                f"certify: the candidate must have the shape of the logits, {self.z.shape}; found "
                f"{p.shape}. Batch with `jax.vmap`."
            )
        one = lambda z, p, y: self.layer.program(z).residuals(p, y)
        if dual is None:
            found = jax.vmap(lambda z, p: one(z, p, None))(self.z, p)
        else:
            found = jax.vmap(one)(self.z, p, dual)
        return Residuals(
            primal=found.primal,
            dual=found.dual,
            complementarity=found.complementarity,
            stationarity=found.stationarity,
            objective=jnp.sum(found.objective),
            dual_objective=jnp.sum(found.dual_objective),
            excess=found.excess,
            scales=found.scales,
        )


class RowFace(AbstractFace):
    """A face of each row's simplex."""

    rows: BoxFace

    def support(self, direction: Float[Array, "rows n"]) -> Float[Array, ""]:
        return jnp.sum(jax.vmap(lambda face, d: face.support(d))(self.rows, direction))

    @property
    def unique(self) -> Bool[Array, ""]:
        return jnp.all(jax.vmap(lambda face: face.unique)(self.rows))

    @property
    def ties(self) -> Bool[Array, "rows n"]:
        return jax.vmap(lambda face: face.ties)(self.rows)


@admits(eps=">= 0")
class RowSoftmax(AbstractConvexLayer):
    """Softmax of each row (the last axis) of a matrix of logits."""

    eps: Float[Array, ""] = eqx.field(converter=temperature, default=1.0)
    kind = "rows"
    domain = "simplex^rows"
    regulariser = "sum p log p (Shannon)"
    curvature = "smooth; strongly convex dual"

    @property
    def modulus(self) -> Float[Array, ""]:
        return self.eps

    @property
    def row(self) -> Softmax:
        """The layer of one row."""
        return Softmax(self.eps)

    def values(self, z: Real[ArrayLike, "rows n"]) -> Float[Array, " rows"]:
        """Log-sum-exp of each row; the maximum at `eps = 0`."""
        z = checked("RowSoftmax", z, axes=2)
        return lse(z, self.eps.astype(z.dtype))

    def value(self, z: Real[ArrayLike, "rows n"]) -> Float[Array, ""]:
        return jnp.sum(self.values(z))

    def __call__(self, z: Real[ArrayLike, "rows n"]) -> Float[Array, "rows n"]:
        z = checked("RowSoftmax", z, axes=2)
        return gibbs(z, self.eps.astype(z.dtype))

    def conjugate(self, p: Real[ArrayLike, "rows n"]) -> Float[Array, ""]:
        p = floating(p)
        off = jnp.maximum(jnp.max(-p), jnp.max(jnp.abs(jnp.sum(p, axis=-1) - 1.0)))
        value = -self.eps.astype(p.dtype) * jnp.sum(entropy(jnp.maximum(p, 0.0)))
        return jnp.where(off > jnp.finfo(p.dtype).eps ** SLACK, jnp.inf, value)

    def face(self, z: Real[ArrayLike, "rows n"]) -> RowFace:
        z = checked("RowSoftmax", z, axes=2)
        return RowFace(jax.vmap(self.row.face)(z))

    def sandwich(self, shape: tuple[int, ...]) -> tuple[float, float]:
        return 0.0, shape[0] * float(np.log(shape[1]))

    def program(self, z: Real[ArrayLike, "rows n"]) -> RowProgram:
        return RowProgram(checked("RowSoftmax", z, axes=2), self.row)

    def as_cvxpy(self, z: Real[ArrayLike, "rows n"]) -> Any:
        needs("RowSoftmax.as_cvxpy", "cvxpy")
        import cvxpy as cp

        z = np.asarray(checked("RowSoftmax", z, axes=2), float)
        p = cp.Variable(z.shape, name="p")
        kept = np.isfinite(z)
        objective = cp.sum(cp.multiply(p, np.where(kept, z, 0.0)))
        if float(self.eps) > 0:
            objective = objective + float(self.eps) * cp.sum(cp.entr(p))
        masked = [] if kept.all() else [cp.multiply(p, ~kept) == 0]
        return cp.Problem(cp.Maximize(objective), [cp.sum(p, axis=1) == 1, p >= 0, *masked])

r"""Layers whose entries share a sum:  C = { p : 0 <= p_j <= cap, sum_j p_j = s }.

    value(z) = max over C of p.z - eps sum_j phi(p_j),      p_j = respond((z_j - lambda)/eps)

A family states phi, s and how lambda is found at eps = 1 for centred logits; value, argmax, their
accurate derivatives, the hard limit, the certificate and the cvxpy twin follow.
"""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Real

from hjcontrol._ground.third_party import needs
from hjcontrol.deformation.soft_maximum import checked, floating, wide
from hjcontrol.layers.layer import SLACK, AbstractConvexLayer
from hjcontrol.layers.regulariser import AbstractRegulariser
from hjcontrol.layers.separable import BoxFace, SeparableProgram, centred_derivative


class AbstractSimplexLayer(AbstractConvexLayer):
    """One axis of logits, one sum."""

    phi: eqx.AbstractVar[AbstractRegulariser]
    total: eqx.AbstractVar[int]

    @abc.abstractmethod
    def multiplier(self, u: Float[Array, " n"]) -> Float[Array, ""]:
        """lambda at `eps = 1`, for logits whose `total`-th largest is 0."""

    @property
    def modulus(self) -> Float[Array, ""]:
        return self.eps * self.phi.modulus

    def value(self, z: Real[ArrayLike, " n"]) -> Float[Array, ""]:
        z = _checked(self, z)
        return _value(self, wide(z)).astype(z.dtype)

    def __call__(self, z: Real[ArrayLike, " n"]) -> Float[Array, " n"]:
        z = _checked(self, z)
        return _argmax(self, wide(z)).astype(z.dtype)

    def conjugate(self, p: Real[ArrayLike, " n"]) -> Float[Array, ""]:
        p = floating(p)
        off = jnp.maximum(jnp.max(jnp.maximum(-p, p - self.cap)), jnp.abs(jnp.sum(p) - self.total))
        value = self.eps.astype(p.dtype) * jnp.sum(self.phi.value(jnp.clip(p, 0.0, self.cap)))
        return jnp.where(off > jnp.finfo(p.dtype).eps ** SLACK, jnp.inf, value)

    def face(self, z: Real[ArrayLike, " n"]) -> BoxFace:
        z = _checked(self, z)
        above, ties, share = _hard(self, z)
        p = self(z)
        undecided = (self.eps <= 0) & (share < 1.0)  # more ties than places
        lower = jnp.where(undecided, above, p)
        upper = jnp.where(undecided, above + ties, p)
        return BoxFace(lower, upper, self.total)

    def sandwich(self, shape: tuple[int, ...]) -> tuple[float, float]:
        (n,) = shape
        even = jnp.full(n, self.total / n)
        vertex = jnp.where(jnp.arange(n) < self.total, 1.0, 0.0)
        return (
            -float(jnp.sum(self.phi.value(vertex))),
            -float(jnp.sum(self.phi.value(even))),
        )

    def program(self, z: Real[ArrayLike, " n"]) -> SeparableProgram:
        z = _checked(self, z)
        eps = self.eps.astype(z.dtype)
        pivot, u = _centred(self, z)
        lam = jnp.where(eps > 0, eps * self.multiplier(u), 0.0)
        return SeparableProgram(z, eps, self.phi, pivot, lam, self.total)

    def as_cvxpy(self, z: Real[ArrayLike, " n"]) -> Any:
        needs("AbstractSimplexLayer.as_cvxpy", "cvxpy")
        import cvxpy as cp

        z = np.asarray(_checked(self, z), float)
        p = cp.Variable(z.shape[0], name="p")
        kept = np.isfinite(z)
        objective = p @ np.where(kept, z, 0.0)
        if float(self.eps) > 0:
            objective = objective - float(self.eps) * self.phi.as_cvxpy(p)
        constraints = [cp.sum(p) == self.total, p >= 0]
        constraints += [p <= self.phi.hi] if self.phi.hi < self.total else []
        constraints += [] if kept.all() else [p[~kept] == 0]
        return cp.Problem(cp.Maximize(objective), constraints)

    @property
    def cap(self) -> float:
        """The largest that one entry can be."""
        return min(self.phi.hi, float(self.total))


def _checked(layer: AbstractSimplexLayer, z: Real[ArrayLike, " n"]) -> Float[Array, " n"]:
    z = checked(type(layer).__name__, z, axes=1)
    if z.shape[0] < layer.total:
        raise ValueError(
            f"{type(layer).__name__}: a sum of {layer.total} needs as many entries of at most 1; "
            f"found {z.shape[0]}."
        )
    return z


def _centred(layer: AbstractSimplexLayer, z: Array) -> tuple[Array, Array]:
    """The `total`-th largest logit, and the logits measured from it in units of `eps`."""
    pivot = jnp.max(z) if layer.total == 1 else jax.lax.top_k(z, layer.total)[0][-1]
    eps = layer.eps.astype(z.dtype)
    return pivot, (z - pivot) / jnp.where(eps > 0, eps, 1.0)


def _hard(layer: AbstractSimplexLayer, z: Array) -> tuple[Array, Array, Array]:
    """At `eps = 0`: entries above the pivot, ties with it, and the share that falls to each tie."""
    pivot, _ = _centred(layer, z)
    above, ties = (z > pivot).astype(z.dtype), (z == pivot).astype(z.dtype)
    share = (layer.total - jnp.sum(above)) / jnp.maximum(jnp.sum(ties), 1.0)
    return above, ties, share


@eqx.filter_custom_jvp
def _argmax(layer: AbstractSimplexLayer, z: Array) -> Array:
    eps = layer.eps.astype(z.dtype)
    _, u = _centred(layer, z)
    above, ties, share = _hard(layer, z)
    soft = layer.phi.respond(u - layer.multiplier(u))
    p = jnp.where(eps > 0, soft, above + share * ties)
    return jnp.where(jnp.isnan(jnp.max(z)), jnp.nan, p)


@_argmax.def_jvp
def _argmax_rule(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    (layer, z), (dlayer, dz) = primals, tangents
    p = _argmax(layer, z)
    eps = layer.eps.astype(z.dtype)
    w = layer.phi.weight(jnp.zeros_like(p), p)
    dz = jnp.zeros_like(z) if dz is None else dz
    deps = None if dlayer is None or dlayer.eps is None else dlayer.eps.astype(z.dtype)
    return p, centred_derivative(w, z, eps, dz, deps)


@eqx.filter_custom_jvp
def _value(layer: AbstractSimplexLayer, z: Array) -> Array:
    eps = layer.eps.astype(z.dtype)
    pivot, _ = _centred(layer, z)
    p = _argmax(layer, z)
    held = p > 0
    linear = jnp.sum(jnp.where(held, p, 0.0) * jnp.where(held, z - pivot, 0.0))
    return pivot * layer.total + linear - eps * jnp.sum(layer.phi.value(p))


@_value.def_jvp
def _value_rule(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    (layer, z), (dlayer, dz) = primals, tangents
    p = _argmax(layer, z)
    change = jnp.zeros((), z.dtype) if dz is None else jnp.sum(p * dz)
    if dlayer is not None and dlayer.eps is not None:
        change = change - jnp.sum(layer.phi.value(p)) * dlayer.eps.astype(z.dtype)
    return _value(layer, z), change

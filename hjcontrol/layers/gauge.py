r"""Gauges: what a set or a norm owes to a layer with a Euclidean regulariser; and their certificate.

    minimise  psi(p) + eps |p|^2/2 - p.z       dual:  min over r of  psi*(r) + |z - r|^2/(2 eps)
    gap = [psi(p) + psi*(r) - p.r] + |z - eps p - r|^2/(2 eps)       two terms, both >= 0

A gauge states psi, psi* and its prox, its terms of complementarity, and what it calls large.
"""

import abc
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from hjcontrol._ground.shown import Shown
from hjcontrol.deformation.soft_maximum import floating
from hjcontrol.layers.layer import SLACK
from hjcontrol.layers.program import AbstractProgram, Residuals, Scales


class Units(Shown):
    """What a gauge and the logits call large: `point` a coordinate of `p`, `force` of `z`, `terms` the
    terms of its `complementarity`; `least`, the smallest difference of logits that decides."""

    point: Float[Array, "..."]
    force: Float[Array, "..."]
    terms: dict[str, Float[Array, "..."]]
    least: Float[Array, ""] | float = float("inf")


class AbstractGauge(Shown):
    """A convex function psi, with its conjugate psi* and its proximal map."""

    @abc.abstractmethod
    def cost(self, p: Float[Array, "*shape"]) -> Float[Array, ""]:
        """`psi(p)`, taken as 0 just outside of a set: see `violation`."""

    @abc.abstractmethod
    def violation(self, p: Float[Array, "*shape"]) -> dict[str, PyTree[Float[Array, "..."]]]:
        """How far `p` is from where psi is finite."""

    @abc.abstractmethod
    def support(self, r: Float[Array, "*shape"]) -> Float[Array, ""]:
        """`psi*(r)`, taken as 0 just outside of where it is finite."""

    @abc.abstractmethod
    def dual_violation(self, r: Float[Array, "*shape"]) -> dict[str, PyTree[Float[Array, "..."]]]:
        """How far `r` is from where psi* is finite."""

    @abc.abstractmethod
    def complementarity(
        self, p: Float[Array, "*shape"], r: Float[Array, "*shape"]
    ) -> dict[str, Float[Array, "..."]]:
        """The terms of `psi(p) + psi*(r) - p.r`, each zero when met."""

    @abc.abstractmethod
    def extent(self, z: Float[Array, "*shape"], eps: Float[Array, ""]) -> Units:
        """What is large: see `Units`."""

    def centre(self, z: Float[Array, "*shape"]) -> Float[Array, ""]:
        """What may be taken from every logit without moving the maximiser."""
        return jnp.zeros((), z.dtype)

    @abc.abstractmethod
    def prox(self, z: Float[Array, "*shape"], eps: Float[Array, ""]) -> Float[Array, "*shape"]:
        """The maximiser, for `eps >= 0`."""

    @abc.abstractmethod
    def as_cvxpy(self, p: Any) -> tuple[Any, list]:
        """psi as a cvxpy expression, and constraints."""


class GaugeProgram(AbstractProgram):
    """The program at one `z`; its multiplier is `r`, by default the best one, `z - eps p*`, stored (as
    `best`) without the part that all logits share."""

    z: Float[Array, "*shape"]
    eps: Float[Array, ""]
    gauge: AbstractGauge
    best: Float[Array, "*shape"]

    def residuals(self, candidate: Any, dual: Any = None) -> Residuals:
        """Residuals of a point and of `r`, both of the shape of `z`."""
        z, eps, shift = self.z, self.eps, self.gauge.centre(self.z)
        p = floating(candidate).astype(z.dtype)
        r = self.best if dual is None else floating(dual).astype(z.dtype) - shift
        for name, x in (("candidate", p), ("multiplier", r)):
            if x.shape != z.shape:
                raise ValueError(
                    f"certify: the {name} must have the shape of the logits, {z.shape}; found "
                    f"{x.shape}. Batch with `jax.vmap`."
                )
        z = z - shift
        primal, off = self.gauge.violation(p), self.gauge.dual_violation(r)
        warm = jnp.where(eps > 0, eps, 1.0)
        apart = z - eps * p - r
        given_up = jnp.where(eps > 0, apart**2 / (2 * warm), jnp.where(apart != 0, jnp.inf, 0.0))
        scales = self._scales(z, shift, primal, off)
        over = lambda found, units: worst(jax.tree.map(_ratio, found, units), z)
        outside = over(primal, scales.primal) > slack(z)
        beyond = over(off, scales.dual) > slack(z)
        cost = self.gauge.cost(p) + 0.5 * eps * jnp.sum(p**2) - jnp.sum(p * self.z)
        distance = jnp.sum((z - r) ** 2)
        quadratic = jnp.where(eps > 0, distance / (2 * warm), jnp.where(distance > 0, jnp.inf, 0.0))
        terms = self.gauge.complementarity(p, r)
        return Residuals(
            primal=primal,
            dual=off,
            complementarity=terms,
            stationarity={"p": jnp.abs(apart)},
            objective=jnp.where(outside, jnp.inf, cost),
            dual_objective=jnp.where(beyond, -jnp.inf, -self.gauge.support(r + shift) - quadratic),
            excess=terms | {"quadratic": given_up},
            scales=scales,
        )

    def _scales(self, z: Array, shift: Array, primal: dict, off: dict) -> Scales:
        """Multipliers and stationarity in units of the logits, the gap in those of a logit times a
        point."""
        units = self.gauge.extent(z, self.eps)
        blur = jnp.finfo(z.dtype).eps * jnp.abs(shift)
        force = units.force + 4.0 * blur
        return Scales(
            primal=jax.tree.map(lambda x: jnp.max(units.point), primal),
            dual=jax.tree.map(lambda x: _like(force, x), off),
            complementarity=units.terms,
            stationarity={"p": force},
            excess=units.terms | {"quadratic": force * units.point},
            undecidable=blur >= units.least,
        )


def _ratio(x: Array, unit: Array) -> Array:
    return jnp.where(x == 0, 0.0, x / unit)


def _like(force: Array, x: Array) -> Array:
    """One unit each, or the largest for what belongs to all."""
    return force if jnp.shape(x) == jnp.shape(force) else jnp.max(force)


def worst(residuals: PyTree, like: Array) -> Array:
    """The largest of all residuals, 0 where there are none."""
    leaves = [jnp.max(x) for x in jax.tree.leaves(residuals)]
    return jnp.max(jnp.stack([*leaves, jnp.zeros((), like.dtype)]))


def slack(x: Array) -> Any:
    """A violation, in its unit, that may be some solver's roundoff."""
    return jnp.finfo(x.dtype).eps ** SLACK

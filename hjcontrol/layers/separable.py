r"""Programs that separate into coordinates, but for one sum.

    maximise  sum_j [ z_j p_j - eps phi(p_j) ]   s.t.  lo <= p_j <= hi,   sum_j p_j = s  (or no sum)

Multiplier lambda of the sum:  p_j = respond((z_j - lambda)/eps),  dual(lambda) = sum_j eps phi*((z_j -
lambda)/eps) + lambda s.  Bounds of a steep phi are never active; else mu_j = (z_j - lambda - eps
phi'(p_j))_+- are their multipliers.

Derivative, with w_j = d respond:  dp = (diag w - w w^T / sum w) dz / eps.  As it stands it cancels when
one w dwarfs the rest; measured from that entry m, and with dp_m = -sum_{j != m} dp_j, it does not.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from hjcontrol.layers.layer import SLACK, AbstractFace
from hjcontrol.layers.program import AbstractProgram, Residuals
from hjcontrol.layers.regulariser import AbstractRegulariser


class BoxFace(AbstractFace):
    """`{lower <= p <= upper, sum p = total}`, or without the sum where `total` is None."""

    lower: Float[Array, "*shape"]
    upper: Float[Array, "*shape"]
    total: int | None = eqx.field(static=True)

    def support(self, direction: Float[Array, "*shape"]) -> Float[Array, ""]:
        direction = jnp.where(self.upper == 0, 0.0, direction)
        free = self.upper - self.lower
        if self.total is None:
            return jnp.sum(self.lower * direction + free * jnp.maximum(direction, 0.0))
        order = jnp.argsort(jnp.where(free > 0, -direction, jnp.inf))
        left = self.total - jnp.sum(self.lower)
        before = jnp.cumsum(free[order]) - free[order]
        share = jnp.clip(left - before, 0.0, free[order])
        return jnp.sum(self.lower * direction) + jnp.sum(share * direction[order])

    @property
    def unique(self) -> Bool[Array, ""]:
        free = self.upper - self.lower
        if self.total is None:
            return jnp.all(free == 0)
        left = self.total - jnp.sum(self.lower)
        return jnp.all(free == 0) | (left == jnp.sum(free)) | (left == 0)

    @property
    def ties(self) -> Bool[Array, "*shape"]:
        return (self.upper > self.lower) & ~self.unique


class SeparableProgram(AbstractProgram):
    """The program at one `z`. `multiplier`: the best lambda, or None without a sum.

    Multipliers are given as lambda alone (those of the bounds are then the ones implied), or as a
    dict with any of `sum`, `lower`, `upper`.
    """

    z: Float[Array, "*shape"]
    eps: Float[Array, ""]
    phi: AbstractRegulariser
    multiplier: Float[Array, ""] | None
    total: int | None = eqx.field(static=True)

    def residuals(self, candidate: Any, dual: Any = None) -> Residuals:
        """Residuals of a point and multipliers; all in the units of `z`, or of `p` for the primal."""
        z, lo, hi = self.z, self.phi.lo, _highest(self)
        p = jnp.asarray(candidate, z.dtype)
        if p.shape != z.shape:
            raise ValueError(
                f"certify: the candidate must have the shape of the logits, {z.shape}; found "
                f"{p.shape}. Batch with `jax.vmap`."
            )
        lam, below, above = _given_multipliers(self, dual)
        primal = {"box": jnp.maximum(jnp.maximum(lo - p, p - hi), 0.0)}
        if self.total is not None:
            primal["sum"] = jnp.abs(jnp.sum(p) - self.total)
        inside = jnp.clip(p, lo, hi)
        push = jnp.where(jnp.isneginf(z), -1.0, z - lam)  # a masked entry has nothing to gain
        masked = jnp.isneginf(z)
        off, above_by, below_by = _forces(self, inside, push)
        if below is None and above is None:
            steep = self.phi.steep & (self.eps > 0)
            low, high = jnp.where(steep, 0.0, below_by), jnp.where(steep, 0.0, above_by)
            stationarity = jnp.where(steep, off, 0.0)
            signs = {}
        else:
            low = jnp.zeros_like(p) if below is None else jnp.asarray(below, z.dtype)
            high = jnp.zeros_like(p) if above is None else jnp.asarray(above, z.dtype)
            stationarity = _forces(self, inside, push + low - high)[0]
            signs = {"lower": jnp.maximum(-low, 0.0), "upper": jnp.maximum(-high, 0.0)}
        slack = jnp.abs(low * (p - lo)) + jnp.abs(high * (hi - p))
        stationarity = jnp.where(masked & (p == 0), 0.0, stationarity)
        slack = jnp.where(masked, jnp.where(p == 0, 0.0, jnp.inf), slack)
        return Residuals(
            primal=primal,
            dual=signs,
            complementarity={"bounds": slack},
            stationarity={"p": stationarity},
            objective=_objective(self, p, inside, primal),
            dual_objective=-_dual_value(self, lam),
        )


def _forces(program: SeparableProgram, p: Array, push: Array) -> tuple[Array, Array, Array]:
    """Distance of `push` from the slopes at `p`, and how far it lies above and below them.

    A float stands for the interval that it is rounded from, an underflowed 0 for anything
    smaller: the slope is an interval too, wide where 1 - p has no digits left."""
    unit = jnp.finfo(p.dtype)
    blur = 4 * unit.eps * jnp.abs(p) + unit.tiny
    cold = program.eps <= 0
    warm = jnp.where(cold, 1.0, program.eps)
    ends = [jnp.where(cold, 0.0, warm * slope) for slope in program.phi.slopes(p, blur)]
    above, below = jnp.maximum(push - ends[1], 0.0), jnp.maximum(ends[0] - push, 0.0)
    return jnp.maximum(above, below), above, below


def _dual_value(program: SeparableProgram, lam: Array) -> Array:
    warm = jnp.where(program.eps > 0, program.eps, 1.0)
    push = program.z - lam
    soft = warm * jnp.sum(program.phi.conjugate(push / warm))
    finite = jnp.where(jnp.isneginf(push), -1.0, push)
    hard = jnp.sum(jnp.maximum(program.phi.lo * finite, _highest(program) * finite))
    rest = 0.0 if program.total is None else lam * program.total
    return jnp.where(program.eps > 0, soft, hard) + rest


def _objective(program: SeparableProgram, p: Array, inside: Array, primal: dict) -> Array:
    worst = jnp.max(jnp.stack([jnp.max(v) for v in primal.values()]))
    linear = jnp.sum(jnp.where(p == 0, 0.0, p) * jnp.where(p == 0, 0.0, program.z))
    value = program.eps * jnp.sum(program.phi.value(inside)) - linear
    return jnp.where(worst > jnp.finfo(p.dtype).eps ** SLACK, jnp.inf, value)


def _given_multipliers(program: SeparableProgram, dual: Any) -> tuple[Any, Any, Any]:
    given = dual if isinstance(dual, dict) else {} if dual is None else {"sum": dual}
    unknown = set(given) - {"sum", "lower", "upper"}
    if unknown:
        raise ValueError(
            f"certify: multipliers are named `sum`, `lower`, `upper`; found {sorted(unknown)}."
        )
    best = jnp.zeros((), program.z.dtype) if program.multiplier is None else program.multiplier
    lam = jnp.asarray(given.get("sum", best), program.z.dtype)
    for name, value in (
        ("sum", lam),
        ("lower", given.get("lower")),
        ("upper", given.get("upper")),
    ):
        want = () if name == "sum" else program.z.shape
        if value is not None and jnp.shape(value) != want:
            raise ValueError(
                f"certify: multiplier `{name}` must have shape {want}; found {jnp.shape(value)}."
            )
    if "sum" in given and program.total is None:
        raise ValueError("certify: this program has no sum constraint; found a multiplier of one.")
    return lam, given.get("lower"), given.get("upper")


def _highest(program: SeparableProgram) -> float:
    """Under a sum of nonnegative entries, none exceeds the sum."""
    if program.total is None or program.phi.lo != 0.0:
        return program.phi.hi
    return min(program.phi.hi, float(program.total))


def centred_derivative(
    w: Float[Array, " n"],
    z: Float[Array, " n"],
    eps: Float[Array, ""],
    dz: Float[Array, " n"],
    deps: Float[Array, ""] | None,
) -> Float[Array, " n"]:
    """`(diag w - w w^T / sum w)` applied to the change of `z/eps`, measured from the largest `w`.

    Symmetric as computed, so that its transpose is accurate as well. Zero at `eps = 0`.
    """
    best = jax.lax.stop_gradient(jnp.argmax(w))
    first = jnp.arange(w.size) == best
    alive = (w > 0) & ~first & (eps > 0)
    warm = jnp.where(eps > 0, eps, 1.0)
    y = (dz - dz[best]) / warm
    if deps is not None:
        y = y - jnp.where(alive, z - z[best], 0.0) / warm * (deps / warm)
    y = jnp.where(alive, y, 0.0)
    rivals = jnp.where(alive, w, 0.0)
    everything = jnp.sum(w)
    moved = rivals * (y - jnp.sum(rivals * y) / jnp.where(everything > 0, everything, 1.0))
    return jnp.where(first, -jnp.sum(moved), moved)

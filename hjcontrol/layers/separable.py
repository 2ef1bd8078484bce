r"""Programs that separate into coordinates, but for one sum.

    maximise  sum_j [ z_j p_j - eps phi(p_j) ]   s.t.  lo <= p_j <= hi,  sum_j a_j p_j = s  (or no sum)

Below a = 1; otherwise lambda a_j stands for lambda.

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
from hjcontrol.layers.program import AbstractProgram, Residuals, Scales
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
    """The program at one `z`. `difference`: the best lambda, from `pivot`; None without a sum.

    A multiplier near 1e10 has no digits left for logits that differ by 1: it is stored as the pair, and
    every residual is formed from `z - pivot`. Multipliers are given as lambda alone (those of the bounds
    are then the ones implied), or as a dict with any of `sum`, `lower`, `upper`; `sum` may be a pair.
    """

    z: Float[Array, "*shape"]
    eps: Float[Array, ""]
    phi: AbstractRegulariser
    pivot: Float[Array, ""] | None
    difference: Float[Array, ""] | None
    total: Float[Array, ""] | int | None
    a: Float[Array, "*shape"] | float = 1.0
    lo: Float[Array, "*shape"] | None = None  # None: those of phi
    hi: Float[Array, "*shape"] | None = None

    @property
    def multiplier(self) -> Float[Array, ""] | None:
        """lambda, rounded."""
        pair = (self.pivot, self.difference)
        return None if pair[0] is None or pair[1] is None else pair[0] + pair[1]

    def residuals(self, candidate: Any, dual: Any = None) -> Residuals:
        """Residuals of a point and multipliers; all in the units of `z`, or of `p` for the primal."""
        lo, hi = _bounds(self)
        z, masked = _centred(self), jnp.isneginf(self.z)
        p = jnp.asarray(candidate, z.dtype)
        if p.shape != z.shape:
            raise ValueError(
                f"certify: the candidate must have the shape of the logits, {z.shape}; found "
                f"{p.shape}. Batch with `jax.vmap`."
            )
        lam, below, above = _given_multipliers(self, dual)
        primal = {"box": jnp.maximum(jnp.maximum(lo - p, p - hi), 0.0)}
        if self.total is not None:
            primal["sum"] = jnp.abs(jnp.sum(self.a * p) - self.total)
        inside = jnp.clip(p, lo, hi)
        push = jnp.where(masked, -1.0, z - lam * self.a)  # a masked entry has nothing to gain
        _, above_by, below_by = _forces(self, inside, push)
        if below is None and above is None:
            steep = self.phi.steep & (self.eps > 0)  # its own ends are never attained
            left = steep & (lo <= self.phi.lo)
            right = steep & ((hi >= self.phi.hi) | (self.hi is None))
            low, high = jnp.where(left, 0.0, below_by), jnp.where(right, 0.0, above_by)
            stationarity = jnp.maximum(
                jnp.where(left, below_by, 0.0), jnp.where(right, above_by, 0.0)
            )
            signs = {}
        else:
            low = jnp.zeros_like(p) if below is None else jnp.asarray(below, z.dtype)
            high = jnp.zeros_like(p) if above is None else jnp.asarray(above, z.dtype)
            stationarity = _forces(self, inside, push + low - high)[0]
            signs = {"lower": jnp.maximum(-low, 0.0), "upper": jnp.maximum(-high, 0.0)}
        slack = _product(low, p - lo) + _product(high, hi - p)
        stationarity = jnp.where(masked & (p == 0), 0.0, stationarity)
        slack = jnp.where(masked, jnp.where(p == 0, 0.0, jnp.inf), slack)
        scales = _scales(self, z, primal, signs)
        units = scales.primal or {}
        ratios = [jnp.max(v / units[k]) for k, v in primal.items()]
        outside = jnp.max(jnp.stack(ratios)) > jnp.finfo(p.dtype).eps ** SLACK
        excess = _excess(self, inside, z, lam)
        if self.total is not None:
            excess["sum"] = lam * (self.total - jnp.sum(self.a * p))
        return Residuals(
            primal=primal,
            dual=signs,
            complementarity={"bounds": slack},
            stationarity={"p": stationarity},
            objective=jnp.where(outside, jnp.inf, _objective(self, p, inside)),
            dual_objective=-_dual_value(self, z, lam),
            excess=jax.tree.map(lambda x: jnp.where(outside, jnp.inf, x), excess),
            scales=scales,
        )


def _centred(program: SeparableProgram) -> Array:
    """Logits from the pivot: of a sum, nothing else matters. Without a sum, the logits."""
    return program.z if program.pivot is None else program.z - program.pivot * program.a


def _product(force: Array, slack: Array) -> Array:
    """`|force slack|`, 0 where no force acts: the slack of an absent bound is infinite."""
    return jnp.abs(jnp.where(force == 0, 0.0, force * jnp.where(force == 0, 0.0, slack)))


def _scales(program: SeparableProgram, z: Array, primal: dict, signs: dict) -> Scales:
    """Forces in units of `eps (phi'(3/4) - phi'(1/4))` and of what each logit is away; points in those
    of the interval."""
    lo, hi = _bounds(program)
    finite = lambda x, other: jnp.where(jnp.isfinite(x), x, other)
    reach = jnp.max(finite(jnp.abs(z), 0.0)) / jnp.where(program.eps > 0, program.eps, 1.0)
    lo = finite(lo, finite(hi, 0.0) - reach)  # without bounds, as far as the logits push
    width = finite(hi, finite(lo, 0.0) + reach) - lo
    low, high = (program.phi.slope(lo + share * width) for share in (0.25, 0.75))
    soft = jnp.where(program.eps > 0, program.eps * (high - low), 0.0)
    away = jnp.where(jnp.isfinite(z), jnp.abs(z), 0.0)
    unit, blur = soft, jnp.zeros((), z.dtype)
    if program.pivot is not None:
        blur = jnp.finfo(z.dtype).eps * jnp.abs(program.pivot)
        nearest = jnp.min(jnp.where(away > 0, away, jnp.inf))
        unit = jnp.where(program.eps > 0, jnp.min(soft), nearest)
    force = soft + away + 4.0 * blur
    excess, size = {"p": force * width}, width
    if program.total is not None:
        size = jnp.maximum(jnp.abs(program.total), jnp.max(jnp.abs(program.a) * width))
        excess["sum"] = jnp.max(force) * size
    return Scales(
        primal={k: width if k == "box" else size for k in primal},
        dual=dict.fromkeys(signs, force),
        complementarity={"bounds": force * width},
        stationarity={"p": force},
        excess=excess,
        undecidable=(blur >= unit) & (blur > 0),
    )


def _excess(program: SeparableProgram, p: Array, z: Array, lam: Array) -> dict[str, Array]:
    """Fenchel and Young's gap of each coordinate, `eps phi(p) + eps phi*(u) - p eps u >= 0`: 0, and not
    a difference of large numbers, where `p` is the response to the bit."""
    cold = program.eps <= 0
    warm = jnp.where(cold, 1.0, program.eps)
    push = z - lam * program.a
    held = jnp.where(p == 0, 0.0, push)
    u = push / warm
    best = _respond(program, u)
    soft = warm * (program.phi.value(p) + _conjugate(program, u, best)) - p * held
    soft = jnp.where(p == best, 0.0, soft)
    lo, hi = _bounds(program)
    up, down = hi - p, p - lo
    hard = jnp.where(push > 0, push * up, jnp.where(down == 0, 0.0, -push * down))
    return {"p": jnp.where(cold, hard, soft)}


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


def _dual_value(program: SeparableProgram, z: Array, lam: Array) -> Array:
    """From logits and lambda measured from the pivot."""
    warm = jnp.where(program.eps > 0, program.eps, 1.0)
    push = z - lam * program.a
    u = push / warm
    soft = warm * jnp.sum(_conjugate(program, u, _respond(program, u)))
    finite = jnp.where(jnp.isneginf(push), -1.0, push)
    lo, hi = _bounds(program)
    some = jnp.where(finite == 0, 0.0, 1.0)
    hard = jnp.sum(
        jnp.maximum(jnp.where(some, lo, 0.0) * finite, jnp.where(some, hi, 0.0) * finite)
    )
    rest = 0.0
    if program.total is not None and program.pivot is not None:
        rest = (lam + program.pivot) * program.total
    return jnp.where(program.eps > 0, soft, hard) + rest


def _objective(program: SeparableProgram, p: Array, inside: Array) -> Array:
    linear = jnp.sum(jnp.where(p == 0, 0.0, p) * jnp.where(p == 0, 0.0, program.z))
    return program.eps * jnp.sum(program.phi.value(inside)) - linear


def _given_multipliers(program: SeparableProgram, dual: Any) -> tuple[Any, Any, Any]:
    given = dual if isinstance(dual, dict) else {} if dual is None else {"sum": dual}
    unknown = set(given) - {"sum", "lower", "upper"}
    if unknown:
        raise ValueError(
            f"certify: multipliers are named `sum`, `lower`, `upper`; found {sorted(unknown)}."
        )
    dtype = program.z.dtype
    lam = jnp.zeros((), dtype) if program.difference is None else program.difference
    said = given.get("sum")
    whole = said if isinstance(said, tuple) else (said,)
    for name, value in (
        *(("sum", x) for x in whole),
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
    if said is not None:
        first, *rest = (jnp.asarray(x, dtype) for x in whole)
        pivot = 0.0 if program.pivot is None else program.pivot
        lam = sum(rest, first - pivot)
    return lam, given.get("lower"), given.get("upper")


def _bounds(program: SeparableProgram) -> tuple[Array, Array]:
    """Under a sum of nonnegative entries, none exceeds the sum."""
    lo = program.phi.lo if program.lo is None else program.lo
    hi = program.phi.hi if program.hi is None else program.hi
    if program.hi is None and program.total is not None and program.phi.lo == 0.0:
        hi = jnp.minimum(hi, program.total)
    return jnp.asarray(lo, program.z.dtype), jnp.asarray(hi, program.z.dtype)


def _respond(program: SeparableProgram, u: Array) -> Array:
    p = program.phi.respond(u)
    return p if program.lo is None else jnp.clip(p, program.lo, program.hi)


def _conjugate(program: SeparableProgram, u: Array, p: Array) -> Array:
    """phi*, of phi on the program's own interval."""
    if program.lo is None:
        return program.phi.conjugate(u)
    return jnp.where(p == 0, 0.0, p * jnp.where(p == 0, 0.0, u)) - program.phi.value(p)


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

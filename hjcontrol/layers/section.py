r"""One's own layer from `phi`, a box and one sum: everything else is derived.

    maximise  sum_j [ z_j p_j - eps phi(p_j) ]   s.t.  sum_j a_j p_j = t,  lo_j <= p_j <= hi_j
    p_j = clip(respond((z_j - lambda a_j)/eps), lo_j, hi_j),    sum_j a_j p_j(lambda) = t: one root

phi            C                         layer
Shannon        p >= 0, sum p = 1         softmax; with caps `hi`, csoftmax
Tsallis(2)     p >= 0, sum p = r         sparsemax of radius r; with caps, csparsemax
BinaryEntropy  [0, 1]^n, sum p = k       entropic top-k (LML)
SQUARE         box, a.p = t              projection on a box section
LOG            p > 0, sum p = t          log-barrier weights

lambda decreases the sum: bracketed, then Newton inside the bracket, until the sum is met to roundoff.
Logits count from the pivot, the largest z_j/a_j, so that a common offset costs no digit. With w_j =
d respond/eps where p_j lies strictly inside, 0 elsewhere,

    dp_j = w_j (dz_j - u_j deps - lambda da_j - a_j dlambda),    sum_j a_j dp_j = dt - sum_j p_j da_j

measured from the entry with the largest a^2 w, whose own change follows from the sum: nothing cancels. A
capped entry moves with its cap; at a vertex, where nothing is inside, nothing else moves.
Source: LML: Amos, Koltun, Kolter, "The limited multi-label projection layer", 2019; csoftmax: Martins,
Kreutzer, "Learning what's easy", 2017; csparsemax: Malaviya, Ferreira, Martins, 2018.
"""

from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Real

from hjcontrol._ground.arguments import admits
from hjcontrol._ground.concrete import known, known_to_fail
from hjcontrol._ground.third_party import needs
from hjcontrol.deformation.soft_maximum import checked, floating, temperature, wide
from hjcontrol.layers.layer import SLACK, AbstractConvexLayer, AbstractFace
from hjcontrol.layers.regulariser import AbstractRegulariser
from hjcontrol.layers.root import decreasing_root
from hjcontrol.layers.separable import SeparableProgram


class Section(NamedTuple):
    """The set: `lo <= p <= hi`, `a.p = t`; `t` None: no sum."""

    a: Float[Array, " n"]
    t: Float[Array, ""] | None
    lo: Float[Array, " n"]
    hi: Float[Array, " n"]


class SectionFace(AbstractFace):
    """`{lower <= p <= upper, a.p = t}`, or without the sum where `total` is None."""

    lower: Float[Array, " n"]
    upper: Float[Array, " n"]
    a: Float[Array, " n"]
    total: Float[Array, ""] | None

    def support(self, direction: Float[Array, " n"]) -> Float[Array, ""]:
        section = Section(self.a, self.total, self.lower, self.upper)
        low, high, _ = _pinned(direction, section)
        free = low < high  # the tied share one ratio: any of them may take what is left
        p = jnp.where(free & (self.a < 0), high, low)
        if self.total is not None:
            room = jnp.sum(jnp.abs(self.a) * (high - low))
            left = self.total - jnp.sum(self.a * p)
            share = left / jnp.where(room > 0, room, 1.0)
            p = p + share * jnp.sign(self.a) * (high - low)
        return jnp.sum(jnp.where(p == 0, 0.0, p * direction))

    @property
    def unique(self) -> Bool[Array, ""]:
        return jnp.all(self.lower == self.upper)

    @property
    def ties(self) -> Bool[Array, " n"]:
        return self.upper > self.lower


@admits(eps=">= 0")
class Separable(AbstractConvexLayer):
    """`max of p.z - eps sum phi(p_j)` over a box and one weighted sum: see the file's table.

    **Arguments:**

    - `phi`: a regulariser of one coordinate, [`Shannon`][hjcontrol.layers.Shannon] and its siblings or
      one's own [`Potential`][hjcontrol.layers.Potential].
    - `a`, `total`: weights (not 0) and value of the sum; `total=None` for no sum.
    - `lo`, `hi`: numbers or one each; by default phi's own.

    Derivatives exist in `z`, `eps`, `a`, `total`, `lo` and `hi`; as a stage of a network all but `z`
    are held.

    **Raises:** `ValueError` for bounds that cross, for a weight 0, and, with the sample, for a sum that
    no point of the box has.

    **Example:**

        >>> import jax.numpy as jnp, hjcontrol as hj
        >>> top2 = hj.layers.Separable(hj.layers.BinaryEntropy(), total=2)
        >>> print(top2(jnp.array([1.0, -1.0, -1.0, -1.0])).round(4))
        [0.8261 0.3913 0.3913 0.3913]
    """

    held: ClassVar[tuple[str, ...]] = ("eps", "a", "total", "lo", "hi")
    eps: Float[Array, ""] = eqx.field(converter=temperature)
    phi: AbstractRegulariser
    a: Float[Array, "..."]
    total: Float[Array, ""] | None
    lo: Float[Array, "..."]
    hi: Float[Array, "..."]
    kind = "section"
    domain = "box section"
    regulariser = "sum of phi"
    curvature = "as phi's; strongly convex dual"

    def __init__(
        self,
        phi: AbstractRegulariser,
        eps: float | Float[Array, ""] = 1.0,
        a: Real[ArrayLike, "..."] | float = 1.0,
        total: Real[ArrayLike, ""] | float | None = None,
        lo: Real[ArrayLike, "..."] | float | None = None,
        hi: Real[ArrayLike, "..."] | float | None = None,
    ):
        self.eps, self.phi = eps, phi
        self.a = floating(a)
        self.total = None if total is None else floating(total)
        self.lo = floating(phi.lo) if lo is None else jnp.maximum(floating(lo), phi.lo)
        self.hi = floating(phi.hi) if hi is None else jnp.minimum(floating(hi), phi.hi)
        _refuse(self)

    @property
    def modulus(self) -> Float[Array, ""]:
        return self.eps * self.phi.modulus

    def value(self, z: Real[ArrayLike, " n"]) -> Float[Array, ""]:
        z, section = _at(self, z)
        p, pivot, lam = _solve(self.phi, self.eps.astype(z.dtype), z, section)
        return _value(self.phi, self.eps.astype(z.dtype), z, section, (p, pivot, lam))

    def __call__(self, z: Real[ArrayLike, " n"]) -> Float[Array, " n"]:
        z = floating(z)
        w, section = _at(self, wide(z))
        return _solve(self.phi, self.eps.astype(w.dtype), w, section)[0].astype(z.dtype)

    def conjugate(self, p: Real[ArrayLike, " n"]) -> Float[Array, ""]:
        p, (a, t, lo, hi) = _at(self, p)
        off = jnp.max(jnp.maximum(lo - p, p - hi))
        off = off if t is None else jnp.maximum(off, jnp.abs(jnp.sum(a * p) - t))
        value = self.eps.astype(p.dtype) * jnp.sum(self.phi.value(jnp.clip(p, lo, hi)))
        return jnp.where(off > jnp.finfo(p.dtype).eps ** SLACK, jnp.inf, value)

    def face(self, z: Real[ArrayLike, " n"]) -> SectionFace:
        z, section = _at(self, z)
        p = self(z)
        low, high, _ = _pinned(z, section)
        free = (self.eps <= 0) & (low < high)
        ends = [jnp.all(~free | (p == end)) for end in (low, high)]
        fixed = ends[0] | ends[1] | (jnp.sum(free) == 1)
        loose = free & ~fixed if section.t is not None else free
        return SectionFace(
            jnp.where(loose, low, p), jnp.where(loose, high, p), section.a, section.t
        )

    def sandwich(self, shape: tuple[int, ...]) -> tuple[float, float]:
        """The right end is sharp; the left one where every bound can be attained at once."""
        z, section = _at(self, jnp.zeros(shape))
        lo, hi = _narrowed(section)
        most = jnp.sum(jnp.maximum(self.phi.value(lo), self.phi.value(hi)))
        least, _, _ = _solve(self.phi, jnp.ones((), z.dtype), z, section)
        return -float(most), -float(jnp.sum(self.phi.value(least)))

    def program(self, z: Real[ArrayLike, " n"]) -> SeparableProgram:
        z, (a, t, lo, hi) = _at(self, z)
        eps = self.eps.astype(z.dtype)
        _, pivot, lam = _solve(self.phi, eps, z, Section(a, t, lo, hi))
        pair = (None, None) if t is None else (pivot, lam)
        return SeparableProgram(z, eps, self.phi, *pair, t, a, lo, hi)

    def as_cvxpy(self, z: Real[ArrayLike, " n"]) -> Any:
        needs("Separable.as_cvxpy", "cvxpy")
        import cvxpy as cp

        z, section = _at(self, z)
        z, a, lo, hi = (np.asarray(x, float) for x in (z, section.a, section.lo, section.hi))
        p = cp.Variable(z.shape[0], name="p")
        objective = p @ z
        if float(self.eps) > 0:
            objective = objective - float(self.eps) * self.phi.as_cvxpy(p)
        below, above = np.isfinite(lo), np.isfinite(hi)
        constraints = [] if section.t is None else [a @ p == float(section.t)]
        constraints += [p[below] >= lo[below]] if below.any() else []
        constraints += [p[above] <= hi[above]] if above.any() else []
        return cp.Problem(cp.Maximize(objective), constraints)


def _refuse(layer: Separable) -> None:
    if known_to_fail(layer.lo <= layer.hi):
        raise ValueError(
            f"Separable: bounds must have lo <= hi; found lo = {layer.lo}, hi = {layer.hi} "
            f"(phi itself lives on [{layer.phi.lo}, {layer.phi.hi}])."
        )
    if known_to_fail(jnp.isfinite(layer.a) & (layer.a != 0)):
        raise ValueError(f"Separable: weights `a` must be finite and not 0; found {layer.a}.")
    if layer.total is not None and known_to_fail(jnp.isfinite(layer.total)):
        raise ValueError(f"Separable: `total` must be finite; found {layer.total}.")


def _at(layer: Separable, z: Any) -> tuple[Array, Section]:
    """One sample and the set in its shape and dtype."""
    z = checked(type(layer).__name__, z, axes=1, mask=False)
    parts = {"a": layer.a, "lo": layer.lo, "hi": layer.hi}
    for name, x in parts.items():
        if jnp.shape(x) not in ((), z.shape):
            raise ValueError(
                f"Separable: `{name}` must be a number or have the shape of the logits, {z.shape}; "
                f"found {jnp.shape(x)}. Batch the logits with `jax.vmap`."
            )
    a, lo, hi = (jnp.broadcast_to(x.astype(z.dtype), z.shape) for x in parts.values())
    t = None if layer.total is None else layer.total.astype(z.dtype)
    if t is not None:
        least, most = (known(jnp.sum(f(a * lo, a * hi))) for f in (jnp.minimum, jnp.maximum))
        asked = known(t)
        if asked is not None and least is not None and most is not None:
            slack = 1e-6 * max(1.0, abs(float(asked)))
            if not least - slack <= asked <= most + slack:
                raise ValueError(
                    f"Separable: no point of the box has the sum {float(asked):g}; sums lie between "
                    f"{float(least):g} and {float(most):g} for {z.shape[0]} entries."
                )
    return z, Section(a, t, lo, hi)


def _narrowed(section: Section) -> tuple[Array, Array]:
    """Bounds, the upper ones cut to what the sum leaves to one entry, where all weights are positive."""
    a, t, lo, hi = section
    if t is None:
        return lo, hi
    rest = t - (jnp.sum(a * lo) - a * lo)
    cut = jnp.minimum(hi, rest / a)
    return lo, jnp.where(jnp.all(a > 0) & jnp.all(jnp.isfinite(lo)), jnp.maximum(cut, lo), hi)


def _pinned(z: Array, section: Section) -> tuple[Array, Array, Array]:
    """The maximisers of `p.z`: bounds that are equal where the program decides, and lambda. By ratios
    `z/a`, the largest first, until the sum is met; who shares the last ratio is undecided."""
    a, t, _, _ = section
    lo, hi = _narrowed(section)
    if t is None:
        return jnp.where(z > 0, hi, lo), jnp.where(z < 0, lo, hi), jnp.zeros((), z.dtype)
    ratio = z / a
    order = jnp.argsort(-ratio)
    least = jnp.minimum(a * lo, a * hi)
    room = jnp.maximum(a * lo, a * hi) - least
    before = jnp.cumsum(room[order]) - room[order]
    given = before < t - jnp.sum(least)
    last = jnp.min(jnp.where(given, ratio[order], jnp.inf))
    last = jnp.where(jnp.isfinite(last), last, jnp.max(ratio))
    up, down = jnp.where(a > 0, hi, lo), jnp.where(a > 0, lo, hi)
    pinned = jnp.where(ratio > last, up, down)
    tied = ratio == last
    return jnp.where(tied, lo, pinned), jnp.where(tied, hi, pinned), last


@eqx.filter_jit  # outside of `jit`, its loops would be compiled anew each time
def _root(phi: AbstractRegulariser, u: Array, section: Section) -> Array:
    """lambda at `eps = 1`: the sum decreases in it."""
    a, lo, hi = section.a, section.lo, section.hi
    t = jnp.zeros((), u.dtype) if section.t is None else section.t
    unit = jnp.finfo(u.dtype).eps

    def look(lam: Array) -> tuple[Array, Array, Array]:
        v = u - lam * a
        p = jnp.clip(phi.respond(v), lo, hi)
        inside = (p > lo) & (p < hi)
        w = jnp.where(inside, phi.weight(v, p), 0.0)
        excess = jnp.sum(a * p) - t
        return excess, jnp.sum(a * a * w), 2.0 * unit * jnp.sum(jnp.abs(a * p))

    def widen(sign: float) -> Array:
        wrong = lambda state: (sign * look(state[0])[0] < 0) & (state[1] < 1100)
        grow = lambda state: (2.0 * state[0], state[1] + 1)
        start = jnp.asarray(-sign, u.dtype), jnp.zeros((), int)
        return jax.lax.while_loop(wrong, grow, start)[0]

    return decreasing_root(look, widen(1.0), widen(-1.0))


@eqx.filter_custom_jvp
def _solve(
    phi: AbstractRegulariser, eps: Array, z: Array, section: Section
) -> tuple[Array, Array, Array]:
    """The maximiser, the pivot (a constant), and lambda from there."""
    z, eps, section = jax.lax.stop_gradient((z, eps, section))
    warm = jnp.where(eps > 0, eps, 1.0)
    low, high, last = _pinned(z, section)
    lo, hi = jnp.where(eps > 0, section.lo, low), jnp.where(eps > 0, section.hi, high)
    zero = jnp.zeros((), z.dtype)
    pivot = zero if section.t is None else jnp.where(eps > 0, jnp.max(z / section.a), last)
    u = jnp.where(eps > 0, (z - pivot * section.a) / warm, 0.0)
    if section.t is None:
        return jnp.where(jnp.isnan(z), z, jnp.clip(phi.respond(u), lo, hi)), zero, zero
    lam = _root(phi, u, Section(section.a, section.t, lo, hi))
    p = jnp.clip(phi.respond(u - lam * section.a), lo, hi)
    p = jnp.where(jnp.isnan(jnp.sum(z)), jnp.nan, p)
    return p, pivot, jnp.where(eps > 0, eps * lam, 0.0)


@_solve.def_jvp
def _solve_rule(primals: tuple, tangents: tuple) -> tuple[tuple, tuple]:
    (phi, eps, z, (a, t, lo, hi)), (_, deps, dz, dsection) = primals, tangents
    p, pivot, lam = _solve(phi, eps, z, Section(a, t, lo, hi))
    da, dt, dlo, dhi = (None,) * 4 if dsection is None else dsection
    zeros = jnp.zeros_like(z)
    given = lambda x, like: jnp.zeros_like(like) if x is None else x
    dz, da, dlo, dhi = (given(x, zeros) for x in (dz, da, dlo, dhi))
    warm = jnp.where(eps > 0, eps, 1.0)
    u = (z - (pivot + lam) * a) / warm if t is None else (z - pivot * a - lam * a) / warm
    inner = ((p > lo) | (lo <= phi.lo)) & ((p < hi) | (hi >= phi.hi)) & (eps > 0)
    w = jnp.where(inner, phi.weight(u, p), 0.0) / warm
    bound = jnp.where(p >= hi, dhi, jnp.where(p <= lo, dlo, 0.0))
    bound = jnp.where(w > 0, 0.0, bound)
    if t is None:
        heat = 0.0 if deps is None else u * deps
        return (p, pivot, lam), (
            w * (dz - heat) + bound,
            jnp.zeros_like(pivot),
            jnp.zeros_like(lam),
        )
    best = jnp.argmax(a * a * w)
    first = (jnp.arange(z.size) == best) & (w > 0)
    if deps is not None:
        dz = dz - (u - a * (u[best] / a[best])) * deps
    dz = dz - (pivot + lam) * da
    anchor = dz[best] / a[best]
    x = jnp.where(first, 0.0, dz - a * anchor)
    rest = given(dt, pivot) - jnp.sum(p * da) - jnp.sum(a * bound)
    whole = jnp.sum(a * a * w)
    moving = whole > 0
    dlam = (jnp.sum(jnp.where(first, 0.0, a * w * x)) - rest) / jnp.where(moving, whole, 1.0)
    dp = jnp.where(first, 0.0, w * (x - a * dlam))
    own = (rest - jnp.sum(a * dp)) / a[best]
    dp = jnp.where(first, own, dp) + bound
    dlam = jnp.where(moving, anchor + dlam, 0.0)
    if deps is not None:  # lambda itself, of the anchor's own logit
        dlam = dlam - jnp.where(moving, u[best] / a[best] * deps, 0.0)
    return (p, pivot, lam), (dp, jnp.zeros_like(pivot), dlam)


@eqx.filter_custom_jvp
def _value(phi: AbstractRegulariser, eps: Array, z: Array, section: Section, found: tuple) -> Array:
    p, pivot, _ = found
    t = 0.0 if section.t is None else section.t
    local = jnp.sum(jnp.where(p == 0, 0.0, p * (z - pivot * section.a)))
    return pivot * t + local - jnp.where(eps > 0, eps * jnp.sum(phi.value(p)), 0.0)


@_value.def_jvp
def _value_rule(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    """Danskin: p for z, lambda for the sum, the bounds' multipliers for the bounds."""
    (phi, eps, z, section, found), (_, deps, dz, dsection, _) = primals, tangents
    p, pivot, lam = found
    a, t, lo, hi = section
    change = jnp.zeros((), z.dtype) if dz is None else jnp.sum(p * dz)
    if deps is not None:
        change = change - jnp.sum(phi.value(p)) * deps
    da, dt, dlo, dhi = (None,) * 4 if dsection is None else dsection
    multiplier = pivot + lam
    if t is not None and dt is not None:
        change = change + multiplier * dt
    if t is not None and da is not None:
        change = change - multiplier * jnp.sum(p * da)
    force = z - multiplier * a - jnp.where(eps > 0, eps * phi.slope(p), 0.0)
    for edge, sign, moved in ((hi, 1.0, dhi), (lo, -1.0, dlo)):
        if moved is not None:
            held = jnp.where(p == edge, sign * jnp.maximum(sign * force, 0.0), 0.0)
            change = change + jnp.sum(held * moved)
    return _value(phi, eps, z, section, found), change

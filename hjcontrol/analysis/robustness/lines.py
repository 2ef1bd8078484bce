r"""An activation between two lines on an interval, and its slope between two numbers.

    al a + bl <= sigma(a) <= au a + bu     for lo <= a <= hi          s_low <= sigma'(a) <= s_high

hinge     max(up a, down a): chord above, the nearer of its two lines below           ReLU, leaky, abs
convex    chord above, tangent at the middle below                             softplus, elu
S-shaped  tangent from the far end where the interval holds the turning point, chord or tangent elsewhere
                                                                               tanh, sigmoid
curved    chord, moved by max|sigma''| w^2/8; or, on wide intervals, the ReLU's lines moved    gelu, silu

Intercepts are taken at the ends as they come out in floating point and moved outward by some roundoffs,
so a slope that is rounded costs tightness and not truth.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from hjcontrol.deformation import gibbs, lse
from hjcontrol.networks import LSEUnits, Pointwise, SoftplusUnits, gelu, identity
from hjcontrol.networks.foreign_models import leaky

SEARCH = 24  # halvings for a tangent point; either end is sound


class Lines(NamedTuple):
    """Lower and upper line of every unit: slopes `al`, `au` and intercepts `bl`, `bu`."""

    al: Array
    bl: Array
    au: Array
    bu: Array


class Kind(NamedTuple):
    """What is known of an activation: lines and slopes on intervals, `|sigma(a)| <= most |a| + start`."""

    lines: Callable[[Array, Array], Lines]
    slopes: Callable[[Array, Array], tuple[Array, Array]]
    most: float = 1.0
    start: float = 0.0
    kinked: Any = False
    affine: bool = False
    ends: tuple[float, float] | None = None  # of max(up a, down a): up and down


def kind_of(units: Any) -> Kind | None:
    """What is known of these units; `None` if nothing is, or if a unit has several atoms."""
    if isinstance(units, SoftplusUnits):
        return _softplus(units.eps)
    if not isinstance(units, Pointwise):
        return None
    sigma = units.activation
    if isinstance(sigma, jax.tree_util.Partial) and sigma.func is leaky:
        return _hinge(1.0, float(sigma.args[0])) if sigma.args[0] <= 1 else None
    return _KINDS.get(sigma)


def _outward(sigma: Callable[[Array], Array], lo: Array, hi: Array, lines: Lines) -> Lines:
    """Intercepts moved outward by what rounding can have done."""
    unit = 16 * jnp.finfo(lo.dtype).eps
    far = jnp.maximum(jnp.abs(lo), jnp.abs(hi))
    size = jnp.abs(sigma(lo)) + jnp.abs(sigma(hi))
    slack = lambda k: unit * (size + 4 * jnp.abs(k) * far)
    return Lines(lines.al, lines.bl - slack(lines.al), lines.au, lines.bu + slack(lines.au))


def _chord(sigma: Callable[[Array], Array], lo: Array, hi: Array) -> tuple[Array, Array]:
    """Slope, and the intercept that lies above at both ends whatever rounding did to the slope."""
    wide = hi > lo
    k = jnp.where(wide, (sigma(hi) - sigma(lo)) / jnp.where(wide, hi - lo, 1.0), 0.0)
    return k, jnp.maximum(sigma(lo) - k * lo, sigma(hi) - k * hi)


def _hinge(up: float, down: float) -> Kind:
    sigma = lambda a: jnp.maximum(up * a, down * a)

    def lines(lo: Array, hi: Array) -> Lines:
        k, above = _chord(sigma, lo, hi)
        below = jnp.where(hi > -lo, up, down)  # of the two lines, the one that leaves less between
        below = jnp.where(lo >= 0, up, jnp.where(hi <= 0, down, below))
        return _outward(sigma, lo, hi, Lines(below, jnp.zeros_like(lo), k, above))

    slopes = lambda lo, hi: (
        jnp.where(lo > 0, up, down) + jnp.zeros_like(lo),
        jnp.where(hi < 0, down, up) + jnp.zeros_like(lo),
    )
    return Kind(
        lines,
        slopes,
        max(abs(up), abs(down)),
        kinked=up != down,
        affine=up == down,
        ends=(up, down),
    )


def _convex(sigma: Callable[[Array], Array], slope: Callable[[Array], Array]) -> Kind:
    def lines(lo: Array, hi: Array) -> Lines:
        k, above = _chord(sigma, lo, hi)
        middle = 0.5 * (lo + hi)
        below = slope(middle)
        return _outward(sigma, lo, hi, Lines(below, sigma(middle) - below * middle, k, above))

    return Kind(lines, lambda lo, hi: (slope(lo), slope(hi)), 1.0, 1.0)


def _softplus(eps: Array) -> Kind:
    warm = jnp.where(eps > 0, eps, 1.0)
    cold, pair = _hinge(1.0, 0.0), lambda a: jnp.stack([jnp.zeros_like(a), a], -1)
    sigma = lambda a: lse(pair(a), warm.astype(a.dtype))
    soft = _convex(sigma, lambda a: jax.nn.sigmoid(a / warm.astype(a.dtype)))
    choose = lambda hot, hard: jax.tree.map(lambda a, b: jnp.where(eps > 0, a, b), hot, hard)
    return Kind(
        lambda lo, hi: choose(soft.lines(lo, hi), cold.lines(lo, hi)),
        lambda lo, hi: choose(soft.slopes(lo, hi), cold.slopes(lo, hi)),
        1.0,
        eps,
        kinked=eps == 0,
    )


def _s_shaped(sigma: Callable[[Array], Array], slope: Callable[[Array], Array]) -> Kind:
    def above(lo: Array, hi: Array) -> tuple[Array, Array]:
        chord, at_ends = _chord(sigma, lo, hi)
        low, high = jnp.zeros_like(lo), jnp.maximum(hi, 0.0)

        def halve(_: Any, ends: tuple[Array, Array]) -> tuple[Array, Array]:
            low, high = ends
            d = 0.5 * (low + high)
            steep = slope(d) * (d - lo) > sigma(d) - sigma(lo)  # the tangent at d is below at lo
            return jnp.where(steep, d, low), jnp.where(steep, high, d)

        _, touch = jax.lax.fori_loop(0, SEARCH, halve, (low, high))
        d = jnp.maximum(touch, 0.5 * (lo + hi))
        k = slope(d)
        at = sigma(d) - k * d
        # by convexity on the left, a tangent right of 0 need only be above at lo
        at = jnp.where(lo < 0, jnp.maximum(at, jnp.maximum(sigma(lo) - k * lo, sigma(0 * lo))), at)
        straight = (hi <= 0) | ((lo < 0) & (slope(hi) >= chord))
        return jnp.where(straight, chord, k), jnp.where(straight, at_ends, at)

    def lines(lo: Array, hi: Array) -> Lines:
        au, bu = above(lo, hi)
        al, mirrored = above(-hi, -lo)
        return _outward(sigma, lo, hi, Lines(al, 2 * sigma(0 * lo) - mirrored, au, bu))

    most = lambda lo, hi: slope(jnp.clip(0 * lo, lo, hi))
    return Kind(lines, lambda lo, hi: (jnp.minimum(slope(lo), slope(hi)), most(lo, hi)), 1.0, 0.5)


def _curved(
    sigma: Callable[[Array], Array],
    slope: Callable[[Array], Array],
    bend: tuple[float, float],
    steep: tuple[float, float],
    below_relu: float,
) -> Kind:
    """`-bend[0] <= sigma'' <= bend[1]`, `steep[0] <= sigma' <= steep[1]`, `relu - below_relu <= sigma <=
    relu`."""
    hard = _hinge(1.0, 0.0)

    def lines(lo: Array, hi: Array) -> Lines:
        k, high = _chord(sigma, lo, hi)
        low = jnp.minimum(sigma(lo) - k * lo, sigma(hi) - k * hi)
        eighth = (hi - lo) ** 2 / 8
        near = Lines(k, low - bend[1] * eighth, k, high + bend[0] * eighth)
        far = hard.lines(lo, hi)
        far = far._replace(bl=far.bl - below_relu)
        middle = 0.5 * (lo + hi)
        lower = near.al * middle + near.bl >= far.al * middle + far.bl
        upper = near.au * middle + near.bu <= far.au * middle + far.bu
        pick = lambda c, a, b: jnp.where(c, a, b)
        return _outward(
            sigma,
            lo,
            hi,
            Lines(
                pick(lower, near.al, far.al),
                pick(lower, near.bl, far.bl),
                pick(upper, near.au, far.au),
                pick(upper, near.bu, far.bu),
            ),
        )

    def slopes(lo: Array, hi: Array) -> tuple[Array, Array]:
        middle, half = slope(0.5 * (lo + hi)), max(bend) * 0.5 * (hi - lo)
        return jnp.maximum(middle - half, steep[0]), jnp.minimum(middle + half, steep[1])

    return Kind(lines, slopes, 1.0, 0.0)


def group_lines(units: LSEUnits, lo: Array, hi: Array) -> tuple[Array, Array, Array, Array]:
    """Planes below and above each soft maximum: slopes `(units, atoms)` and intercepts `(units,)`."""
    eps = units.eps.astype(lo.dtype)
    lo, hi = lo.reshape(-1, units.atoms), hi.reshape(-1, units.atoms)
    middle = 0.5 * (lo + hi)
    pi = gibbs(middle, eps, axis=1)
    below = lse(middle, eps, axis=1) - jnp.sum(pi * middle, axis=1)
    top = jnp.argmax(middle, axis=1)
    lead = jax.nn.one_hot(top, units.atoms, dtype=lo.dtype)
    first = jnp.sum(lead * lo, axis=1)
    rest = jnp.where(lead > 0, 0.0, hi - first[:, None])
    excess = lse(rest, eps, axis=1)  # f(a) - a_top is at most this
    level = lse(hi, eps, axis=1)
    own = jnp.sum(lead * middle, axis=1) + excess < level
    slack = (
        32
        * jnp.finfo(lo.dtype).eps
        * (jnp.max(jnp.maximum(jnp.abs(lo), jnp.abs(hi)), axis=1) + eps * units.atoms)
    )
    return pi, below - slack, lead * own[:, None], jnp.where(own, excess, level) + slack


_silu_slope = lambda a: jax.nn.sigmoid(a) * (1 + a * (1 - jax.nn.sigmoid(a)))
_gelu_slope = lambda a: jax.scipy.stats.norm.cdf(a) + a * jax.scipy.stats.norm.pdf(a)
_tanh = _s_shaped(jnp.tanh, lambda a: 1 - jnp.tanh(a) ** 2)
_logistic = lambda a: jax.nn.sigmoid(a) * jax.nn.sigmoid(-a)
_KINDS: dict[Any, Kind] = {
    identity: _hinge(1.0, 1.0),
    jax.nn.relu: _hinge(1.0, 0.0),
    jax.nn.leaky_relu: _hinge(1.0, 0.01),
    jnp.abs: _hinge(1.0, -1.0),
    jnp.tanh: _tanh,
    jax.nn.tanh: _tanh,
    jax.nn.sigmoid: _s_shaped(jax.nn.sigmoid, _logistic),
    jax.nn.softplus: _convex(jax.nn.softplus, jax.nn.sigmoid),
    jax.nn.elu: _convex(jax.nn.elu, lambda a: jnp.where(a > 0, 1.0, jnp.exp(jnp.minimum(a, 0.0)))),
    gelu: _curved(gelu, _gelu_slope, (0.108, 0.79789), (-0.13, 1.13), 0.17),
    jax.nn.silu: _curved(jax.nn.silu, _silu_slope, (0.037, 0.5), (-0.0999, 1.0999), 0.2785),
}

r"""What a deep network can give over a ball of inputs: intervals that hold, by bounds pulled backward.

    layer      a = W y + b,   y' = s y + h sigma(a)          s = 0: plain, s = 1: residual
    lines      al a + bl <= sigma(a) <= au a + bu            on what a can be (see `lines`)
    backward   C y' >= (C+ al + C- au) a + C+ bl + C- bu     C+, C-: positive and negative part
               ... down to the inputs:  C y >= A x0 + c - r |A|        over |x - x0| <= r
    slope      d(C y)/dx lies in an interval matrix; r times its rows' length bounds the change

The intervals of each layer come from those before it, by backward bounds and by interval arithmetic,
whichever is tighter. Rounding: a sum of n terms is off by at most n u times the sum of their sizes; the
sizes are bounded by the network's own with every sign made positive, and the bounds are moved outward
by that. The enclosed map is the network in exact arithmetic with the weights as stored.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array

from hjcontrol.analysis.robustness.lines import Kind, Lines, group_lines, kind_of
from hjcontrol.networks import Dense, LSEUnits, Residual, Trained


class Layer(NamedTuple):
    """`y' = skip y + h sigma(W y + b)`; `kind` is `None` where units are soft maxima."""

    W: Array
    b: Array
    kind: Kind | None
    units: Any
    skip: float
    h: Any


class Ball(NamedTuple):
    """Inputs within `radius` of `centre`, in the Euclidean (2) or the largest-entry norm (inf)."""

    centre: Array
    radius: Array
    norm: float

    def worst(self, A: Array) -> Array:
        """Largest `A (x - centre)`, by row."""
        size = jnp.sqrt(jnp.sum(A**2, axis=1)) if self.norm == 2 else jnp.sum(jnp.abs(A), axis=1)
        return self.radius * size


class Enclosed(NamedTuple):
    """What is known over a ball: a pair `(lo, hi)` of every layer's affine parts, and sizes of states."""

    ball: Ball
    layers: list[Layer]
    parts: list[tuple[Array, Array]]
    sizes: list[Array]  # of the inputs and of every layer's outputs
    rounding: Any


def layers_of(who: str, model: Trained) -> list[Layer]:
    """The layers that can be enclosed.

    **Raises:** `ValueError` in one line that names the stage that cannot.
    """
    found = []
    for k, (stage, theta) in enumerate(model.layers):
        dense = stage.drift if isinstance(stage, Residual) else stage
        if not isinstance(dense, Dense):
            raise ValueError(
                f"{who}: stage {k} is a {type(dense).__name__}, which has no bounds; Dense and Residual "
                "stages have."
            )
        kind = kind_of(dense.units)
        if kind is None and not isinstance(dense.units, LSEUnits):
            name = getattr(dense.units, "activation", dense.units)
            raise ValueError(
                f"{who}: stage {k}'s activation {getattr(name, '__name__', name)!r} has no bounds. Those "
                "of `hj.networks.from_model`'s list have; a function of your own is not known to be one."
            )
        skip, h = (1.0, stage.h) if isinstance(stage, Residual) else (0.0, 1.0)
        found.append(Layer(theta.W, theta.b, kind, dense.units, skip, h))
    return found


def enclose(layers: list[Layer], ball: Ball) -> Enclosed:
    """Intervals of every layer's affine parts, first to last."""
    width = ball.centre.size + sum(layer.b.size + 8 for layer in layers)
    rounding = 4 * width * jnp.finfo(ball.centre.dtype).eps
    here = Enclosed(ball, layers, [], [jnp.abs(ball.centre) + ball.radius], rounding)
    low, high = ball.centre - ball.radius, ball.centre + ball.radius
    for k, layer in enumerate(layers):
        slack = rounding * (jnp.abs(layer.W) @ here.sizes[k] + jnp.abs(layer.b))
        middle, half = 0.5 * (low + high), 0.5 * (high - low)
        around, reach = layer.W @ middle + layer.b, jnp.abs(layer.W) @ half
        below = jnp.maximum(bounded(here, layer.W, k) + layer.b, around - reach) - slack
        above = jnp.minimum(layer.b - bounded(here, -layer.W, k), around + reach) + slack
        here.parts.append((below, above))
        low, high, size = _outputs(layer, low, high, below, above, here.sizes[k])
        here.sizes.append(size)
    return here


def _outputs(
    layer: Layer, low: Array, high: Array, lo: Array, hi: Array, size: Array
) -> tuple[Array, Array, Array]:
    """Interval and size of a layer's outputs."""
    if layer.kind is None:
        group = layer.units
        bottom, top = group(lo), group(hi)  # a soft maximum rises with each of its parts
        far = jnp.maximum(jnp.abs(lo), jnp.abs(hi)).reshape(-1, group.atoms).max(axis=1)
        out = far + group.eps * group.atoms
    else:
        lines = layer.kind.lines(lo, hi)
        bottom = jnp.minimum(lines.al * lo, lines.al * hi) + lines.bl
        top = jnp.maximum(lines.au * lo, lines.au * hi) + lines.bu
        out = layer.kind.most * (jnp.abs(layer.W) @ size + jnp.abs(layer.b)) + layer.kind.start
    if layer.skip:
        ends = jnp.stack([layer.h * bottom, layer.h * top])
        return low + ends.min(axis=0), high + ends.max(axis=0), size + jnp.abs(layer.h) * out
    return bottom, top, out


def bounded(here: Enclosed, C: Array, depth: int) -> Array:
    """Least value of `C y` over the ball, `y` the output of layer `depth - 1` (0: the inputs)."""
    offset = jnp.zeros(len(C), C.dtype)
    slack = 3 * here.rounding * (jnp.abs(C) @ here.sizes[depth]) if depth else 0.0
    for k in range(depth - 1, -1, -1):
        layer, (lo, hi) = here.layers[k], here.parts[k]
        scaled = layer.h * C if layer.skip else C
        up, down = jnp.maximum(scaled, 0.0), jnp.minimum(scaled, 0.0)
        if layer.kind is None:
            al, bl, au, bu = group_lines(layer.units, lo, hi)
            mixed = up[:, :, None] * al[None] + down[:, :, None] * au[None]
            offset = offset + up @ bl + down @ bu
            A = mixed.reshape(len(C), -1)
        else:
            lines: Lines = layer.kind.lines(lo, hi)
            A = up * lines.al[None, :] + down * lines.au[None, :]
            offset = offset + up @ lines.bl + down @ lines.bu
        offset = offset + A @ layer.b
        C = A @ layer.W + (C if layer.skip else 0.0)
    return C @ here.ball.centre + offset - here.ball.worst(C) - slack


def steepest(here: Enclosed, C: Array) -> Array:
    """Largest length of each row of `d(C y)/dx` over the ball: a Lipschitz constant there."""
    middle, half = C, jnp.zeros_like(C)
    for layer, (lo, hi) in zip(reversed(here.layers), reversed(here.parts), strict=True):
        base = (middle, half) if layer.skip else (0.0, 0.0)
        scale = layer.h if layer.skip else 1.0
        if layer.kind is None:  # weights of a soft maximum: nonnegative, at most one
            n = layer.units.atoms
            s_mid, s_half = jnp.full(lo.shape, 0.5, C.dtype), jnp.full(lo.shape, 0.5, C.dtype)
            spread = lambda M, n=n: jnp.repeat(M, n, axis=1)
            middle, half = spread(middle), spread(half)
        else:
            low, high = layer.kind.slopes(lo, hi)
            s_mid, s_half = 0.5 * (low + high), 0.5 * (high - low)
        a = scale * middle * s_mid[None, :]
        r = jnp.abs(scale) * (
            jnp.abs(middle) * s_half[None, :] + half * (jnp.abs(s_mid) + s_half)[None, :]
        )
        middle, half = a @ layer.W + base[0], r @ jnp.abs(layer.W) + base[1]
    size = jnp.abs(middle) + half
    length = jnp.sqrt(jnp.sum(size**2, axis=1)) if here.ball.norm == 2 else jnp.sum(size, axis=1)
    return length * (1 + here.rounding)

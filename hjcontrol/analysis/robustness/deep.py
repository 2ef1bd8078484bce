r"""Certified radius, output bounds, local Lipschitz constant and attacked radius at any depth.

radius    largest r found with  z_label - z_c > 0  for every other c and all |x' - x| <= r
          by the lines of every unit (backward bounds), or by the slope: margin > r sup|grad margin|
attacked  least r found at which projected ascent from several starts changes the class

certified <= true distance <= attacked: the first is a proof, the last an example. The ratio says how
much of the truth was certified. A radius is Euclidean: with features of unlike units say `scale`.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, Key, Real

from hjcontrol._ground.arguments import admits, in_range
from hjcontrol._ground.concrete import known
from hjcontrol._ground.record import Quantity, Record, Told, figure, one_of_many
from hjcontrol._ground.shown import Shown
from hjcontrol.analysis.robustness.ascent import attack
from hjcontrol.analysis.robustness.enclosing import (
    Ball,
    Layer,
    bounded,
    enclose,
    layers_of,
    steepest,
)
from hjcontrol.deformation.soft_maximum import checked
from hjcontrol.networks import Trained
from hjcontrol.networks.trained import AnyClassifier, class_head_of

HALVINGS = 18  # of the logarithm of the radius: to 1e-4 of it
TRIES = 12  # radii tried by an attack


class DeepRadius(Told, Shown):
    """Certified radius of a deep network's prediction: within it no attack succeeds."""

    label: Int[Array, ""]
    rival: Int[Array, ""]  # the class that limits the radius
    margin: Float[Array, ""]  # least z_label - z_c; negative: the label is not predicted
    radius: Float[Array, ""]  # the better of the two; 0 where the label is not predicted
    by_lines: Float[Array, ""]
    by_slope: Float[Array, ""]
    scaled: bool = eqx.field(static=True, default=False)

    def as_record(self) -> Record:
        """What this result says of itself."""
        if self.radius.ndim:
            return one_of_many(self, self.radius.shape)
        unit = "scaled inputs" if self.scaled else "the inputs' own units, all features alike"
        holds = f"holds within radius {figure(self.radius, 6)} (certified, {unit})"
        if not float(self.margin) > 0:
            holds = f"is not predicted: class {int(self.rival)} is ahead"
        return Record(
            f"Class {int(self.label)}",
            f"{holds}; margin {figure(self.margin)}, rival {int(self.rival)}",
            facts={
                "by lines of every unit": Quantity(self.by_lines, 6),
                "by the largest slope": Quantity(self.by_slope, 6),
            },
        )


@eqx.filter_jit
def deep_radius(model: Trained, x: Array, label: Array, scale: Any = None) -> DeepRadius:
    """The certificate of one sample; `label` is a number of an output."""
    layers = layers_of("certified_radius", model)
    z, given = model(x), x
    if scale is not None:
        layers, x = stretched("certified_radius", layers, x, scale)
    C = jax.nn.one_hot(label, z.size, dtype=z.dtype)[None, :] - jnp.eye(z.size, dtype=z.dtype)
    others = jnp.arange(z.size) != label
    margins = jnp.where(others, C @ z, jnp.inf)
    margin = jnp.min(margins)

    def holds(r: Array) -> tuple[Array, Array]:
        here = enclose(layers, Ball(x, r, 2))
        low = jnp.where(others, bounded(here, C, len(layers)), jnp.inf)
        slack = 3 * here.rounding * (jnp.abs(C) @ here.sizes[-1])
        flat = jnp.where(others, C @ z - slack - r * steepest(here, C), jnp.inf)
        return low, flat

    by = 1.0 if scale is None else jnp.asarray(scale, x.dtype)[None, :]
    slope = jnp.sqrt(jnp.sum((by * jax.jacrev(lambda a: C @ model(a))(given)) ** 2, axis=1))
    typical = jnp.where(others & (slope > 0), margins / jnp.where(slope > 0, slope, 1.0), jnp.inf)
    size = 1.0 + jnp.max(jnp.abs(x))
    start = jnp.clip(jnp.min(typical), 1e-6 * size, 1e3 * size)
    far = jnp.log(start) + jnp.log(jnp.asarray([1e-6, 20.0], z.dtype))

    def halve(_: Any, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = 0.5 * (low + high)
        lines, slopes = jax.vmap(holds)(jnp.exp(middle))
        good = jnp.stack([jnp.min(lines[0]), jnp.min(slopes[1])]) > 0
        return jnp.where(good, middle, low), jnp.where(good, high, middle)

    two = jnp.ones(2, z.dtype)
    low, high = jax.lax.fori_loop(0, HALVINGS, halve, (far[0] * two, far[1] * two))
    # the least radius that is tried was not: it counts only where something above it held
    found = jnp.where((low > far[0]) & (margin > 0), jnp.exp(low), 0.0)
    rival = jnp.argmin(jnp.where(margin > 0, holds(jnp.exp(jnp.max(high)))[0], margins))
    return DeepRadius(label, rival, margin, jnp.max(found), found[0], found[1], scale is not None)


class OutputBounds(Shown):
    """Each output over the ball lies in `[lower, upper]`; `lipschitz` bounds its slope there."""

    lower: Float[Array, " outputs"]
    upper: Float[Array, " outputs"]
    lipschitz: Float[Array, " outputs"]


@admits(radius=">= 0")
def output_bounds(
    model: Trained,
    x: Real[ArrayLike, " d"],
    radius: Real[ArrayLike, ""] | float,
    *,
    norm: float | int = 2,
) -> OutputBounds:
    """What the outputs can be over `|x' - x| <= radius`, and their local Lipschitz constants.

    `norm`: 2, or `inf` for the largest entry; the constants are for that norm. Sound, not sharp.
    Batch with `jax.vmap`.

    **Raises:** `ValueError` for another norm, or naming the stage that has no bounds.
    """
    if norm not in (2, float("inf")):
        raise ValueError(f"output_bounds: `norm` is 2 or inf; found {norm}.")
    x = checked("output_bounds", x, axes=1, mask=False)
    return _output_bounds(model, x, radius, float(norm))


@eqx.filter_jit
def _output_bounds(model: Trained, x: Array, radius: Any, norm: float) -> OutputBounds:
    layers = layers_of("output_bounds", model)
    out = model(x)
    here = enclose(layers, Ball(x, jnp.asarray(radius, out.dtype), norm))
    eye = jnp.eye(out.size, dtype=out.dtype)
    depth = len(layers)
    return OutputBounds(bounded(here, eye, depth), -bounded(here, -eye, depth), steepest(here, eye))


@admits(within="> 0", scale="> 0")
def value_radius(
    model: Trained,
    x: Real[ArrayLike, " d"],
    within: Real[ArrayLike, ""] | float,
    *,
    scale: Real[ArrayLike, " d"] | None = None,
) -> Float[Array, ""]:
    """A radius about `x` in which every output moves by `within` at most: a proof, for regressions.

    `scale`: as in `certified_radius`. `inf` where the bounds hold at every radius that was tried, up to a
    million times the inputs' size. Batch with `jax.vmap`.

    **Raises:** `ValueError` naming the stage that has no bounds.
    """
    x = checked("value_radius", x, axes=1, mask=False)
    return _value_radius(model, x, jnp.asarray(within, x.dtype), scale)


@eqx.filter_jit
def _value_radius(model: Trained, x: Array, within: Array, scale: Any) -> Array:
    layers = layers_of("value_radius", model)
    out = model(x)
    eye, far = jnp.eye(out.size, dtype=out.dtype), jnp.asarray(within, out.dtype)
    if scale is not None:
        layers, x = stretched("value_radius", layers, x, scale)

    def holds(r: Array) -> Array:
        here = enclose(layers, Ball(x, r, 2))
        slack = 3 * here.rounding * here.sizes[-1]
        rise = -bounded(here, -eye, len(layers)) - out
        fall = out - bounded(here, eye, len(layers))
        moved = jnp.minimum(jnp.maximum(rise, fall), r * steepest(here, eye))
        return jnp.max(moved + slack) <= far

    size = 1.0 + jnp.max(jnp.abs(x))
    ends = jnp.log(1e-9 * size), jnp.log(1e6 * size)

    def halve(_: Any, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = 0.5 * (low + high)
        good = holds(jnp.exp(middle))
        return jnp.where(good, middle, low), jnp.where(good, high, middle)

    low, _ = jax.lax.fori_loop(0, 22, halve, ends)
    found = jnp.where(low > ends[0], jnp.exp(low), 0.0)
    return jnp.where(holds(jnp.exp(ends[1])), jnp.inf, found)


def stretched(
    who: str, layers: list[Layer], x: Array, scale: ArrayLike
) -> tuple[list[Layer], Array]:
    """The layers as functions of `x/scale`, and that."""
    first = layers[0]
    if first.skip:
        raise ValueError(f"{who}: `scale` needs a first stage that is Dense; found a Residual.")
    by = jnp.asarray(scale, x.dtype)
    return [first._replace(W=first.W * by[None, :]), *layers[1:]], x / by


@admits(steps=">= 1", starts=">= 1")
def attacked_radius(
    classifier: AnyClassifier,
    x: Real[ArrayLike, " d"],
    label: Int[ArrayLike, ""] | int | None = None,
    *,
    key: Key[Array, ""],
    steps: int = 40,
    starts: int = 8,
) -> Float[Array, ""]:
    """The length of the shortest step found that changes the class: an upper bound of the true distance.

    Projected gradient ascent of the best rival's lead from several starts, at radii halved towards the
    least that succeeds; the step is then shortened along its own ray. `inf` where nothing was found.
    Works for any model with scores. Batch with `jax.vmap`.
    """
    head = class_head_of("attacked_radius", classifier)
    x = checked("attacked_radius", x, axes=1, mask=False)
    z = head.scores(x)
    if label is not None:
        in_range("attacked_radius", "label", label, f">= 0, < {z.size}")
    label = jnp.argmax(z) if label is None else jnp.asarray(label)
    return _attacked_radius(head, x, label, key, steps, starts)


@eqx.filter_jit
def _attacked_radius(head: Any, x: Array, label: Array, key: Any, steps: int, starts: int) -> Array:
    def lead(a: Array) -> Array:
        z = head.scores(a)
        own = jnp.arange(z.size) == label
        return jnp.max(jnp.where(own, -jnp.inf, z)) - jnp.sum(jnp.where(own, z, 0.0))

    size = 1.0 + jnp.sqrt(jnp.sum(x**2))

    def narrower(carry: tuple[Array, Array, Array], key: Array) -> tuple[Any, None]:
        low, high, best = carry
        r = jnp.exp(0.5 * (low + high))
        step = attack(lead, x, r, key=key, steps=steps, starts=starts).step
        length = _shortest(lead, x, step)
        hit = jnp.isfinite(length)
        best = jnp.minimum(best, length)
        top = jnp.where(hit, jnp.minimum(jnp.log(best), jnp.log(r)), high)
        return (jnp.where(hit, low, jnp.log(r)), top, best), None

    begin = (jnp.log(1e-4 * size), jnp.log(10 * size), jnp.asarray(jnp.inf, x.dtype))
    (_, _, best), _ = jax.lax.scan(narrower, begin, jax.random.split(key, TRIES))
    return jnp.where(lead(x) >= 0, 0.0, best)


def _shortest(lead: Callable[[Array], Array], x: Array, step: Array) -> Array:
    """Length of the step, shortened along its ray while the class stays changed; `inf` if it is not."""

    def halve(_: Any, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = 0.5 * (low + high)
        hit = lead(x + middle * step) > 0
        return jnp.where(hit, low, middle), jnp.where(hit, middle, high)

    one = jnp.ones((), x.dtype)
    _, high = jax.lax.fori_loop(0, 20, halve, (0 * one, one))
    changed = lead(x + step) > 0
    return jnp.where(changed, high * jnp.sqrt(jnp.sum(step**2)), jnp.inf)


def nearest_kink(model: Trained, x: Array) -> Array | None:
    """Distance to the nearest kink of a piecewise affine network; `inf` if the units are smooth, NaN if
    both kinds are there, `None` if nothing is known of the units."""
    try:
        layers: list[Layer] = layers_of("nearest_kink", model)
    except ValueError:
        return None
    kinds = [layer.kind for layer in layers]
    kinked = [k is None or known(jnp.asarray(k.kinked)) is None or bool(k.kinked) for k in kinds]
    if not any(kinked):
        return jnp.asarray(jnp.inf, x.dtype)
    if not all(k is not None and (k.affine or bent) for k, bent in zip(kinds, kinked, strict=True)):
        return jnp.asarray(jnp.nan, x.dtype)

    def parts(x: Array) -> Array:
        y, found = x, []
        for (stage, theta), layer, bent in zip(model.layers, layers, kinked, strict=True):
            if bent:
                found.append(layer.W @ y + layer.b)
            y = stage.step(y, theta)
        return jnp.concatenate(found)

    a, slopes = parts(x), jax.jacfwd(parts)(x)
    length = jnp.sqrt(jnp.sum(slopes**2, axis=1))
    return jnp.min(jnp.where(length > 0, jnp.abs(a) / jnp.where(length > 0, length, 1.0), jnp.inf))

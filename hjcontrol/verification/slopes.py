r"""One-sided slopes of a place's values, one coordinate of one argument at a time.

    D+ , D-  =  lim_{t -> 0+-}  Re <r, F(x + t e_i) - F(x)> / t

Values only: no derivative rule has a say. The *difference* is contracted, so outputs that do not move add
no roundoff. Steps `h_j = h_0 / 4^j`, extrapolated to `t = 0`, the entry of least estimated error kept;
the estimate is the distance to the entry's ancestors plus the roundoff `eps <|r|, |F|> / h`.

Many elements are moved at once where they cannot meet: all of them, if each moves its own output only;
one of every sample, if samples do not meet. Both are checked on the values.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from hjcontrol.verification.arithmetic import is_float

STEPS = 8
FACTOR = 4.0
EACH = 2**16  # outputs that are told apart
Values = Callable[[list[Any]], Sequence[Any]]


class Slopes(NamedTuple):
    """Of each element: both slopes, the error estimate of each, and what they may be where every output
    takes a side of its own."""

    right: Float[Array, " elements"]
    left: Float[Array, " elements"]
    right_error: Float[Array, " elements"]
    left_error: Float[Array, " elements"]
    low: Float[Array, " elements"]
    high: Float[Array, " elements"]


def slopes(
    function: Values,
    x: Sequence[Array],
    group: Sequence[int],
    r: Sequence[Any],
    chosen: Int[Array, " chosen"],
) -> Slopes:
    """Slopes along the `chosen` flat elements of an argument, moved in all the inputs of its `group`."""
    at = x[group[0]]
    start = function(list(x))
    h0 = _first_steps(at).ravel()
    count = sum(f.size for f in start if is_float(f))

    def quotient(i: Any, t: Any) -> tuple[Array, Array, Array]:
        """Of all outputs, the size of those that moved (roundoff is subtracted there), and of each."""
        inputs, new = _moved(x, group, at.ravel().at[i].add(t.astype(at.dtype)).reshape(at.shape))
        real = (new.ravel()[i] - at.ravel()[i]).real  # the step that was really taken
        outs = [o for o in zip(start, function(inputs), r, strict=True) if is_float(o[0])]
        parts = [jnp.where(f == g, 0, (g - f) * w).real for f, g, w in outs]
        sizes = [
            jnp.sum(jnp.where((f != g) & jnp.isfinite(f), jnp.abs(f * w), 0)) for f, g, w in outs
        ]
        each = [a.ravel().astype(real.dtype) for a in parts if count <= EACH]
        each = jnp.concatenate(each) if each else jnp.zeros(0, real.dtype)
        return sum(map(jnp.sum, parts)) / real, sum(sizes), each / real

    def one(i: Any) -> tuple[Array, Array]:
        steps = h0[i] * FACTOR ** -jnp.arange(STEPS, dtype=h0.dtype)
        found = jax.lax.map(lambda t: quotient(i, t), jnp.concatenate([steps, -steps]))
        both, height, each = found
        noise = jnp.finfo(both.dtype).eps * jnp.max(height)
        (right, e), (left, f) = (limit(side, steps, noise) for side in (both[:STEPS], both[STEPS:]))
        sides = [
            jax.vmap(lambda q: limit(q, steps, noise)[0], 1)(side)
            for side in (each[:STEPS], each[STEPS:])
            if count <= EACH
        ] or [right, left]
        low, high = (jnp.sum(least(*sides)) for least in (jnp.minimum, jnp.maximum))
        return Slopes(right, left, e, f, low, high)

    return jax.lax.map(one, chosen)


def together(
    function: Values,
    x: Sequence[Array],
    group: Sequence[int],
    r: Array,
    mask: Array,
    positions: Int[Array, " positions"] | None,
) -> tuple[Slopes, Array]:
    """Slopes of all the elements where `mask`, and whether they may be moved at once.

    `positions`: `None` to move every element at once (each output belongs to the element at its place);
    else flat positions within a sample, moved one after another in all samples. One floating output.
    """
    at = x[group[0]]
    h0 = _first_steps(at)
    n = at.shape[0] if at.ndim else 1

    def output(step: Any) -> tuple[Array, Array]:
        inputs, new = _moved(x, group, at + step.astype(at.dtype))
        return next(o for o in function(inputs) if is_float(o)), new - at

    start, _ = output(0 * h0)
    every = [mask] if positions is None else None

    def slope(where: Any) -> tuple[Slopes, Array]:
        fold = (lambda a: a) if positions is None else (lambda a: jnp.sum(a.reshape(n, -1), axis=1))

        def quotient(t: Any) -> Array:
            moved, real = output(jnp.where(where, t * h0, 0))
            change = fold(jnp.where(moved == start, 0, (moved - start) * r).real)
            size = fold(jnp.where(where, real, 0).real)
            return jnp.where(size == 0, 0, change / jnp.where(size == 0, 1, size)).ravel()

        steps = FACTOR ** -jnp.arange(STEPS, dtype=h0.dtype)
        both = jax.lax.map(quotient, jnp.concatenate([steps, -steps]))
        noise = fold(jnp.finfo(both.dtype).eps * jnp.abs(start * r)).ravel()
        size = fold(jnp.where(where, h0, 0)).ravel()
        each = jax.vmap(lambda q, h, e: limit(q, steps * jnp.where(h == 0, 1, h), e), (1, 0, 0))
        (right, e), (left, f) = (each(s, size, noise) for s in (both[:STEPS], both[STEPS:]))
        # Half of them moved: what belongs to the others must stay, what belongs to these must agree.
        count = right.size
        half = (jnp.arange(count) % 2 == 0).reshape(start.shape if positions is None else (n,))
        spread = half if positions is None else half.reshape(n, *(1,) * (at.ndim - 1))
        some, _ = output(jnp.where(where & spread, h0, 0))
        whole, _ = output(jnp.where(where, h0, 0))
        out = half if positions is None else half.reshape(n, *(1,) * (start.ndim - 1))
        low, high = jnp.minimum(right, left), jnp.maximum(right, left)
        alone = jnp.all(jnp.where(out, some == whole, some == start))
        return Slopes(right, left, e, f, low, high), alone

    if every is not None:
        return slope(mask)
    width = at.size // n
    one = lambda j: slope(mask & (jnp.arange(width) == j).reshape(1, *at.shape[1:]))
    found, alone = jax.lax.map(one, positions)
    return found, jnp.all(alone)


def _first_steps(at: Array) -> Array:
    size = jnp.max(jnp.where(jnp.isfinite(at), jnp.abs(at), 0), initial=0.0)
    own = jnp.abs(at)
    fallback = jnp.where(size > 0, size, 1.0)
    return jnp.where((own > 0) & jnp.isfinite(own), own, fallback).real / 16


def _moved(x: Sequence[Array], group: Sequence[int], new: Array) -> tuple[list[Array], Array]:
    inputs = list(x)
    for k in group:
        inputs[k] = new
    return inputs, new


def limit(
    quotients: Float[Array, " steps"], steps: Float[Array, " steps"], noise: Any
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The extrapolated quotient with the least estimated error, and that error; infinite if no quotient
    is finite."""
    column, best = quotients, jnp.zeros((), quotients.dtype)
    error = jnp.asarray(jnp.inf, quotients.dtype)
    rounding = noise / steps.astype(quotients.dtype)
    for j in range(1, 5):
        coarse, fine = column[:-1], column[1:]
        column = fine + (fine - coarse) / (FACTOR**j - 1)
        gap = jnp.maximum(jnp.abs(column - fine), jnp.abs(column - coarse)) + rounding[j:]
        gap = jnp.where(jnp.isfinite(gap), gap, jnp.inf)
        k = jnp.argmin(gap)
        better = gap[k] < error
        best, error = jnp.where(better, column[k], best), jnp.where(better, gap[k], error)
    return best, error

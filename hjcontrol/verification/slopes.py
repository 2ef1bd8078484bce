r"""One-sided slopes of a place's values, one coordinate of one argument at a time.

    D+ , D-  =  lim_{t -> 0+-}  Re <r, F(x + t e_i) - F(x)> / t

Values only: no derivative rule has a say. The *difference* is contracted, so outputs that do not move add
no roundoff. Six steps, `h_j = h_0 / 4^j`, extrapolated to `t = 0` with the entry of least estimated error
kept; the estimate is the distance to the entry's ancestors plus the roundoff `eps <|r|, |F|> / h`.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from hjcontrol.verification.arithmetic import is_float

STEPS = 8
FACTOR = 4.0


class Slopes(NamedTuple):
    """Of each chosen element: both slopes, and the error estimate of each."""

    right: Float[Array, " chosen"]
    left: Float[Array, " chosen"]
    right_error: Float[Array, " chosen"]
    left_error: Float[Array, " chosen"]


def slopes(
    function: Callable[[list[Any]], Sequence[Any]],
    x: Sequence[Array],
    group: Sequence[int],
    r: Sequence[Any],
    chosen: Int[Array, " chosen"],
) -> Slopes:
    """Slopes along the `chosen` flat elements of an argument, moved in all the inputs of its `group`."""
    at = x[group[0]]
    flat = at.ravel()
    size = jnp.max(jnp.where(jnp.isfinite(flat), jnp.abs(flat), 0), initial=0.0)
    size = jnp.where(size > 0, size, 1.0)
    start = function(list(x))
    height = sum(
        jnp.sum(jnp.where(jnp.isfinite(f), jnp.abs(f * w), 0))
        for f, w in zip(start, r, strict=True)
        if is_float(f)
    )

    def moved(i: Any, t: Any) -> Array:
        new = flat.at[i].add(t.astype(flat.dtype)).reshape(at.shape)
        real = (new.ravel()[i] - flat[i]).real  # the step that was really taken
        inputs = list(x)
        for k in group:
            inputs[k] = new
        parts = [
            jnp.sum(jnp.where(f == g, 0, (g - f) * w).real)
            for f, g, w in zip(start, function(inputs), r, strict=True)
            if is_float(f)
        ]
        return sum(parts) / real

    def one(i: Any) -> tuple[Array, Array]:
        own = jnp.abs(flat[i])
        h0 = jnp.where((own > 0) & jnp.isfinite(own), own, size).real / 16
        steps = h0 * FACTOR ** -jnp.arange(STEPS, dtype=h0.dtype)
        # A side at a time, so that a step which leaves the domain spoils its own side only.
        both = jax.lax.map(lambda t: moved(i, t), jnp.concatenate([steps, -steps]))
        eps = jnp.finfo(both.dtype).eps
        found = [limit(side, steps, eps * height) for side in (both[:STEPS], both[STEPS:])]
        return jnp.stack([f[0] for f in found]), jnp.stack([f[1] for f in found])

    values, errors = jax.lax.map(one, chosen)
    return Slopes(values[:, 0], values[:, 1], errors[:, 0], errors[:, 1])


def limit(
    quotients: Float[Array, " steps"], steps: Float[Array, " steps"], noise: Any
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The extrapolated quotient with the least estimated error, and that error; infinite if no quotient
    is finite."""
    column, best, error = (
        quotients,
        jnp.zeros((), quotients.dtype),
        jnp.asarray(jnp.inf, quotients.dtype),
    )
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

"""Attack: raise any objective within a ball by projected gradient ascent from several starts."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Key, Real

from hjcontrol._ground.arguments import admits
from hjcontrol._ground.concrete import known
from hjcontrol._ground.shown import Shown
from hjcontrol.deformation.soft_maximum import floating


class Attack(Shown):
    """The best step that projected gradient ascent found: a lower bound on what is possible."""

    step: Float[Array, " d"]
    value: Float[Array, ""]
    start: Float[Array, ""]

    @property
    def gain(self) -> Float[Array, "*batch"]:
        """How much the objective rose."""
        return self.value - self.start


@admits(radius=">= 0", steps=">= 0", starts=">= 1")
def attack(
    objective: Callable[[Array], Array],
    x: Real[ArrayLike, " d"],
    radius: Real[ArrayLike, ""] | float,
    *,
    key: Key[Array, ""],
    steps: int = 40,
    starts: int = 4,
) -> Attack:
    """Raise `objective(x + d)` over `|d| <= radius` by projected gradient ascent.

    Each step has a fixed length that falls from `radius` to a hundredth of it, so it can cross the
    ball. The first start is `d = 0`; the others are random points of the sphere.

    **Raises:** `ValueError` for a negative radius, no steps or no starts.
    """
    check_radius("attack", radius)
    if steps < 1 or starts < 1:
        raise ValueError(f"attack: steps >= 1 and starts >= 1 are needed; found {steps}, {starts}.")
    x = floating(x)
    r = jnp.asarray(radius, x.dtype)
    rise = jax.value_and_grad(lambda d: objective(x + d))

    def inside(d: Array) -> Array:
        size = euclidean(d)
        return d * jnp.where(size > r, r / jnp.where(size > 0, size, 1.0), 1.0)

    def ascend(d: Array) -> tuple[Array, Array]:
        def body(carry: tuple[Array, Array, Array], length: Array) -> tuple:
            d, best, top = carry
            value, slope = rise(d)
            better = value > top
            best, top = jnp.where(better, d, best), jnp.where(better, value, top)
            size = euclidean(slope)
            return (inside(d + length * slope / jnp.where(size > 0, size, 1.0)), best, top), None

        lengths = r * jnp.geomspace(1.0, 0.01, steps, dtype=x.dtype)
        (d, best, top), _ = jax.lax.scan(body, (d, d, rise(d)[0]), lengths)
        value = rise(d)[0]
        return jnp.where(value > top, d, best), jnp.maximum(value, top)

    drawn = jax.random.normal(key, (starts, x.size), x.dtype)
    first = r * drawn / jnp.linalg.norm(drawn, axis=1, keepdims=True)
    first = first * (jnp.arange(starts) > 0)[:, None]
    found, values = jax.vmap(ascend)(first)
    best = jnp.argmax(values)
    return Attack(found[best], values[best], objective(x))


def euclidean(v: Array) -> Array:
    """Length of a vector, with derivative zero at zero."""
    square = jnp.sum(v**2)
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)


def check_radius(who: str, radius: ArrayLike) -> None:
    """Refuse a radius known not to be a scalar >= 0."""
    value = known(radius)
    if value is not None and (value.ndim != 0 or not value >= 0):
        raise ValueError(f"{who}: a scalar radius >= 0 is needed; found {value}.")

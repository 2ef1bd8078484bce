r"""The root of a decreasing function of one number: Newton's steps inside a bracket, else halving.

    look(x) -> excess f(x), rate -f'(x) >= 0, noise: where |f| <= noise, x is the root

A step of Newton's is taken if it stays inside and is at most half of the step before.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array

MOST = 200  # steps: halving alone ends before
Look = Callable[[Array], tuple[Array, Array, Array]]


def decreasing_root(look: Look, low: Array, high: Array) -> Array:
    """`x` between `low` and `high` with `f(x) = 0`; the end beyond which it is, if it is outside."""

    def step(state: tuple[Array, ...]) -> tuple[Array, ...]:
        x, low, high, moved, _, count = state
        excess, rate, noise = look(x)
        low, high = jnp.where(excess >= 0, x, low), jnp.where(excess <= 0, x, high)
        newton = x + excess / jnp.where(rate > 0, rate, 1.0)
        good = (rate > 0) & (newton > low) & (newton < high) & (jnp.abs(newton - x) <= 0.5 * moved)
        new = jnp.where(good, newton, 0.5 * (low + high))
        met = (jnp.abs(excess) <= noise) | (new == x)
        return jnp.where(met, x, new), low, high, jnp.abs(new - x), met, count + 1

    far = jnp.full((), jnp.inf, low.dtype)
    start = (0.5 * (low + high), low, high, far, jnp.zeros((), bool), jnp.zeros((), int))
    return jax.lax.while_loop(lambda s: ~s[4] & (s[5] < MOST), step, start)[0]

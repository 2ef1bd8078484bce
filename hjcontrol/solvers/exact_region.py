r"""A trust region with the whole Hessian, for few weights.

    minimise over s   g.s + 1/2 s.H s    subject to  |s| <= radius          H = Q diag(l) Q^T
    s = -Q (b / (l + m)),   b = Q^T g,   m >= max(0, -l_1),   m (|s| - radius) = 0

H is formed by products with unit vectors and decomposed once a step; the subproblem is then solved to
roundoff by Newton on 1/|s| - 1/radius in m, and a step that is refused is tried shorter in the same
basis, for the price of one value of J. In the hard case (b has no part along l_1) the step is completed
along that eigenvector.
Source: Conn, Gould & Toint, Trust-Region Methods (2000), chapter 7; More & Sorensen, SIAM J. Sci. Stat.
Comput. 4 (1983), 553-572.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int

from hjcontrol.control import ControlProblem, Free, value_and_gradient
from hjcontrol.networks import Weights

FEW = 500  # weights
ENTRIES = 30_000_000  # numbers in a batch of products: samples x states x unit vectors
ROOT_STEPS = 30
TRIES = 12


class Step(NamedTuple):
    """Weights, `J` and its gradient after a step; whether it counts; the next radius; the model's
    decrease; whether the region stopped it; values of `J` that were asked."""

    end: tuple[Weights, Float[Array, ""], Weights]
    accepted: Bool[Array, ""]
    radius: Float[Array, ""]
    decrease: Float[Array, ""]
    boundary: Bool[Array, ""]
    tries: Int[Array, ""]


def few(problem: ControlProblem, weights: Weights) -> bool:
    """Whether the whole Hessian is worth its price: few weights, and no bounds on them."""
    return isinstance(problem.control_set, Free) and _count(weights) <= FEW


def _count(tree: Any) -> int:
    return sum(a.size for a in jax.tree.leaves(tree))


def stepped(
    problem: ControlProblem,
    product: Callable[[Weights], Weights],
    at: tuple[Weights, Float[Array, ""], Weights],
    radius: Float[Array, ""],
    floor: Float[Array, ""],
) -> Step:
    """One step from weights, `J` and its gradient. `radius`: not positive before the first step;
    `floor`: what `J` cannot tell apart."""
    weights, value, gradient = at
    flat, unravel = ravel_pytree(weights)
    whole = lambda v: ravel_pytree(product(unravel(v)))[0]
    states = jax.eval_shape(lambda w: problem.first_chunk.rollout(w), weights)
    values, Q = jnp.linalg.eigh(hessian(whole, flat, _count(states)))
    b = Q.T @ ravel_pytree(gradient)[0]
    least = jnp.finfo(b.dtype).eps * jnp.max(jnp.abs(values))
    first = jnp.linalg.norm(b / jnp.maximum(jnp.abs(values), jnp.maximum(least, 1e-300)))
    radius = jnp.where(radius > 0, radius, jnp.minimum(first, 1 + jnp.linalg.norm(flat)))

    def proceed(carry: Any) -> Array:
        return (carry[0] < TRIES) & ~carry[2]

    def attempt(carry: Any) -> Any:
        tries, radius, *_ = carry
        s, decrease = shortest(values, b, radius)
        size = jnp.linalg.norm(s)
        new = unravel(flat + Q @ s)
        found = value_and_gradient(problem, new)
        ratio = (value - found[0] + floor) / (decrease + floor)
        boundary = size > 0.9 * radius
        longer = jnp.where((ratio > 0.75) & boundary, 2.5 * radius, radius)
        after = jnp.where(ratio > 0.25, longer, 0.25 * jnp.minimum(radius, size))
        accepted = (ratio > 1e-4) & jnp.isfinite(found[0])
        return tries + 1, after, accepted, decrease, boundary, (new, *found)

    no = jnp.asarray(False)
    start = (jnp.asarray(0), radius, no, jnp.zeros_like(value), no, at)
    tries, radius, accepted, decrease, boundary, end = jax.lax.while_loop(proceed, attempt, start)
    end = jax.tree.map(lambda a, b: jnp.where(accepted, a, b), end, at)
    return Step(end, accepted, radius, decrease, boundary | (tries > 1), tries)


def hessian(
    product: Callable[[Array], Array], like: Float[Array, " m"], numbers: int
) -> Float[Array, "m m"]:
    """The symmetric matrix of `product`. `numbers`: what one product holds."""
    batch = max(1, ENTRIES // max(numbers, 1))
    eye = jnp.eye(like.size, dtype=like.dtype)
    rows = (
        jax.vmap(product)(eye)
        if batch >= like.size
        else jax.lax.map(product, eye, batch_size=batch)
    )
    return 0.5 * (rows + rows.T)


def shortest(
    values: Float[Array, " m"], b: Float[Array, " m"], radius: Float[Array, ""]
) -> tuple[Float[Array, " m"], Float[Array, ""]]:
    """The minimiser of `b.s + 1/2 s.diag(values) s` in `|s| <= radius`, and the decrease. `values`
    ascend."""
    tiny = jnp.finfo(b.dtype).eps * (jnp.max(jnp.abs(values)) + jnp.linalg.norm(b) / radius)
    floor = jnp.maximum(-values[0], 0.0) + tiny

    def length(m: Array) -> tuple[Array, Array]:
        s = b / (values + m)
        return jnp.linalg.norm(s), jnp.sum(s**2 / (values + m))

    def proceed(carry: Any) -> Array:
        count, _, gap = carry
        return (count < ROOT_STEPS) & (jnp.abs(gap) > 1e-6 * radius)

    def newton(carry: Any) -> Any:
        count, m, _ = carry
        norm, bend = length(m)
        new = jnp.maximum(
            m + (norm / radius - 1.0) * norm**2 / jnp.where(bend > 0, bend, 1.0), floor
        )
        # From below |s| > radius the iteration on 1/|s| rises to the root without passing it.
        return count + 1, new, jnp.where(new == m, 0.0, length(new)[0] - radius)

    inside = (values[0] > 0) & (jnp.linalg.norm(b / jnp.where(values > 0, values, 1.0)) <= radius)
    start = (jnp.asarray(0), floor, jnp.where(inside | (length(floor)[0] <= radius), 0.0, radius))
    _, m, _ = jax.lax.while_loop(proceed, newton, start)
    m = jnp.where(inside, 0.0, m)
    s = -b / jnp.where(inside, values, values + m)
    # The hard case: what is missing to the boundary goes along the least eigenvector.
    missing = jnp.sqrt(jnp.maximum(radius**2 - jnp.sum(s**2), 0.0))
    way = jnp.where(s[0] < 0, -1.0, 1.0).astype(b.dtype)
    hard = ~inside & (values[0] < 0) & (jnp.linalg.norm(s) < 0.9 * radius)
    s = s.at[0].add(jnp.where(hard, way * missing, 0.0))
    return s, -(b @ s) - 0.5 * jnp.sum(values * s**2)

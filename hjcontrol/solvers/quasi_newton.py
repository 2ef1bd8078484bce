r"""L-BFGS whose first metric may be the problem's own curvature.

    d = -H g,    q = g - Y a,    r = c M q,    H g = r + S b        s = theta' - theta,  y = g' - g
    R a = S^T g,   R^T b = D a - Y^T r         R, D: upper triangle and diagonal of S^T Y
    c = s.y / y.My of the newest pair          M = 1, or the inverse of curvature blocks (`blocks`)

This is the two-loop recursion over the last pairs, each loop written as a triangular system. A step is
searched along d by optax's zoom line search (strong Wolfe conditions). Without a pair the first step is
no longer than one, as in `optax.lbfgs`.
Source: Nocedal & Wright, Numerical Optimization (2006), algorithms 7.4 and 7.5.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from hjcontrol._ground.shown import Shown

MEMORY = 10
_SEARCH = optax.scale_by_zoom_linesearch(20, initial_guess_strategy="one")

Vector = Float[Array, " n"]
Metric = Callable[[Vector], Vector]


class Memory(Shown):
    """The last pairs, the oldest first, zeros where there is none; and what the line search carries."""

    s: Float[Array, "memory n"]
    y: Float[Array, "memory n"]
    search: Any


class Step(NamedTuple):
    """Where a step ended: the point, its value and gradient; the pairs with this one; values asked."""

    at: Vector
    value: Float[Array, ""]
    gradient: Vector
    memory: Memory
    tries: Int[Array, ""]


def begun(at: Vector) -> Memory:
    """No pairs yet."""
    pairs = jnp.zeros((MEMORY, at.size), at.dtype)
    return Memory(pairs, pairs, _SEARCH.init(at))


def stepped(
    objective: Callable[[Vector], Float[Array, ""]],
    at: Vector,
    value: Float[Array, ""],
    gradient: Vector,
    memory: Memory,
    metric: Metric = lambda v: v,
) -> Step:
    """One step from a point with its value and gradient."""
    way = -_times(memory, gradient, metric)
    update, search = _SEARCH.update(
        way, memory.search, at, value=value, grad=gradient, value_fn=objective
    )
    end = at + jnp.asarray(update)
    found = {
        k: optax.tree_utils.tree_get(search, k) for k in ("value", "grad", "num_linesearch_steps")
    }
    s, y = end - at, found["grad"] - gradient
    kept = Memory(_with(memory.s, s, s @ y > 0), _with(memory.y, y, s @ y > 0), search)
    return Step(end, found["value"], found["grad"], kept, found["num_linesearch_steps"])


def _with(all: Float[Array, "memory n"], new: Vector, kept: Array) -> Float[Array, "memory n"]:
    """The new row after all but the oldest; as it was where the new one is not to be kept."""
    return jnp.where(kept, jnp.concatenate([all[1:], new[None]]), all)


def _times(memory: Memory, gradient: Vector, metric: Metric) -> Vector:
    """`H g`."""
    s, y = memory.s, memory.y
    both = s @ y.T
    curvature = jnp.diag(both)
    R = jnp.triu(both) + jnp.diag(jnp.where(curvature > 0, 0.0, 1.0).astype(both.dtype))
    a = jax.scipy.linalg.solve_triangular(R, s @ gradient)
    r, bent = jax.vmap(metric)(jnp.stack([gradient - a @ y, y[-1]]))
    across = y[-1] @ bent
    first = jnp.minimum(1.0, 1.0 / jnp.linalg.norm(gradient))
    known = (curvature[-1] > 0) & (across > 0)
    r = r * jnp.where(known, curvature[-1] / jnp.where(known, across, 1.0), first).astype(r.dtype)
    b = jax.scipy.linalg.solve_triangular(R, curvature * a - y @ r, trans=1)
    return r + b @ s

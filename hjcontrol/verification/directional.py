r"""The derivative of a program along a direction, and how far it can be trusted.

    D f(x) v = d/ds f(x + s v) at s = 0

Forward mode of the inlined program where it exists: exact, error 0. Otherwise (a host callback, a
primitive without a tangent) Richardson extrapolation of central differences

    T_{i,0} = [f(x + h_i v) - f(x - h_i v)] / 2 h_i,    h_i = h_0 / 4^i
    T_{i,j} = T_{i,j-1} + (T_{i,j-1} - T_{i-1,j-1}) / (16^j - 1)

with the entry of least estimated error kept, and that estimate returned beside it.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

# From 1/8 of the state's size down to 3e-8 of it: the small steps are for functions with kinks, where
# only a step that crosses none is right, and large steps can agree by chance.
LEVELS = 12
ORDER = 4


def has_forward(function: Callable, x: PyTree[Array]) -> bool:
    """Whether forward mode of `function` exists. Decided while tracing."""
    try:
        jax.eval_shape(lambda a: jax.jvp(function, (a,), (a,)), x)
    except (NotImplementedError, ValueError):  # no rule for a primitive; a host callback
        return False
    return True


def derivative(
    function: Callable, x: PyTree[Array], v: PyTree[Array], forward: bool
) -> tuple[PyTree[Array], PyTree[Array]]:
    """`D function(x) v` and an estimate of its error, one scalar an output leaf."""
    if forward:
        _, tangent = jax.jvp(function, (x,), (v,))
        return tangent, jax.tree.map(lambda t: jnp.zeros((), t.dtype), tangent)
    return differences(function, x, v)


def differences(
    function: Callable, x: PyTree[Array], v: PyTree[Array]
) -> tuple[PyTree[Array], PyTree[Array]]:
    """`D function(x) v` by Richardson extrapolation, and an estimate of its error, by leaf."""
    size = lambda tree: jnp.sqrt(sum(jnp.mean(a**2) for a in jax.tree.leaves(tree)))
    width, length = size(x), size(v)
    h0 = 0.125 * jnp.where(width > 0, width, 1.0) / jnp.where(length > 0, length, 1.0)

    def quotient(h: Float[Array, ""]) -> tuple[PyTree[Array], PyTree[Array]]:
        move = lambda s: jax.tree.map(lambda a, d: a + (s * h).astype(a.dtype) * d, x, v)
        up, down = function(move(1.0)), function(move(-1.0))
        slope = jax.tree.map(lambda a, b: (a - b) / (2 * h).astype(a.dtype), up, down)
        return slope, jax.tree.map(lambda a: jnp.max(jnp.abs(a), initial=0.0), up)

    steps = h0 * 0.25 ** jnp.arange(LEVELS, dtype=h0.dtype)
    slopes, heights = jax.lax.map(quotient, steps)
    leaves, structure = jax.tree.flatten(slopes)
    best = [extrapolate(s, steps, m) for s, m in zip(leaves, jax.tree.leaves(heights), strict=True)]
    return tuple(jax.tree.unflatten(structure, [b[i] for b in best]) for i in (0, 1))


def extrapolate(
    slopes: Float[Array, "levels *shape"],
    steps: Float[Array, " levels"],
    heights: Float[Array, " levels"],
) -> tuple[Float[Array, "*shape"], Float[Array, ""]]:
    """The entry of Richardson's tableau with the least estimated error, and that error.

    The estimate is the distance to the entry's two ancestors plus the roundoff `eps |f| / h` that no
    extrapolation removes; `heights` is `|f|` at each step.
    """
    spread = lambda a, b: jnp.sqrt(jnp.mean(((a - b) ** 2).reshape(len(a), -1), axis=1))
    roundoff = jnp.finfo(slopes.dtype).eps * heights / steps
    column, entries, errors = slopes, [], []
    for j in range(1, ORDER):
        coarse, fine = column[:-1], column[1:]
        column = fine + (fine - coarse) / (16**j - 1)
        entries.append(column)
        gap = jnp.maximum(spread(column, coarse), spread(column, fine))
        errors.append(gap + roundoff[j:])
    error = jnp.concatenate(errors)
    kept = jnp.argmin(jnp.where(jnp.isnan(error), jnp.inf, error))
    return jnp.concatenate(entries)[kept], error[kept]

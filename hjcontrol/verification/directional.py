r"""The derivative of a program along a direction, and how far it can be trusted.

    D f(x) v = d/ds f(x + s v) at s = 0

Forward mode of the inlined program where it exists: exact, error 0. Otherwise (a host callback, a
primitive without a tangent) Richardson extrapolation of central differences

    T_{i,0} = [f(x + h_i v) - f(x - h_i v)] / 2 h_i,    h_i = h_0 / 4^i
    T_{i,j} = T_{i,j-1} + (T_{i,j-1} - T_{i-1,j-1}) / (16^j - 1)

with the entry of least estimated error kept, and that estimate returned beside it.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
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
    size = lambda tree: jnp.sqrt(sum(jnp.mean(jnp.abs(a) ** 2) for a in jax.tree.leaves(tree)))
    width, length = size(x), size(v)
    h0 = 0.125 * jnp.where(width > 0, width, 1.0) / jnp.where(length > 0, length, 1.0)

    def moved(h: Float[Array, ""]) -> PyTree[Array]:
        return jax.tree.map(
            jnp.asarray, function(jax.tree.map(lambda a, d: a + h.astype(a.dtype) * d, x, v))
        )

    steps = h0 * 0.25 ** jnp.arange(LEVELS, dtype=h0.dtype)
    # One body for both sides: the program that is compiled holds the function once.
    values = jax.lax.map(moved, jnp.concatenate([steps, -steps]))
    leaves, structure = jax.tree.flatten(values)
    best = [extrapolate(a[:LEVELS], a[LEVELS:], steps) for a in leaves]
    return tuple(jax.tree.unflatten(structure, [b[i] for b in best]) for i in (0, 1))


def extrapolate(
    up: Float[Array, "levels *shape"],
    down: Float[Array, "levels *shape"],
    steps: Float[Array, " levels"],
) -> tuple[Float[Array, "*shape"], Float[Array, ""]]:
    """The entry of Richardson's tableau with the least estimated error, and that error.

    `up`, `down`: the values at `+h` and `-h`. The estimate is the distance to the entry's two
    ancestors plus the roundoff `eps |f| / h` that no extrapolation removes. An entry that rests on a
    value that is not finite is not kept.
    """
    flat = lambda a: a.reshape(len(steps), -1)
    slopes = (flat(up) - flat(down)) / (2 * steps.astype(up.dtype)[:, None])
    finite = jnp.all(jnp.isfinite(slopes), axis=1)
    slopes = jnp.where(finite[:, None], slopes, 0)
    dot = lambda m: jnp.matmul(m.astype(up.dtype), slopes, precision=jax.lax.Precision.HIGHEST)
    entries = dot(_TABLEAU.entries)
    spread = lambda m: jnp.sqrt(jnp.mean(dot(_TABLEAU.entries - m) ** 2, axis=1))
    gap = jnp.maximum(spread(_TABLEAU.coarse), spread(_TABLEAU.fine))
    height = jnp.max(jnp.abs(flat(up)), axis=1, initial=0.0)
    roundoff = jnp.finfo(up.dtype).eps * height / steps.astype(up.dtype)
    error = gap + roundoff[_TABLEAU.finest]
    sound = jnp.matmul(_TABLEAU.entries != 0, ~finite) == 0
    kept = jnp.argmin(jnp.where(sound & ~jnp.isnan(error), error, jnp.inf))
    value = jnp.where(sound[kept], entries[kept], jnp.nan).reshape(up.shape[1:])
    return value, jnp.where(sound[kept], error[kept], jnp.nan)


class _Tableau(NamedTuple):
    """Every entry beyond the first column, and its two ancestors, as combinations of the slopes."""

    entries: np.ndarray
    coarse: np.ndarray
    fine: np.ndarray
    finest: np.ndarray


def _tableau(levels: int, order: int) -> _Tableau:
    column, found = np.eye(levels), []
    for j in range(1, order):
        coarse, fine = column[:-1], column[1:]
        column = fine + (fine - coarse) / (16**j - 1)
        found.append((column, coarse, fine, np.arange(j, levels)))
    return _Tableau(*(np.concatenate(parts) for parts in zip(*found, strict=True)))


_TABLEAU = _tableau(LEVELS, ORDER)

r"""Log-sum-exp of affine scores, for many queries against many atoms, in bounded memory.

    f(x_i) = eps log sum_j exp(z_ij / eps),    z_ij = W_j.x_i + b_j      n queries, N atoms, n N scores
    mean_i = sum_j pi_ij V_j                   pi_ij Gibbs weights       at eps = 0: f = max_j z_ij

Scores exist one tile (queries x atoms) at a time: a running maximum m and the sums that belong to it,

    acc <- acc exp((m - m')/eps) + exp((z - m')/eps) V,    f = m + eps log1p(rest)

The sum without its largest term is what is kept, `rest`: a value near 0 has all its digits.

Tiles meet by matrix products, so a score carries the rounding of |x||W|: shift queries and atoms towards
the origin first where that matters. Scores that agree to that rounding count as tied at eps = 0.

The value's derivative streams too. Its forward pass already holds E[W], which *is* the gradient in x, so
that one costs no second pass; those in W and b take one. Derivatives of second order run through the
same tiles, recomputed; at eps = 0 those are zero. Reverse mode only.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Real

from hjcontrol._ground.arguments import admits
from hjcontrol._ground.concrete import known_to_fail

TILE = (512, 1024)  # queries, atoms: 4 MiB of scores in float64; measured, flat around its best


@admits(eps=">= 0")
def streaming_lse(
    X: Float[Array, "n d"],
    W: Float[Array, "N d"],
    b: Float[Array, " N"],
    eps: Real[ArrayLike, ""] | float | int,
    *,
    tile: tuple[int, int] = TILE,
) -> Float[Array, " n"]:
    r"""$\varepsilon\log\sum_j e^{(W_j\cdot x_i+b_j)/\varepsilon}$ for every row of `X`; the maximum at 0.

    **Arguments:** queries `X`, atoms `W`, offsets `b` (`-inf` masks an atom), scalar `eps >= 0` in the
    units of the scores; `tile`, how many queries and atoms meet at a time.

    **Returns:** shape (n,), in the dtype of `X`; `-inf` where every atom is masked.

    **Raises:** `ValueError` for disagreeing shapes, no atoms, a negative or non-scalar `eps`.
    """
    eps = _check(X, W, b, eps, tile)
    return _compiled_value(tile, X, W, b, eps)


@admits(eps=">= 0")
def streaming_gibbs_mean(
    X: Float[Array, "n d"],
    W: Float[Array, "N d"],
    b: Float[Array, " N"],
    V: Float[Array, "N k"],
    eps: Real[ArrayLike, ""] | float | int,
    *,
    tile: tuple[int, int] = TILE,
) -> Float[Array, "n k"]:
    r"""$\sum_j \pi_{ij} V_j$: averages of `V` under the Gibbs weights of every query.

    `V = W` gives the gradient of [`streaming_lse`][hjcontrol.deformation.streaming_lse] in `x`. Zero
    where every atom is masked. Arguments and errors as there, and `V` must have a row an atom.
    """
    eps = _check(X, W, b, eps, tile)
    if V.shape[0] != W.shape[0]:
        raise ValueError(
            f"streaming_gibbs_mean: `V` needs a row for each of {W.shape[0]} atoms; found {V.shape[0]}."
        )
    top, acc, rest = _compiled_stream(X, W, b, V, eps, tile)
    return acc / jnp.where(jnp.isnan(top), jnp.nan, 1.0 + rest)[:, None]


def _check(X: Array, W: Array, b: Array, eps: ArrayLike, tile: tuple[int, int]) -> Array:
    if W.shape[0] == 0:
        raise ValueError("streaming: at least one atom is needed; found none.")
    if X.shape[1] != W.shape[1] or b.shape[0] != W.shape[0]:
        raise ValueError(
            "streaming: X (n, d), W (N, d) and b (N,) are needed; found "
            f"{X.shape}, {W.shape} and {b.shape}."
        )
    if min(tile) < 1:
        raise ValueError(f"streaming: a tile has at least one query and one atom; found {tile}.")
    eps = jnp.asarray(eps)
    if eps.ndim != 0 or known_to_fail(eps >= 0):
        raise ValueError(f"streaming: a scalar `eps` >= 0 is needed; found {eps}.")
    return eps.astype(X.dtype)


def _tiled(a: Array, size: int, fill: float = 0.0) -> Array:
    """Rows in tiles of `size`, the last one filled up."""
    tiles = -(-a.shape[0] // size)
    widths = [(0, tiles * size - a.shape[0])] + [(0, 0)] * (a.ndim - 1)
    return jnp.pad(a, widths, constant_values=fill).reshape(tiles, size, *a.shape[1:])


def _scaled(z: Array, top: Array, eps: Array) -> tuple[Array, Array]:
    """What does not underflow, and `(z - top)/eps` there, 0 elsewhere: no 0 * inf in a derivative."""
    gap = z - top[:, None]
    warm = jnp.where(eps > 0, eps, 1.0)
    alive = gap > float(np.log(float(jnp.finfo(z.dtype).tiny))) * warm
    return alive, jnp.where(alive, gap, 0.0) / warm


def _weights(z: Array, top: Array, eps: Array) -> Array:
    """`exp((z - top)/eps)`, at `eps = 0` one for what is tied with the top up to rounding."""
    alive, scaled = _scaled(z, top, eps)
    soft = jnp.where(alive, jnp.exp(scaled), 0.0)
    slack = 8 * jnp.finfo(z.dtype).eps * jnp.abs(top)[:, None]
    return jnp.where(eps > 0, soft, (z - top[:, None] >= -slack).astype(z.dtype))


def _shift(top: Array) -> Array:
    return jnp.where(jnp.isfinite(top), top, 0.0)


def _scores(x: Array, w: Array, b: Array) -> Array:
    return x @ w.T + b[None, :]


def _stream(
    X: Array, W: Array, b: Array, V: Array, eps: Array, tile: tuple[int, int]
) -> tuple[Array, Array, Array]:
    """Row maxima (n,), `sum_j exp((z_ij - max_i)/eps) V_j`, (n, k), and that sum of 1 less 1, (n,)."""
    atoms = min(tile[1], W.shape[0])
    stored = (_tiled(W, atoms), _tiled(b, atoms, -jnp.inf), _tiled(V, atoms))

    def row(x: Array) -> tuple[Array, Array, Array]:
        @jax.checkpoint  # second derivatives recompute the scores of a tile
        def column(carry: tuple[Array, Array, Array], part: tuple[Array, Array, Array]):
            top, acc, rest = carry
            w, offset, v = part
            z = _scores(x, w, offset)
            new = jnp.max(z, axis=1) > top
            first = new[:, None] & (jnp.arange(z.shape[1])[None] == jnp.argmax(z, axis=1)[:, None])
            higher = jax.lax.stop_gradient(jnp.maximum(top, jnp.max(z, axis=1)))
            shift = _shift(higher)
            fade = _weights(top[:, None], shift, eps)
            weights = _weights(z, shift, eps)
            # The largest weight is 1: taken off its own entry, which keeps its derivative.
            others = jnp.sum(weights - first, axis=1) + jnp.where(new, fade[:, 0], 0.0)
            return (higher, acc * fade + weights @ v, rest * fade[:, 0] + others), None

        start = (
            jnp.full(x.shape[0], -jnp.inf, x.dtype),
            jnp.zeros((x.shape[0], V.shape[1]), x.dtype),
            jnp.zeros(x.shape[0], x.dtype),
        )
        return jax.lax.scan(column, start, stored)[0]

    queries = min(tile[0], max(X.shape[0], 1))
    found = jax.lax.map(row, _tiled(X, queries))
    top, acc, rest = (jax.lax.collapse(a, 0, 2)[: X.shape[0]] for a in found)
    return top, acc, rest


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _value(tile: tuple[int, int], X: Array, W: Array, b: Array, eps: Array) -> Array:
    top, _, rest = _stream(X, W, b, W[:, :0], eps, tile)
    return _assembled(top, rest, eps)


def _assembled(top: Array, rest: Array, eps: Array) -> Array:
    soft = top + eps * jnp.log1p(rest)
    value = jnp.where((eps > 0) & jnp.isfinite(top), soft, top)
    return jnp.where(eps >= 0, value, jnp.nan)


def _forward(tile: tuple[int, int], X: Array, W: Array, b: Array, eps: Array):
    top, acc, rest = _stream(X, W, b, W, eps, tile)
    slope = acc / (1.0 + rest)[:, None]
    return _assembled(top, rest, eps), (X, W, b, eps, top, rest, slope)


def _backward(tile: tuple[int, int], kept: tuple[Array, ...], ct: Array):
    X, W, b, eps, top, rest, slope = kept
    ct = jnp.where(jnp.isfinite(top), ct, 0.0)
    queries = min(tile[0], max(X.shape[0], 1))
    # Queries that fill up the last tile lie infinitely below their maximum: weight 0, not inf * 0.
    far = float(jnp.finfo(X.dtype).max)
    rows = _tiled(X, queries), _tiled(_shift(top), queries, far), _tiled(ct / (1.0 + rest), queries)

    def column(part: tuple[Array, Array]) -> tuple[Array, Array]:
        w, offset = part

        @jax.checkpoint
        def row(carry: tuple[Array, Array], stored: tuple[Array, Array, Array]):
            acc, heat = carry
            x, shift, share = stored
            z = _scores(x, w, offset)
            mass = _weights(z, shift, eps) * share[:, None]
            with_one = jnp.concatenate([x, jnp.ones_like(x[:, :1])], axis=1)
            alive, scaled = _scaled(z, shift, eps)
            heat = heat + jnp.sum(jnp.where(alive & (eps > 0), mass * scaled, 0.0))
            return (acc + mass.T @ with_one, heat), None

        start = jnp.zeros((w.shape[0], w.shape[1] + 1), w.dtype), jnp.zeros((), w.dtype)
        return jax.lax.scan(row, start, rows)[0]

    atoms = min(tile[1], W.shape[0])
    both, heat = jax.lax.map(column, (_tiled(W, atoms), _tiled(b, atoms, -jnp.inf)))
    both = both.reshape(-1, both.shape[-1])[: W.shape[0]]
    # Entropy: log(sum e) - E[(z - top)/eps], two terms of one sign, never as (f - E[z])/eps, which
    # cancels at small eps.
    entropy = jnp.sum(ct * jnp.log1p(rest)) - jnp.sum(heat)
    return ct[:, None] * slope, both[:, :-1], both[:, -1], entropy


_value.defvjp(_forward, _backward)

# Called outside `jit`, loops would be compiled anew each time.
_compiled_value = jax.jit(_value, static_argnums=0)
_compiled_stream = jax.jit(_stream, static_argnums=5)

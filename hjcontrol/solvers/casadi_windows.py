r"""Windows, orders and scatters of CasADi scalars.

    reduce_window, conv      a table of positions says which entries stand in each window
    sort, top_k, argmax      exchanges of neighbours, each a choice: equal keys keep their order
    scatter-add, -mul, ..    where each update lands is known; it is combined with what stands there

The order of numbers is where a sort has a kink. Away from ties slopes agree with JAX's.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import casadi as ca
import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import JaxprEqn

from hjcontrol.solvers.casadi_scalars import is_symbolic, lifted


def _windows(
    shape: Sequence[int],
    window: Sequence[int],
    strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    dilation: tuple[Sequence[int], Sequence[int]],
) -> np.ndarray:
    """Positions in an array of `shape`, `(*out, *window)`; -1 where a window reaches into the padding
    or between entries. `dilation`: of the array, of the window."""
    base, inner = dilation
    places = np.arange(math.prod(shape)).reshape(tuple(shape))
    for axis, (by, (low, high)) in enumerate(zip(base, padding, strict=True)):
        spread = np.full(
            [(s - 1) * by + 1 if a == axis else s for a, s in enumerate(places.shape)], -1
        )
        at = [slice(None)] * places.ndim
        at[axis] = slice(None, None, by)
        spread[tuple(at)] = places
        kept = range(max(0, -low), spread.shape[axis] - max(0, -high))  # a negative padding cuts
        spread = spread.take(kept, axis)
        width = [(0, 0)] * places.ndim
        width[axis] = (max(low, 0), max(high, 0))
        places = np.pad(spread, width, constant_values=-1)
    reach = [(w - 1) * d + 1 for w, d in zip(window, inner, strict=True)]
    found = np.lib.stride_tricks.sliding_window_view(places, reach)
    out = tuple(slice(None, None, s) for s in strides)
    return found[(*out, *(slice(None, None, d) for d in inner))]


def _reduce_window(pair: Callable[[ca.SX, ca.SX], ca.SX], empty: float) -> Callable[..., Any]:
    def rule(eqn: JaxprEqn, x: Any) -> Any:
        p = eqn.params
        dilation = (p["base_dilation"], p["window_dilation"])
        size = p["window_dimensions"]
        places = _windows(x.shape, size, p["window_strides"], p["padding"], dilation)
        pool, out = lifted(x).ravel(), np.empty(places.shape[: x.ndim], object)
        for at in np.ndindex(out.shape):
            inside = [pool[i] for i in places[at].ravel() if i >= 0]
            best = inside[0] if inside else ca.SX(empty)
            for e in inside[1:]:
                best = pair(best, e)
            out[at] = best
        return out

    return rule


def _conv(eqn: JaxprEqn, x: Any, kernel: Any) -> Any:
    p = eqn.params
    dims, groups = p["dimension_numbers"], p["feature_group_count"]
    if p["batch_group_count"] != 1:
        return NotImplemented
    x, kernel = lifted(x).transpose(dims.lhs_spec), lifted(kernel).transpose(dims.rhs_spec)
    dilation = (p["lhs_dilation"], p["rhs_dilation"])
    places = _windows(x.shape[2:], kernel.shape[2:], p["window_strides"], p["padding"], dilation)
    ahead = places.shape[: x.ndim - 2]
    out = np.empty((x.shape[0], kernel.shape[0], *ahead), object)
    channels, share = kernel.shape[1], kernel.shape[0] // groups
    for b, o in np.ndindex(out.shape[:2]):
        pools = [x[b, o // share * channels + c].ravel() for c in range(channels)]
        weights = [kernel[o, c].ravel() for c in range(channels)]
        for at in np.ndindex(ahead):
            window = list(enumerate(places[at].ravel()))
            terms = [
                pool[i] * w[j]
                for pool, w in zip(pools, weights, strict=True)
                for j, i in window
                if i >= 0
            ]
            out[(b, o, *at)] = sum(terms, ca.SX(0.0))
    return out.transpose(np.argsort(dims.out_spec))


def _exchange(rows: list[np.ndarray], i: int, j: int, ordered: ca.SX) -> None:
    """Entries `i` and `j` of every row, as they are if `ordered`, else exchanged."""
    for row in rows:
        a, b = row[i], row[j]
        row[i], row[j] = ca.if_else(ordered, a, b), ca.if_else(ordered, b, a)


def _sort(eqn: JaxprEqn, *operands: Any) -> Any:
    if eqn.params["num_keys"] != 1:
        return NotImplemented
    axis = eqn.params["dimension"]
    moved = [np.moveaxis(lifted(a), axis, -1).copy() for a in operands]
    n = moved[0].shape[-1]
    for at in np.ndindex(moved[0].shape[:-1]):
        rows = [a[at] for a in moved]
        for end in range(n - 1, 0, -1):
            for i in range(end):
                _exchange(rows, i, i + 1, rows[0][i] <= rows[0][i + 1])
    return [np.moveaxis(a, -1, axis) for a in moved]


def _top_k(eqn: JaxprEqn, x: Any) -> Any:
    k = eqn.params["k"]
    axis = eqn.params.get("axis", -1) % x.ndim
    values = np.moveaxis(lifted(x), axis, -1).copy()
    places = lifted(np.broadcast_to(np.arange(values.shape[-1]), values.shape)).copy()
    for at in np.ndindex(values.shape[:-1]):
        rows = [values[at], places[at]]
        for done in range(k):
            for i in range(values.shape[-1] - 1, done, -1):
                _exchange(rows, i - 1, i, rows[0][i - 1] >= rows[0][i])
    return [np.moveaxis(a[..., :k], -1, axis) for a in (values, places)]


def _arg(better: Callable[[ca.SX, ca.SX], ca.SX]) -> Callable[..., Any]:
    def rule(eqn: JaxprEqn, x: Any) -> Any:
        (axis,) = eqn.params["axes"]
        rows = np.moveaxis(lifted(x), axis, -1)
        out = np.empty(rows.shape[:-1], object)
        for at in np.ndindex(out.shape):
            best, place = rows[at][0], ca.SX(0)
            for i, e in enumerate(rows[at][1:], 1):
                found = better(e, best)
                best, place = ca.if_else(found, e, best), ca.if_else(found, i, place)
            out[at] = place
        return out

    return rule


def _scatter(pair: Callable[[ca.SX, ca.SX], ca.SX]) -> Callable[..., Any]:
    def rule(eqn: JaxprEqn, operand: Any, indices: Any, updates: Any) -> Any:
        if is_symbolic(indices):
            return NotImplemented
        p = eqn.params
        zeros = jnp.zeros(operand.shape)
        land = lambda unit: jax.lax.scatter_add(
            zeros,
            jnp.asarray(indices),
            unit.reshape(updates.shape),
            p["dimension_numbers"],
            mode=p["mode"],
        )
        lands = np.asarray(jax.vmap(land)(jnp.eye(updates.size)))
        out, entries = lifted(operand).ravel().copy(), lifted(updates).ravel()
        for j, i in np.argwhere(lands.reshape(updates.size, -1)):
            out[i] = pair(out[i], entries[j])
        return out.reshape(operand.shape)

    return rule


WINDOWS: dict[str, Callable[..., Any]] = {
    "argmax": _arg(lambda a, b: a > b),
    "argmin": _arg(lambda a, b: a < b),
    "conv_general_dilated": _conv,
    "reduce_window_max": _reduce_window(ca.fmax, -math.inf),
    "reduce_window_min": _reduce_window(ca.fmin, math.inf),
    "reduce_window_sum": _reduce_window(lambda a, b: a + b, 0.0),
    "scatter-add": _scatter(lambda a, b: a + b),
    "scatter-max": _scatter(ca.fmax),
    "scatter-min": _scatter(ca.fmin),
    "scatter-mul": _scatter(lambda a, b: a * b),
    "sort": _sort,
    "top_k": _top_k,
}

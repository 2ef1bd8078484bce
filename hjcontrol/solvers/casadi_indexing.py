r"""Primitives that move entries without computing: on symbols they are moves of positions.

    out = pool[positions]          positions = the same primitive applied to 0, 1, 2, ...

Where the place itself is a symbol (a label picks its logit), the value is a choice among all places:
    x[s] = x_0 if s <= 0, x_1 if s = 1, ..., x_last if s >= last      (out of range is clamped)
"""

from collections.abc import Callable, Sequence
from typing import Any

import casadi as ca
import jax.numpy as jnp
import numpy as np
from jax.extend.core import JaxprEqn

from hjcontrol.solvers.casadi_scalars import box, is_symbolic, lifted, mapped

# Which inputs carry data; the others say where it goes.
_DATA = {
    "dynamic_slice": (0,),
    "dynamic_update_slice": (0, 1),
    "gather": (0,),
    "pad": (0, 1),
    "scatter": (0, 2),
}


def _by_position(eqn: JaxprEqn, *inputs: Any) -> Any:
    data = _DATA[eqn.primitive.name]
    if any(is_symbolic(a) for i, a in enumerate(inputs) if i not in data):
        return NotImplemented
    pool, probes = [], list(inputs)
    for i in data:
        entries = lifted(inputs[i])
        start = sum(len(p) for p in pool)
        probes[i] = np.arange(start, start + entries.size, dtype=np.int32).reshape(entries.shape)
        pool.append(entries.ravel())
    params = dict(eqn.params)
    if "fill_value" in params:
        params["fill_value"] = -1
    positions = np.asarray(eqn.primitive.bind(*map(jnp.asarray, probes), **params))
    # -1: out of range
    return _arrayed(np.concatenate([*pool, lifted(np.full(1, np.nan))])[positions])


def _arrayed(entry: Any) -> np.ndarray:
    """An entry that NumPy handed out bare, as an array without axes again."""
    return entry if isinstance(entry, np.ndarray) else box([entry], ())


def _window(operand: np.ndarray, starts: Sequence[Any], sizes: Sequence[int]) -> np.ndarray:
    """The window of `sizes` at `starts`, each start a number or a symbol, clamped into range."""
    for axis, (start, size) in enumerate(zip(starts, sizes, strict=True)):
        last = operand.shape[axis] - size
        cut = [operand.take(range(s, s + size), axis) for s in range(last + 1)]
        if not isinstance(start, ca.SX):
            operand = cut[int(np.clip(start, 0, last))]
            continue
        operand = cut[last]
        for s in reversed(range(last)):
            here = start <= s
            operand = mapped(lambda a, b, here=here: ca.if_else(here, a, b), cut[s], operand)
    return operand


def _dynamic_slice(eqn: JaxprEqn, operand: Any, *starts: Any) -> Any:
    if not any(is_symbolic(s) for s in starts):
        return _by_position(eqn, operand, *starts)
    places = [s.item() if is_symbolic(s) else int(s) for s in starts]
    return _window(lifted(operand), places, eqn.params["slice_sizes"])


def _gather(eqn: JaxprEqn, operand: Any, indices: Any) -> Any:
    if not is_symbolic(indices):
        return _by_position(eqn, operand, indices)
    operand, dims = lifted(operand), eqn.params["dimension_numbers"]
    dropped = (*dims.collapsed_slice_dims, *dims.operand_batching_dims)
    shape = eqn.outvars[0].aval.shape
    batch = [i for i in range(len(shape)) if i not in dims.offset_dims]
    out = np.empty(shape, object)
    for b in np.ndindex(*[shape[i] for i in batch]):
        starts: list[Any] = [0] * operand.ndim
        for axis, place in zip(dims.start_index_map, indices[b], strict=True):
            starts[axis] = place
        for axis, i in zip(
            dims.operand_batching_dims, dims.start_indices_batching_dims, strict=True
        ):
            starts[axis] = b[i]
        window = _window(operand, starts, eqn.params["slice_sizes"])
        window = window.reshape([s for i, s in enumerate(window.shape) if i not in dropped])
        at: list[Any] = [slice(None)] * len(shape)
        for i, place in zip(batch, b, strict=True):
            at[i] = place
        out[tuple(at)] = window if window.ndim else window.item()
    return out


def _broadcast(eqn: JaxprEqn, x: Any) -> Any:
    shape, dims = eqn.params["shape"], eqn.params["broadcast_dimensions"]
    kept = [1] * len(shape)
    for axis, dim in enumerate(dims):
        kept[dim] = x.shape[axis]
    return np.broadcast_to(x.reshape(kept), shape)


def _slice(eqn: JaxprEqn, x: Any) -> Any:
    p = eqn.params
    steps = p["strides"] or (1,) * x.ndim
    return x[tuple(map(slice, p["start_indices"], p["limit_indices"], steps))]


def _unstack(eqn: JaxprEqn, x: Any) -> Any:
    axis = eqn.params["axis"]
    return [_arrayed(part) for part in np.moveaxis(x, axis, 0)]


INDEXING: dict[str, Callable[..., Any]] = {
    "broadcast_in_dim": _broadcast,
    "concatenate": lambda eqn, *xs: np.concatenate(
        [lifted(x) for x in xs], eqn.params["dimension"]
    ),
    "dynamic_slice": _dynamic_slice,
    "dynamic_update_slice": _by_position,
    "gather": _gather,
    "pad": _by_position,
    "reshape": lambda eqn, x: x.reshape(eqn.params["new_sizes"]),
    "rev": lambda eqn, x: np.flip(x, eqn.params["dimensions"]),
    "scatter": _by_position,
    "slice": _slice,
    "split": lambda eqn, x: np.split(x, np.cumsum(eqn.params["sizes"])[:-1], eqn.params["axis"]),
    "stack": lambda eqn, *xs: np.stack([lifted(x) for x in xs], eqn.params["axis"]),
    "squeeze": lambda eqn, x: x.reshape(eqn.outvars[0].aval.shape),
    "tile": lambda eqn, x: np.tile(x, eqn.params["reps"]),
    "transpose": lambda eqn, x: x.transpose(eqn.params["permutation"]),
    "unstack": _unstack,
}

r"""The arithmetic of a program: its lowest dtype, its roundoff measured, and the same in 64 bits.

    noise     every equation's floating output times 1 + eps u, u = +-1, eps of *that* equation's dtype;
              inputs of sums and products over many terms, and of decompositions, likewise
    promoted  every floating value in 64 bits, casts between floats dropped

Noise says how far two right formulas may differ; promotion asks whether a formula is right, whatever
the dtype it runs in.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn
from jaxtyping import Array

from hjcontrol._ground.jaxprs import bind, descend, equations, replay
from hjcontrol.verification.references import is_ref

SUMS = frozenset(
    {
        "dot_general",
        "conv_general_dilated",
        "reduce_sum",
        "cumsum",
        "reduce_prod",
        "cumprod",
        "reduce_window_sum",
        "scatter-add",
        "cholesky",
        "custom_linear_solve",
        "eigh",
        "lu",
        "qr",
        "svd",
        "triangular_solve",
        "tridiagonal_solve",
    }
)
# A linear solve that is left in a primal is JAX's own, and stays whole: its solve has no derivative.
WHOLE = "custom_linear_solve"
OPAQUE = frozenset({"pallas_call", "pure_callback", "io_callback", "custom_call", "ffi_call"})


def hashed(shape: tuple[int, ...], seed: Any, salt: int) -> Array:
    """Uniform in [0, 1), shape `shape`: a few integer operations an element, so that drawing compiles
    and runs in no time. `seed`: an integer array or number."""
    size = int(np.prod(shape))
    h = jax.lax.iota(jnp.uint32, max(size, 1)) * np.uint32(2654435761)
    h = (
        h
        + jnp.asarray(seed).astype(jnp.uint32) * np.uint32(40503)
        + np.uint32((salt * 97 + 13) % 2**32)
    )
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        h = (h ^ (h >> np.uint32(shift))) * np.uint32(factor)
    h = h ^ (h >> np.uint32(16))
    return ((h >> np.uint32(8)).astype(jnp.float32) * 2.0**-24)[:size].reshape(shape)


def drawn(shape: tuple[int, ...], dtype: Any, seed: Any, salt: int) -> Array:
    """A random costate: signs, with sizes in [1/2, 3/2) so that equal entries do not cancel."""
    if jnp.issubdtype(dtype, jnp.complexfloating):
        part = np.finfo(dtype).dtype
        parts = (drawn(shape, part, seed, salt + i) for i in (0, 1))
        return jax.lax.complex(*parts)
    u = hashed(shape, seed, salt)
    sign = jnp.where(u < 0.5, -1.0, 1.0)
    return (sign * (0.5 + 2 * jnp.abs(u - 0.5))).astype(dtype)


def lowest(closed: ClosedJaxpr) -> np.dtype | None:
    """The coarsest floating dtype of any value in a program."""
    atoms = [v for e in equations(closed.jaxpr) for v in (*e.invars, *e.outvars)]
    atoms += [*closed.jaxpr.invars, *closed.jaxpr.outvars]
    found = {v.aval.dtype for v in atoms if is_float(v.aval)}
    return max(found, key=lambda d: float(jnp.finfo(d).eps), default=None)


def is_float(value: Any) -> bool:
    """Whether a value, or what stands for one, is floating or complex."""
    return not is_ref(value) and jnp.issubdtype(getattr(value, "dtype", np.dtype(int)), jnp.inexact)


def eps_of(dtype: Any) -> float:
    """Spacing of a floating dtype at 1."""
    return float(jnp.finfo(dtype).eps)


def noisy(closed: ClosedJaxpr, seed: Any) -> Callable[..., list[Any]]:
    """The program with roundoff made at random in every equation."""
    count = iter(range(1, 1 << 30))

    def shaken(value: Any) -> Any:
        if not is_float(value) or not np.size(value):
            return value
        u = jnp.where(hashed(jnp.shape(value), seed, next(count)) < 0.5, -1.0, 1.0)
        return value * (1 + eps_of(value.dtype) * u).astype(
            np.finfo(value.dtype).dtype
            if jnp.issubdtype(value.dtype, jnp.complexfloating)
            else value.dtype
        )

    def rule(eqn: JaxprEqn, inputs: list[Any]) -> Sequence[Any]:
        if eqn.primitive.name in SUMS:
            inputs = [shaken(a) for a in inputs]
        if eqn.primitive.name in _WHOLE or not any(is_float(v.aval) for v in eqn.outvars):
            inputs = [_settled(a) for a in inputs]
        found = None if eqn.primitive.name == WHOLE else descend(eqn, inputs, rule)
        if found is not None:
            return found
        outs = bind(eqn, inputs)
        exact = eqn.primitive.name in _EXACT or not any(map(is_float, inputs))
        return outs if exact else [shaken(a) for a in outs]

    return lambda *args: replay(closed, args, rule)


def _settled(value: Any) -> Any:
    """A whole number again what roundoff made of one: no index jumps by it."""
    if not is_float(value) or jnp.iscomplexobj(value):
        return value
    near = jnp.round(value)
    return jnp.where(jnp.abs(value - near) <= 8 * eps_of(value.dtype) * jnp.abs(near), near, value)


_WHOLE = frozenset({"floor", "ceil", "round"})

# Their values are copies of their inputs, or whole numbers: nothing is rounded.
_EXACT = frozenset(
    {
        "reshape",
        "broadcast_in_dim",
        "transpose",
        "slice",
        "dynamic_slice",
        "concatenate",
        "squeeze",
        "select_n",
        "neg",
        "copy",
        "copy_p",
        "max",
        "min",
        "reduce_max",
        "reduce_min",
        "sort",
        "gather",
        "rev",
        "pad",
        "stop_gradient",
        "sign",
        "abs",
        "expand_dims",
        *_WHOLE,
    }
)


def promoted(closed: ClosedJaxpr) -> Callable[..., list[Any]]:
    """The program with every floating value in 64 bits. Call it inside `jax.enable_x64(True)`.

    A body that cannot be rewritten (a kernel, a host callback) is cast in and out.
    """

    def rule(eqn: JaxprEqn, inputs: list[Any]) -> Sequence[Any]:
        name, p = eqn.primitive.name, eqn.params
        found = descend(eqn, inputs, rule)
        if found is not None:
            return [wide(a) for a in found]
        wanted = [v.aval.dtype for v in eqn.invars if hasattr(v.aval, "dtype")]
        if name in OPAQUE or len(wanted) != len(inputs):
            cast = [_cast(a, v.aval.dtype) for a, v in zip(inputs, eqn.invars, strict=True)]
            return [wide(a) for a in bind(eqn, cast)]
        if name == "convert_element_type" and jnp.issubdtype(p["new_dtype"], jnp.inexact):
            return [wide(jnp.asarray(inputs[0]).astype(_wider(p["new_dtype"])))]
        if name == "reduce_precision":
            return [inputs[0]]
        inputs = [wide(a) for a in inputs]
        new = dict(p)
        for key in ("preferred_element_type", "dtype", "new_dtype"):
            if new.get(key) is not None and jnp.issubdtype(new[key], jnp.inexact):
                new[key] = _wider(new[key])
        new |= {k: _body(v) for k, v in p.items() if isinstance(v, (Jaxpr, ClosedJaxpr))}
        if name == "bitcast_convert_type":
            cast = [_cast(a, v.aval.dtype) for a, v in zip(inputs, eqn.invars, strict=True)]
            return [wide(a) for a in bind(eqn, cast)]
        out = eqn.primitive.bind(*inputs, **new)
        return [wide(a) for a in (out if eqn.primitive.multiple_results else [out])]

    return lambda *args: replay(_widened(closed), [wide(a) for a in args], rule)


def _body(body: Any) -> Any:
    """What combines two elements (of a scatter, of a reduction), in 64 bits."""
    closed = body if isinstance(body, ClosedJaxpr) else ClosedJaxpr(body, ())
    number = lambda v: _wider(v.aval.dtype) if is_float(v.aval) else v.aval.dtype
    at = [jax.ShapeDtypeStruct(v.aval.shape, number(v)) for v in closed.jaxpr.invars]
    found = jax.make_jaxpr(promoted(closed))(*at)
    return found if body is closed else found.jaxpr


def _widened(closed: ClosedJaxpr) -> ClosedJaxpr:
    return ClosedJaxpr(closed.jaxpr, [wide(c) for c in closed.consts])


def wide(value: Any) -> Any:
    """A floating value in 64 bits; anything else as it is."""
    return _cast(value, _wider(value.dtype)) if is_float(value) else value


def _wider(dtype: Any) -> Any:
    return np.dtype(np.complex128 if jnp.issubdtype(dtype, jnp.complexfloating) else np.float64)


def _cast(value: Any, dtype: Any) -> Any:
    return value if getattr(value, "dtype", dtype) == dtype else jnp.asarray(value).astype(dtype)

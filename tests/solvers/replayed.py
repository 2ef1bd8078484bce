"""For every primitive that the replay supports, JAX functions that use it, with their domains.

A case is a function of one vector; `points` are extra arguments, where kinks and ties lie.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


@dataclasses.dataclass(frozen=True)
class Case:
    """`function` of a vector of `size` entries in `[low, high]`."""

    function: Callable
    low: float = -2.0
    high: float = 2.0
    size: int = 6
    points: tuple = ()
    distinct: bool = False  # no ties: JAX shares them in an order of its own


ZERO = (0.0,) * 6
TIES = ((1.0, 1.0, 1.0, 1.0, 1.0, 1.0), (1.0, 2.0, 2.0, 0.0, 2.0, -1.0))


def pair(f, **domain):
    """A function of the two halves of the vector."""
    return Case(lambda x: f(x[:3], x[3:]), **domain)


def chosen(f):
    """Uses the truth values `f(first half, second half)` to choose."""
    return pair(lambda a, b: jnp.where(f(a, b), a * b, jnp.sin(a)))


def both(truth):
    return lambda a, b: truth(a > 0, b > 0)


def add_any(x):
    return jax.vjp(lambda y: jnp.sin(y) * y, x)[1](x)[0]


def counted(x):
    return lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, c[1] * jnp.sin(c[1])), (0, x))[1]


def labelled(x):
    label = (x[0] > 0).astype(int) + (x[1] > 0)
    return lax.dynamic_slice(x, (label,), (3,)) * x[:3]


def gathered(x):
    rows = x.reshape(3, 2)
    which = (rows[:, :1] > 0).astype(int)
    return jnp.take_along_axis(jnp.exp(rows), which, axis=1)


def folded(x):
    return lax.scan(lambda c, a: (c * jnp.cos(a), c + a), 1.0, x, reverse=True)[1]


CASES = {
    "abs": [Case(jnp.abs, points=(ZERO,))],
    "acos": [Case(jnp.arccos, -0.9, 0.9)],
    "acosh": [Case(jnp.arccosh, 1.2, 4.0)],
    "add": [pair(lambda a, b: a + b)],
    "add_any": [Case(add_any)],
    "and": [chosen(both(jnp.logical_and))],
    "asin": [Case(jnp.arcsin, -0.9, 0.9)],
    "asinh": [Case(jnp.arcsinh)],
    "atan": [Case(jnp.arctan)],
    "atan2": [pair(jnp.arctan2, low=0.2)],
    "atanh": [Case(jnp.arctanh, -0.9, 0.9)],
    "broadcast_in_dim": [Case(lambda x: jnp.broadcast_to(x[:, None], (6, 2)) * x[0])],
    "cbrt": [Case(jnp.cbrt, 0.2, 8.0), Case(jnp.cbrt, -8.0, -0.2)],
    "ceil": [Case(lambda x: jnp.ceil(x) * x)],
    "clamp": [Case(lambda x: lax.clamp(-1.0, x, 1.0), points=((1.0, -1.0, 0.0, 2.0, 3.0, -4.0),))],
    "concatenate": [Case(lambda x: jnp.concatenate([x[3:], jnp.ones(2), x[:2]]))],
    "cond": [Case(lambda x: lax.cond(x[0] > 0, jnp.sin, jnp.cos, x))],
    "convert_element_type": [
        Case(lambda x: (x > 0).astype(float) * x),
        Case(lambda x: x.astype(int) * x),
        Case(lambda x: jnp.where(x.astype(bool), jnp.exp(x), x), points=(ZERO,)),
    ],
    "copy": [Case(lambda x: jnp.array(x, copy=True) ** 2)],
    "cos": [Case(jnp.cos)],
    "cosh": [Case(jnp.cosh)],
    "cummax": [Case(lax.cummax, distinct=True)],
    "cummin": [Case(lambda x: lax.cummin(x, reverse=True), distinct=True)],
    "cumprod": [Case(lax.cumprod)],
    "cumsum": [Case(lambda x: lax.cumsum(x.reshape(2, 3), axis=1))],
    "div": [
        pair(lambda a, b: a / b, low=0.2),
        pair(lambda a, b: a * ((4 * b).astype(int) // 3)),
    ],
    "dot_general": [
        pair(lambda a, b: a @ b),
        Case(lambda x: x.reshape(2, 3) @ x.reshape(3, 2)),
        Case(lambda x: jnp.einsum("bi,bj->bij", x.reshape(3, 2), jnp.sin(x).reshape(3, 2))),
    ],
    "dynamic_slice": [
        Case(lambda x: lax.dynamic_slice(x, (jnp.asarray(2),), (3,)) ** 2),
        Case(labelled),
    ],
    "dynamic_update_slice": [
        Case(lambda x: lax.dynamic_update_slice(x, jnp.sin(x[:2]), (jnp.asarray(3),)))
    ],
    "eq": [Case(lambda x: jnp.where(jnp.round(x) == 1.0, x**2, x))],
    "erf": [Case(lax.erf)],
    "erfc": [Case(lax.erfc)],
    "exp": [Case(jnp.exp)],
    "exp2": [Case(jnp.exp2)],
    "expm1": [Case(jnp.expm1, points=((1e-9, -1e-12, 0.0, 1e-5, 1.0, 2.0),))],
    "floor": [Case(lambda x: jnp.floor(x) * x)],
    "gather": [Case(lambda x: x[jnp.array([4, 0, 4])] * x[:3]), Case(gathered)],
    "ge": [chosen(lambda a, b: a >= b)],
    "gt": [chosen(lambda a, b: a > b)],
    "integer_pow": [Case(lambda x: x**5), Case(lambda x: x**-3, 0.3, 2.0)],
    "is_finite": [Case(lambda x: jnp.where(jnp.isfinite(x), x**2, 0.0))],
    "le": [chosen(lambda a, b: a <= b)],
    "log": [Case(jnp.log, 0.2, 4.0)],
    "log1p": [Case(jnp.log1p, -0.5, 3.0, points=((1e-9, -1e-12, 0.0, 1e-5, 1.0, 2.0),))],
    "logistic": [Case(lax.logistic, points=(ZERO, (800.0, -800.0, 40.0, -40.0, 1e-300, -1e-300)))],
    "lt": [chosen(lambda a, b: a < b)],
    "max": [pair(jnp.maximum, points=TIES), Case(jax.nn.relu, points=(ZERO,))],
    "min": [pair(jnp.minimum, points=TIES)],
    "mul": [pair(lambda a, b: a * b)],
    "ne": [Case(lambda x: jnp.where(jnp.round(x) != 1.0, x**2, x))],
    "neg": [Case(lambda x: -x)],
    "not": [chosen(both(lambda p, q: ~p))],
    "or": [chosen(both(jnp.logical_or))],
    "pad": [
        Case(lambda x: lax.pad(x, x[0], [(1, 2, 1)])),
        Case(lambda x: lax.pad(x, 0.0, [(-1, 1, 0)])),
    ],
    "pow": [
        Case(lambda x: x**2.5, 0.2, 3.0),
        pair(lambda a, b: a**b, low=0.2),
    ],
    "reduce_and": [Case(lambda x: jnp.where(jnp.all(x > -1), x, x**2))],
    "reduce_max": [
        Case(lambda x: jnp.max(x), points=TIES),
        Case(lambda x: jnp.max(x.reshape(3, 2), axis=0), points=TIES),
    ],
    "reduce_min": [Case(lambda x: jnp.min(x), points=TIES)],
    "reduce_or": [Case(lambda x: jnp.where(jnp.any(x > 1), x, x**2))],
    "reduce_precision": [Case(lambda x: lax.reduce_precision(x, 11, 52))],
    "reduce_prod": [Case(lambda x: jnp.prod(x.reshape(3, 2), axis=1))],
    "reduce_sum": [Case(lambda x: jnp.sum(x.reshape(3, 2), axis=1) * jnp.sum(x))],
    "rem": [pair(lax.rem, low=0.3)],
    "reshape": [Case(lambda x: x.reshape(3, 2) * x.reshape(3, 2)[:1])],
    "rev": [Case(lambda x: jnp.flip(x) * x)],
    "round": [
        Case(lambda x: jnp.round(x) * x, points=((0.5, 1.5, 2.5, -0.5, -1.5, -2.5),)),
        Case(lambda x: lax.round(x) * x, points=((0.5, 1.5, 2.5, -0.5, -1.5, -2.5),)),
    ],
    "rsqrt": [Case(lax.rsqrt, 0.2, 4.0)],
    "scan": [Case(folded)],
    "scatter": [Case(lambda x: x.at[jnp.array([1, 4])].set(jnp.sin(x[:2])))],
    "select_n": [
        chosen(lambda a, b: a > b),
        Case(lambda x: lax.select_n((x > 0).astype(np.int32) + (x > 1), x, x**2, x**3)),
        Case(lambda x: jnp.where(jnp.arange(6) < 2, x, jnp.exp(x))),
    ],
    "sign": [Case(lambda x: jnp.sign(x) * x**2, points=(ZERO,))],
    "sin": [Case(jnp.sin)],
    "sinh": [Case(jnp.sinh)],
    "slice": [Case(lambda x: x[1:6:2] * x[:3])],
    "split": [Case(lambda x: jnp.split(x, [2, 3])[2] ** 2)],
    "sqrt": [Case(jnp.sqrt, 0.2, 4.0)],
    "square": [Case(lax.square)],
    "squeeze": [Case(lambda x: lax.squeeze(lax.slice(x, (1,), (2,)), (0,)) * x)],
    "stop_gradient": [Case(lambda x: lax.stop_gradient(jnp.exp(x)) * x)],
    "sub": [pair(lambda a, b: a - b)],
    "tan": [Case(jnp.tan, -1.2, 1.2)],
    "tanh": [Case(jnp.tanh, points=((30.0, -30.0, 400.0, 0.0, 1e-300, 1.0),))],
    "transpose": [Case(lambda x: x.reshape(3, 2).T @ x[:3])],
    "while": [Case(counted)],
    "xor": [chosen(both(jnp.logical_xor))],
}

r"""JAX primitives as rules on arrays of CasADi scalars.

    RULES[name](eqn, *inputs) -> outputs          one entry a primitive, one test row an entry

A symbolic value is a NumPy object array of `casadi.SX` scalars, a known one an ordinary array; so
broadcasting, reshaping and slicing are NumPy's. Derivatives are CasADi's, and agree with JAX's where
a function has a kink: `max` gives each side of a tie its equal share, `abs` has slope 1 at 0.
The running `cummax` and `cummin` share ties in their own way.
CasADi differentiates the branch that is not taken too and multiplies by 0, so no rule here lets an
untaken branch overflow.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import casadi as ca
import numpy as np
from jax.extend.core import JaxprEqn

from hjcontrol.solvers.casadi_indexing import INDEXING
from hjcontrol.solvers.casadi_linear import LINEAR
from hjcontrol.solvers.casadi_scalars import box, is_symbolic, lifted, mapped
from hjcontrol.solvers.casadi_windows import WINDOWS

Rule = Callable[..., Any]


def _logistic(x: ca.SX) -> ca.SX:
    e = ca.exp(ca.if_else(x >= 0, -x, x))
    return ca.if_else(x >= 0, 1.0, e) / (1.0 + e)


_SHIFT = 10  # Stirling's series has all digits from there on
_STIRLING = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360, 1 / 156)


def _lgamma(x: ca.SX) -> ca.SX:
    """log |Gamma(x)|: Stirling at x + 10, and below 1/2 by reflection."""
    low = x < 0.5
    y = ca.if_else(low, 1.0 - x, x)
    z = y + _SHIFT
    series = sum(c / z ** (2 * k + 1) for k, c in enumerate(_STIRLING))
    right = (z - 0.5) * ca.log(z) - z + 0.5 * math.log(2 * math.pi) + series
    right = right - ca.log(math.prod((y + k for k in range(1, _SHIFT)), start=y))
    s = ca.if_else(low, ca.fabs(ca.sin(math.pi * x)), 1.0)  # its slope is taken on that side alone
    return ca.if_else(low, math.log(math.pi) - ca.log(s) - right, right)


def _digamma(x: ca.SX) -> ca.SX:
    low = x < 0.5
    y = ca.if_else(low, 1.0 - x, x)
    z = y + _SHIFT
    series = sum((2 * k + 1) * c / z ** (2 * k + 2) for k, c in enumerate(_STIRLING))
    right = ca.log(z) - 0.5 / z - series - sum(1.0 / (y + k) for k in range(_SHIFT))
    t = ca.tan(math.pi * ca.if_else(low, x, 0.25))
    return ca.if_else(low, right - math.pi / t, right)


def log_sum(x: ca.SX, y: ca.SX) -> ca.SX:
    """`log(exp x + exp y)`."""
    first = x >= y
    return ca.if_else(first, x, y) + ca.log1p(ca.exp(ca.if_else(first, y - x, x - y)))


def _constant_call() -> ca.Function:
    x = ca.SX.sym("x")
    return ca.Function("stop_gradient", [x], [x], {"never_inline": True, "is_diff_in": [False]})


# A call that declares itself constant: the only way to hide a value from CasADi's derivatives.
_STOP = _constant_call()

ELEMENTWISE: dict[str, Callable[..., ca.SX]] = {
    "abs": lambda x: ca.if_else(x >= 0, x, -x),  # JAX's slope at 0 is 1
    "acos": ca.acos,
    "acosh": ca.acosh,
    "add": lambda x, y: x + y,
    "add_any": lambda x, y: x + y,
    "and": ca.logic_and,
    "asin": ca.asin,
    "asinh": ca.asinh,
    "atan": ca.atan,
    "atan2": ca.atan2,
    "atanh": ca.atanh,
    "cbrt": lambda x: ca.sign(x) * ca.fabs(x) ** (1.0 / 3.0),
    "ceil": ca.ceil,
    "clamp": lambda low, x, high: ca.if_else(x <= low, low, ca.if_else(x >= high, high, x)),
    "copy": lambda x: x,
    "cos": ca.cos,
    "cosh": ca.cosh,
    "digamma": _digamma,
    "eq": lambda x, y: x == y,
    "erf": ca.erf,
    "erfc": lambda x: 1.0 - ca.erf(x),
    "exp": ca.exp,
    "exp2": lambda x: ca.exp(math.log(2.0) * x),
    "expm1": ca.expm1,
    "floor": ca.floor,
    "ge": lambda x, y: x >= y,
    "gt": lambda x, y: x > y,
    "is_finite": lambda x: ca.fabs(x) < math.inf,
    "le": lambda x, y: x <= y,
    "le_to": lambda x, y: x <= y,
    "lgamma": _lgamma,
    "log": ca.log,
    "log1p": ca.log1p,
    "logistic": _logistic,
    "lt": lambda x, y: x < y,
    "lt_to": lambda x, y: x < y,
    "max": ca.fmax,  # CasADi's slope at a tie is 1/2 on each side, as JAX's
    "min": ca.fmin,
    "mul": lambda x, y: x * y,
    "name": lambda x: x,
    "ne": lambda x, y: x != y,
    "neg": lambda x: -x,
    "not": ca.logic_not,
    "or": ca.logic_or,
    "pow": lambda x, y: x**y,
    "reduce_precision": lambda x: x,
    "rem": ca.fmod,
    "rsqrt": lambda x: 1.0 / ca.sqrt(x),
    "sign": ca.sign,
    "sin": ca.sin,
    "sinh": ca.sinh,
    "sqrt": ca.sqrt,
    "square": lambda x: x * x,
    "stop_gradient": _STOP,
    "sub": lambda x, y: x - y,
    "tan": ca.tan,
    "tanh": ca.tanh,
    "xor": lambda x, y: x != y,
}


def _elementwise(function: Callable[..., ca.SX]) -> Rule:
    return lambda eqn, *inputs: mapped(function, *inputs)


def _boolean(eqn: JaxprEqn) -> bool:
    return all(v.aval.dtype == np.bool_ for v in eqn.invars)


def _logical(function: Callable[..., ca.SX]) -> Rule:
    """Rules of `and`, `or`, `not`, `xor`: on integers JAX means them bit by bit."""

    def rule(eqn: JaxprEqn, *inputs: Any) -> Any:
        return mapped(function, *inputs) if _boolean(eqn) else NotImplemented

    return rule


def _truncated(x: ca.SX) -> ca.SX:
    return ca.if_else(x >= 0, ca.floor(x), ca.ceil(x))


def _div(eqn: JaxprEqn, x: Any, y: Any) -> Any:
    quotient = mapped(lambda a, b: a / b, x, y)
    integral = np.issubdtype(eqn.outvars[0].aval.dtype, np.integer)
    return mapped(_truncated, quotient) if integral else quotient


def _convert(eqn: JaxprEqn, x: Any) -> Any:
    """Everything is a double in CasADi; only what changes the value does something."""
    before, after = eqn.invars[0].aval.dtype, eqn.params["new_dtype"]
    if after == np.bool_:
        return mapped(lambda a: a != 0, x)
    if np.issubdtype(after, np.integer) and not np.issubdtype(before, np.integer):
        return x if before == np.bool_ else mapped(_truncated, x)
    return x


def _to_even(x: ca.SX) -> ca.SX:
    up = ca.floor(x + 0.5)
    odd_half = ca.logic_and(x + 0.5 == up, ca.fmod(up, 2.0) != 0)
    return ca.if_else(odd_half, up - 1.0, up)


def _round(eqn: JaxprEqn, x: Any) -> Any:
    if int(eqn.params["rounding_method"]) == 1:
        return mapped(_to_even, x)
    return mapped(lambda a: ca.sign(a) * ca.floor(ca.fabs(a) + 0.5), x)


def _integer_pow(eqn: JaxprEqn, x: Any) -> Any:
    y = eqn.params["y"]
    return mapped(lambda a: a**y if y >= 0 else 1.0 / a ** (-y), x)


def _select_n(eqn: JaxprEqn, which: Any, *cases: Any) -> Any:
    """A known choice drops the other cases, and with them their derivatives."""
    if not is_symbolic(which):
        cases = tuple(lifted(c) for c in cases)
        which = np.broadcast_to(np.asarray(which).astype(int), cases[0].shape)
        return np.choose(which, cases) if which.ndim else cases[int(which)]

    def pick(w: ca.SX, *values: ca.SX) -> ca.SX:
        chosen = values[-1]
        for i in reversed(range(len(values) - 1)):
            chosen = ca.if_else(w <= i, values[i], chosen)
        return chosen

    if len(cases) == 2:  # a predicate, not an index
        return mapped(lambda w, no, yes: ca.if_else(w, yes, no), which, *cases)
    return mapped(pick, which, *cases)


def _dot_general(eqn: JaxprEqn, x: Any, y: Any) -> Any:
    (cx, cy), (bx, by) = eqn.params["dimension_numbers"]
    x, y = lifted(x), lifted(y)

    def arranged(a: np.ndarray, batch: Sequence[int], summed: Sequence[int]) -> tuple[Any, Any]:
        free = [i for i in range(a.ndim) if i not in (*batch, *summed)]
        shape = [math.prod(a.shape[i] for i in axes) for axes in (batch, free, summed)]
        return a.transpose((*batch, *free, *summed)).reshape(shape), [a.shape[i] for i in free]

    (left, rows), (right, columns) = arranged(x, bx, cx), arranged(y, by, cy)
    out = np.empty((left.shape[0], left.shape[1], right.shape[1]), object)
    for b, i, j in np.ndindex(out.shape):
        out[b, i, j] = _sum([p * q for p, q in zip(left[b, i], right[b, j], strict=True)])
    return out.reshape([x.shape[i] for i in bx] + rows + columns)


def _sum(terms: Sequence[ca.SX]) -> ca.SX:
    return sum(terms[1:], terms[0]) if len(terms) else ca.SX(0.0)


def _product(terms: Sequence[ca.SX]) -> ca.SX:
    return math.prod(terms[1:], start=terms[0]) if len(terms) else ca.SX(1.0)


def _extremum(pair: Callable[[ca.SX, ca.SX], ca.SX], empty: float) -> Callable:
    def fold(terms: Sequence[ca.SX]) -> ca.SX:
        if len(terms) == 0:
            return ca.SX(empty)
        best = _fold(pair, terms)
        if len(terms) <= 2:
            return best
        # Pairwise folding would share the slope of a threefold tie as 1/4, 1/4, 1/2. The second
        # term is zero in value and moves the slope to the mean of all that tie.
        ties = [ca.logic_and(t == best, ca.fabs(best) < math.inf) for t in terms]
        moved = _sum([ca.if_else(h, t - best, 0.0) for h, t in zip(ties, terms, strict=True)])
        return best + moved / ca.fmax(_sum(ties), 1.0)

    return fold


def _fold(pair: Callable[[ca.SX, ca.SX], ca.SX], terms: Sequence[ca.SX]) -> ca.SX:
    out = terms[0]
    for t in terms[1:]:
        out = pair(out, t)
    return out


def _reduction(fold: Callable[[Sequence[ca.SX]], ca.SX]) -> Rule:
    def rule(eqn: JaxprEqn, x: Any) -> Any:
        axes = eqn.params["axes"]
        kept = [i for i in range(x.ndim) if i not in axes]
        shape = [x.shape[i] for i in kept]
        rows = x.transpose((*kept, *axes)).reshape(math.prod(shape), -1)
        return box([fold(list(row)) for row in rows], shape)

    return rule


def _cumulative(pair: Callable[[ca.SX, ca.SX], ca.SX]) -> Rule:
    def rule(eqn: JaxprEqn, x: Any) -> Any:
        axis, reverse = eqn.params["axis"], eqn.params["reverse"]
        moved = np.moveaxis(x, axis, 0)
        rows = moved.reshape(len(moved), -1)  # two axes: a row is an array, never a bare scalar
        out, running = np.empty_like(rows), None
        for i in range(len(rows))[::-1] if reverse else range(len(rows)):
            running = rows[i] if running is None else mapped(pair, running, rows[i])
            out[i] = running
        return np.moveaxis(out.reshape(moved.shape), 0, axis)

    return rule


RULES: dict[str, Rule] = {
    **{name: _elementwise(f) for name, f in ELEMENTWISE.items()},
    **{name: _logical(ELEMENTWISE[name]) for name in ("and", "or", "not", "xor")},
    **INDEXING,
    **LINEAR,
    **WINDOWS,
    "convert_element_type": _convert,
    "cumlogsumexp": _cumulative(log_sum),
    "cummax": _cumulative(ca.fmax),
    "cummin": _cumulative(ca.fmin),
    "cumprod": _cumulative(lambda x, y: x * y),
    "cumsum": _cumulative(lambda x, y: x + y),
    "div": _div,
    "dot_general": _dot_general,
    "integer_pow": _integer_pow,
    "reduce_and": _reduction(lambda terms: _fold(ca.logic_and, [ca.SX(1.0), *terms])),
    "reduce_max": _reduction(_extremum(ca.fmax, -math.inf)),
    "reduce_min": _reduction(_extremum(ca.fmin, math.inf)),
    "reduce_or": _reduction(lambda terms: _fold(ca.logic_or, [ca.SX(0.0), *terms])),
    "reduce_prod": _reduction(_product),
    "reduce_sum": _reduction(_sum),
    "round": _round,
    "select_n": _select_n,
}

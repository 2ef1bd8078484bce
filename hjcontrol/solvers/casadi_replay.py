r"""The same JAX program, replayed on CasADi symbols.

    fn   --jax.make_jaxpr-->   equations   --RULES, one by one-->   casadi.Function

Whatever depends on no symbol is computed by its own primitive and becomes a constant; calls and
custom derivative rules are replaced by the primal program inside them, loops are unrolled. Values and
Jacobians agree with JAX's to 1e-13. CasADi computes in double precision, whatever the dtype traced.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import casadi as ca
import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, JaxprEqn

from hjcontrol._ground.jaxprs import bind, called_jaxpr, replay, scan_counts
from hjcontrol.solvers.casadi_linear import EIGENVECTOR, linear_solve
from hjcontrol.solvers.casadi_primitives import RULES, log_sum
from hjcontrol.solvers.casadi_refusals import IN_PART, REFUSED
from hjcontrol.solvers.casadi_scalars import box, column, is_symbolic, mapped

UNROLL_LIMIT = 10_000
SYMBOLIC_STEPS = 16


class UnsupportedPrimitiveError(NotImplementedError, ValueError):
    """A JAX primitive that has no CasADi counterpart here."""


def casadi_function(
    fn: Callable[..., Any], *examples: Any, name: str = "f", stage: str = "the function"
) -> ca.Function:
    """`fn` as a `casadi.Function` of SX symbols.

    **Arguments:** `examples`: one pytree of arrays (or `jax.ShapeDtypeStruct`s) an argument; `name`: the
    CasADi function's; `stage`: how an error calls the program.

    **Returns:** a function with one column an argument, all its leaves raveled row by row and stacked,
    and one column a result (`fn`'s value, or each entry of the tuple it returns).

    **Raises:** `UnsupportedPrimitiveError` (a `ValueError`), naming primitive and stage.
    """
    examples = jax.eval_shape(lambda: examples) if _arrays(examples) else examples
    closed, shapes = jax.make_jaxpr(fn, return_shape=True)(*examples)
    arguments, leaves = [], []
    for i, example in enumerate(examples):
        sizes = [int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(example)]
        symbol = ca.SX.sym(f"a{i}", sum(sizes))
        arguments.append(symbol)
        entries = np.split(box(ca.vertsplit(symbol), (sum(sizes),)), np.cumsum(sizes)[:-1])
        leaves += [
            e.reshape(s.shape) for e, s in zip(entries, jax.tree.leaves(example), strict=False)
        ]
    results = symbolic(closed, leaves, stage)
    outputs = shapes if isinstance(shapes, tuple) and not hasattr(shapes, "_fields") else (shapes,)
    counts = np.cumsum([len(jax.tree.leaves(out)) for out in outputs])
    groups = [results[a:b] for a, b in zip([0, *counts[:-1]], counts, strict=True)]
    columns = [ca.vertcat(*[column(r) for r in group]) for group in groups]
    if any(s.name() == EIGENVECTOR for s in ca.symvar(ca.vertcat(*columns))):
        raise UnsupportedPrimitiveError(
            f"{stage} reads the eigenvectors of the JAX primitive `eigh`: {IN_PART['eigh']}. Write it "
            "with eigenvalues alone, or solve with a method that stays in JAX, such as `Newton`."
        )
    return ca.Function(name, arguments, columns, {"cse": True})


def symbolic(closed: ClosedJaxpr, inputs: Sequence[Any], stage: str) -> list[Any]:
    """`closed` on arrays of numbers and of CasADi scalars; results of either kind."""

    return replay(closed, inputs, _rule(stage))


def _rule(stage: str, seen: bool = False) -> Callable[[JaxprEqn, list[Any]], Sequence[Any]]:
    """One equation at a time. `seen`: inside a function with a derivative rule of its own, which JAX
    does not differentiate; what `stop_gradient` hides there is seen, for the rule says its slope."""
    inside = None if seen else _rule(stage, seen=True)

    def rule(eqn: JaxprEqn, args: list[Any]) -> Sequence[Any]:
        if not any(is_symbolic(a) for a in args):
            return [np.asarray(out) for out in bind(eqn, _typed(eqn, args))]
        name = eqn.primitive.name
        inner = called_jaxpr(eqn)
        if inner is not None:
            own = inside if name in _RULED and inside is not None else rule
            return _known_twin(inner, args) or replay(inner, args, own)
        if seen and name == "stop_gradient":
            return args
        if name in _CONTROL_FLOW:
            out = _CONTROL_FLOW[name](eqn, args, rule)
        elif name in RULES:
            out = RULES[name](eqn, *args)
        else:
            out = NotImplemented
        if out is NotImplemented:
            why = IN_PART.get(name) or REFUSED.get(name)
            inputs = ", ".join(v.aval.str_short() for v in eqn.invars)
            raise UnsupportedPrimitiveError(
                f"{stage} uses the JAX primitive `{name}` ({inputs}) in a way that has no "
                f"CasADi counterpart here{f': {why}' if why else ''}. Write it with other operations "
                "(`hjcontrol.solvers.casadi_replay.SUPPORTED` lists them), or solve with a method "
                "that stays in JAX, such as `Newton`."
            )
        return out if eqn.primitive.multiple_results else [out]

    return rule


_RULED = ("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr")


def _arrays(examples: Any) -> bool:
    return not any(isinstance(a, jax.ShapeDtypeStruct) for a in jax.tree.leaves(examples))


def _typed(eqn: JaxprEqn, args: list[Any]) -> list[Any]:
    """Numbers in the dtype that the program declares: a literal may be a bare Python number."""
    return [
        a if isinstance(a, jax.Array) else np.asarray(a, v.aval.dtype)
        for a, v in zip(args, eqn.invars, strict=True)
    ]


# Where JAX's own custom rule gives a slope (or curvature) at a kink of the primal that the primal's
# operations do not: relu'(0) = 0, logaddexp''(0) = 1/4.
_TWINS = ((jax.nn.relu, 1, lambda x: ca.if_else(x > 0, x, 0.0)), (jax.numpy.logaddexp, 2, log_sum))


def _known_twin(inner: ClosedJaxpr, args: list[Any]) -> list[Any] | None:
    """The result by a twin's rule if `inner` is, equation by equation, that function's program."""
    equations = inner.jaxpr.eqns
    if len(inner.jaxpr.outvars) != 1 or not equations:
        return None
    avals = [v.aval for v in inner.jaxpr.invars]
    for function, arity, rule in _TWINS:
        if len(avals) != arity or len(equations) > 12:
            continue
        if str(inner.jaxpr) == _program(function, tuple((a.shape, str(a.dtype)) for a in avals)):
            return [mapped(rule, *args)]
    return None


def _program(function: Callable, avals: tuple) -> str | None:
    """The primal program behind `function`, printed; `None` where it does not apply."""
    key = (function, avals)
    if key not in _programs:
        structs = [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in avals]
        try:
            closed = jax.make_jaxpr(function)(*structs)
        except (TypeError, ValueError):  # a dtype or shapes that the function refuses
            closed = None
        while closed is not None and len(closed.jaxpr.eqns) == 1:
            eqn = closed.jaxpr.eqns[0]
            closed = called_jaxpr(eqn)
            if eqn.primitive.name == "custom_jvp_call":
                break
        _programs[key] = None if closed is None else str(closed.jaxpr)
    return _programs[key]


_programs: dict[Any, str | None] = {}


def _scan(eqn: JaxprEqn, args: list[Any], rule: Callable) -> Any:
    p = eqn.params
    constants, carry = scan_counts(eqn)
    fixed, state = args[:constants], args[constants : constants + carry]
    slices = [np.asarray(a) for a in args[constants + carry :]]
    steps = range(p["length"])[::-1] if p["reverse"] else range(p["length"])
    rows: list[Any] = [None] * p["length"]
    for k in steps:
        out = replay(p["jaxpr"], [*fixed, *state, *[_row(s, k) for s in slices]], rule)
        state, rows[k] = out[:carry], out[carry:]
    return [*state, *_stacked(eqn, rows, carry)]


def _row(a: np.ndarray, k: int) -> Any:
    row = a[k]
    return row if not isinstance(row, ca.SX) else box([row], ())


def _stacked(eqn: JaxprEqn, rows: list[Any], carry: int) -> list[Any]:
    outs = []
    for j, v in enumerate(eqn.outvars[carry:]):
        parts = [row[j] for row in rows]
        dtype = object if any(is_symbolic(part) for part in parts) else v.aval.dtype
        out = np.empty(v.aval.shape, dtype)
        for k, part in enumerate(parts):
            value = mapped(lambda x: x, part) if dtype is object else np.asarray(part)
            out[k] = value if value.ndim else value.item()
        outs.append(out)
    return outs


def _while(eqn: JaxprEqn, args: list[Any], rule: Callable) -> Any:
    """A loop, unrolled. Where its test depends on a symbol, `SYMBOLIC_STEPS` guarded steps are taken, and
    what is not finished then is NaN."""
    p = eqn.params
    first = args[: p["cond_nconsts"]]
    second = args[p["cond_nconsts"] : p["cond_nconsts"] + p["body_nconsts"]]
    state, guarded, go = args[p["cond_nconsts"] + p["body_nconsts"] :], 0, True
    for _ in range(UNROLL_LIMIT):
        (go,) = replay(p["cond_jaxpr"], [*first, *state], rule)
        known = not is_symbolic(go) or go.item().is_constant()
        if known and not bool(go.item() if is_symbolic(go) else go):
            return state
        if not known and guarded == SYMBOLIC_STEPS:
            lost = lambda go, a: ca.if_else(go, math.nan, a)
            return [mapped(lost, go, a) for a in state]
        new = replay(p["body_jaxpr"], [*second, *state], rule)
        if not known:
            guarded += 1
            kept = lambda go, a, b: ca.if_else(go, a, b)
            new = [mapped(kept, go, a, b) for a, b in zip(new, state, strict=True)]
        state = new
    return NotImplemented


def _cond(eqn: JaxprEqn, args: list[Any], rule: Callable) -> Any:
    """The branch of a known index; a choice among all branches of a symbolic one."""
    index, *operands = args
    branches = eqn.params["branches"]
    if not is_symbolic(index):
        return replay(branches[int(np.clip(index, 0, len(branches) - 1))], operands, rule)
    outs = [replay(branch, operands, rule) for branch in branches]
    chosen = outs[-1]
    for i in reversed(range(len(branches) - 1)):
        chosen = [
            mapped(lambda w, a, b, i=i: ca.if_else(w <= i, a, b), index, a, b)
            for a, b in zip(outs[i], chosen, strict=True)
        ]
    return chosen


_CONTROL_FLOW: dict[str, Callable[..., Any]] = {
    "cond": _cond,
    "custom_linear_solve": linear_solve,
    "scan": _scan,
    "while": _while,
}
SUPPORTED = frozenset(RULES) | frozenset(_CONTROL_FLOW)

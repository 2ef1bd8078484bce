"""The weights as an optax transformation sees them: of another library's model, a layer at a time.

Runs of equal stages are stacked. A transformation that treats every number by itself (SGD, Adam) does the
same to both, and is handed the stack: one operation for all layers. One that looks at a leaf's rank, norm
or factors (a mask by rank, LAMB, Adafactor, Muon) means the leaf that the model has.
"""

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.extend.core import ClosedJaxpr, Literal

from hjcontrol.control import ControlProblem
from hjcontrol.networks import Weights
from hjcontrol.networks.model import in_layers

ELEMENTWISE = {
    *(
        "abs",
        "add",
        "add_any",
        "and",
        "cbrt",
        "ceil",
        "clamp",
        "convert_element_type",
        "copy",
        "div",
    ),
    *("eq", "erf", "exp", "exp2", "expm1", "floor", "ge", "gt", "integer_pow", "is_finite", "le"),
    *(
        "log",
        "log1p",
        "logistic",
        "lt",
        "max",
        "min",
        "mul",
        "ne",
        "neg",
        "not",
        "or",
        "pow",
        "rem",
    ),
    *("round", "rsqrt", "select_n", "sign", "sqrt", "square", "stop_gradient", "sub", "tanh"),
}


def seen(optimiser: optax.GradientTransformation, problem: ControlProblem, weights: Any) -> Any:
    """Weights, or what is shaped like them, as the transformation sees them."""
    return _parted(weights) if _apart(optimiser, problem, weights) else weights


def unseen(found: Any) -> Weights:
    """From what the transformation sees to weights."""
    if isinstance(found, tuple):
        return found
    return tuple(jax.tree.map(lambda *a: jnp.stack(a), *parts) for parts in found)


def _parted(weights: Any) -> Any:
    each = lambda theta: [jax.tree.map(lambda a, k=k: a[k], theta) for k in range(_count(theta))]
    return [each(theta) for theta in weights]


def _count(theta: Any) -> int:
    """How many weights of a run there are; one empty one where it has none."""
    return next((len(a) for a in jax.tree.leaves(theta)), 1)


def _apart(optimiser: optax.GradientTransformation, problem: ControlProblem, weights: Any) -> bool:
    if not in_layers(problem.model) or not isinstance(weights, tuple):
        return False
    leaves, structure = jax.tree.flatten(weights)
    return not _alike(optimiser, structure, tuple((a.shape, a.dtype) for a in leaves))


@functools.lru_cache(maxsize=64)
def _alike(optimiser: Any, structure: Any, shapes: Any) -> bool:
    """Whether the transformation does the same to a stack as to its layers, each number by itself."""
    stacked = jax.tree.unflatten(structure, [jax.ShapeDtypeStruct(*s) for s in shapes])
    layers = jax.eval_shape(_parted, stacked)
    try:
        whole, parts = (_treatments(optimiser, view) for view in (stacked, layers))
    except Exception:  # the user's transformation: whatever it raises is said where it begins
        return False
    wanted = [
        leaf for r, run in enumerate(parts) for _ in run for leaf in jax.tree.leaves(whole[r])
    ]
    found = jax.tree.leaves(parts)
    return OWN not in found and wanted == found


OWN = "a way of its own"


def _treatments(optimiser: Any, view: Any) -> Any:
    """What is done to each leaf on the way from its gradient to its change, in words; `OWN` where
    numbers of a leaf, or leaves, meet."""

    def update(slope: Any, at: Any) -> Any:
        beside = {"value": jnp.zeros(()), "grad": slope, "value_fn": lambda w: jnp.zeros(())}
        change = optax.with_extra_args_support(optimiser).update
        return change(slope, optimiser.init(at), at, **beside)[0]

    closed = jax.make_jaxpr(update)(view, view)
    jaxpr = closed.jaxpr
    makers = {v: eqn for eqn in jaxpr.eqns for v in eqn.outvars}
    known = dict(zip(jaxpr.constvars, map(_constant, closed.consts), strict=True))
    words = [_treatment(makers, known, v) for v in jaxpr.outvars]
    return jax.tree.unflatten(jax.tree.structure(view), words)


def _constant(value: Any) -> str:
    """A number that the transformation closes over; an array of them is some leaf's own."""
    return OWN if jnp.shape(value) else f"constant {value}"


def _treatment(makers: dict[Any, Any], known: dict[Any, str], out: Any) -> str:
    done, left = {}, [out]
    while left:
        v = left.pop()
        eqn = None if isinstance(v, Literal) else makers.get(v)
        if not isinstance(v, Literal) and v in known:
            done[id(v)] = [known[v]]
        if eqn is not None and id(eqn) not in done:
            done[id(eqn)] = list(_words([eqn]))
            left += eqn.invars
    words = [word for each in done.values() for word in each]
    return OWN if OWN in words else repr(sorted(words))


def _words(eqns: Sequence[Any]) -> Iterator[str]:
    for eqn in eqns:
        inner = eqn.params.get("jaxpr", eqn.params.get("call_jaxpr"))
        name, shapes = eqn.primitive.name, [v.aval.shape for v in (*eqn.invars, *eqn.outvars)]
        literals = [str(v.val) for v in eqn.invars if isinstance(v, Literal)]
        spread = name == "broadcast_in_dim" and not eqn.invars[0].aval.shape
        if not any(shapes) or spread or name in ELEMENTWISE:
            yield f"{name} {literals}"
        elif isinstance(inner, ClosedJaxpr) and not inner.consts:
            yield f"{name} {literals}"
            yield from _words(inner.jaxpr.eqns)
        else:
            yield OWN

"""What a program's derivative passes through: two fixpoints over what its loops carry.

active    depends on what is differentiated                         forward
live      reaches the cost through differentiable paths             backward, `stop_gradient` ends it

A ref is active once something active is written into it, and live once it is read: which came first is
not asked, for in a loop either may.
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jax.extend.core import Jaxpr, JaxprEqn, Literal

from hjcontrol._ground.jaxprs import called_jaxpr, scan_counts
from hjcontrol.verification.inlining import RULES
from hjcontrol.verification.references import is_ref

ENDS = frozenset({"stop_gradient", "nondifferentiable_backward"})


def _body(eqn: JaxprEqn) -> Jaxpr:
    inner = called_jaxpr(eqn)
    assert inner is not None, eqn.primitive.name
    return inner.jaxpr


def get(known: dict[Any, bool], atom: Any) -> bool:
    """What is known of an atom; nothing of a literal."""
    return not isinstance(atom, Literal) and known.get(atom, False)


def differentiable(atom: Any) -> bool:
    """Whether an atom is floating or complex."""
    return jnp.issubdtype(getattr(atom.aval, "dtype", None), jnp.inexact)


def flow(jaxpr: Jaxpr, active: Sequence[bool], stop: bool = True) -> dict[Any, bool]:
    """Which variables depend on the active inputs. `stop`: `stop_gradient` ends the dependence, and so
    does an integer or a comparison; inside a rule neither does, for a rule brings its own derivative."""
    known: dict[Any, bool] = {
        v: a and (differentiable(v) or not stop) for v, a in zip(jaxpr.invars, active, strict=True)
    }
    while _flown(jaxpr, known, stop):
        pass
    return known


def _flown(jaxpr: Jaxpr, known: dict[Any, bool], stop: bool) -> bool:
    """One pass through the equations; whether it found a ref active that was not."""
    again = False
    for eqn in jaxpr.eqns:
        entering = [get(known, v) for v in eqn.invars]
        if any(entering):
            written = [v for v in eqn.invars if is_ref(v) and not get(known, v)]
            known.update(
                (v, out and (differentiable(v) or not stop))
                for v, out in zip(eqn.outvars, _through(eqn, entering, stop), strict=True)
            )
            after = _written(eqn, entering, stop) if written else entering
            new = {v for v, out in zip(eqn.invars, after, strict=True) if out and v in written}
            known.update((v, differentiable(v) or not stop) for v in new)
            again = again or any(known[v] for v in new)
    return again


def _outputs(jaxpr: Jaxpr, active: Sequence[bool], stop: bool) -> list[bool]:
    known = flow(jaxpr, active, stop)
    return [get(known, v) for v in jaxpr.outvars]


def _through(eqn: JaxprEqn, entering: list[bool], stop: bool) -> list[bool]:
    name = eqn.primitive.name
    if stop and name in ENDS:
        return [False] * len(eqn.outvars)
    if name in RULES:  # a rule may bring a derivative where its primal has none
        return _outputs(_body(eqn), entering, False)
    if (inner := called_jaxpr(eqn)) is not None:
        return _outputs(inner.jaxpr, entering, stop)
    if name == "scan":
        consts, carried = scan_counts(eqn)
        body = eqn.params["jaxpr"].jaxpr
        entry = _fixed(body, entering, consts, carried, stop)
        leaving = _outputs(body, entry, stop)
        return [
            *(
                a or b
                for a, b in zip(entry[consts : consts + carried], leaving[:carried], strict=True)
            ),
            *leaving[carried:],
        ]
    if name == "while":
        c, b = eqn.params["cond_nconsts"], eqn.params["body_nconsts"]
        body, entering = eqn.params["body_jaxpr"].jaxpr, entering[c:]
        return _fixed(body, entering, b, len(entering) - b, stop)[b:]
    if name == "cond":
        found = [_outputs(b.jaxpr, entering[1:], stop) for b in eqn.params["branches"]]
        return [any(outs) for outs in zip(*found, strict=True)]
    return [True] * len(eqn.outvars)


def _written(eqn: JaxprEqn, entering: list[bool], stop: bool) -> list[bool]:
    """Which inputs are active afterwards: refs into which something active may be written."""
    name, stop = eqn.primitive.name, stop and eqn.primitive.name not in RULES
    inside = lambda jaxpr, entry: [get(flow(jaxpr, entry, stop), v) for v in jaxpr.invars]
    if (inner := called_jaxpr(eqn)) is not None:
        return inside(inner.jaxpr, entering)
    if name == "scan":
        body = eqn.params["jaxpr"].jaxpr
        return inside(body, _fixed(body, entering, *scan_counts(eqn), stop))
    if name == "while":
        c, b = eqn.params["cond_nconsts"], eqn.params["body_nconsts"]
        body, own = eqn.params["body_jaxpr"].jaxpr, entering[c:]
        return [*entering[:c], *inside(body, _fixed(body, own, b, len(own) - b, stop))]
    if name == "cond":
        found = [inside(b.jaxpr, entering[1:]) for b in eqn.params["branches"]]
        return [entering[0], *(any(after) for after in zip(*found, strict=True))]
    return [True] * len(eqn.invars)


def _fixed(
    body: Jaxpr, entering: Sequence[bool], consts: int, carried: int, stop: bool
) -> list[bool]:
    """A loop's inputs, once what it carries has come round."""
    entry = list(entering)
    while True:
        leaving = _outputs(body, entry, stop)[:carried]
        after = [a or b for a, b in zip(entry[consts : consts + carried], leaving, strict=True)]
        if after == entry[consts : consts + carried]:
            return entry
        entry[consts : consts + carried] = after


def reach(
    jaxpr: Jaxpr, known: dict[Any, bool], live: Sequence[bool], stop: bool = True
) -> dict[Any, bool]:
    """Which variables reach the live outputs through differentiable paths. (What is cut by a
    `stop_gradient` is live behind it, and not before.) A ref from outside may be read there."""
    wanted: dict[Any, bool] = {v: True for v in (*jaxpr.constvars, *jaxpr.invars) if is_ref(v)}
    for v, out in zip(jaxpr.outvars, live, strict=True):
        if not isinstance(v, Literal):
            wanted[v] = wanted.get(v, False) or out
    while _reached(jaxpr, known, wanted, stop):
        pass
    return wanted


def _reached(jaxpr: Jaxpr, known: dict[Any, bool], wanted: dict[Any, bool], stop: bool) -> bool:
    """One pass back through the equations; whether it found a ref wanted that was not."""
    again = False
    for eqn in reversed(jaxpr.eqns):
        leaving = [wanted.get(v, False) for v in eqn.outvars]
        written = wanted_refs(eqn, wanted)
        if not (any(leaving) or written) or (stop and eqn.primitive.name in ENDS):
            continue
        entering = [get(known, v) for v in eqn.invars]
        for v, out in zip(eqn.invars, _back(eqn, entering, leaving), strict=True):
            if not isinstance(v, Literal) and out:
                again = again or (is_ref(v) and not get(wanted, v))
                wanted[v] = True
    return again


def wanted_refs(eqn: JaxprEqn, wanted: dict[Any, bool]) -> bool:
    """Whether an equation may write into a ref that is read."""
    return any(is_ref(v) and get(wanted, v) for v in eqn.invars)


def inputs(
    jaxpr: Jaxpr, entering: Sequence[bool], leaving: Sequence[bool], stop: bool = True
) -> list[bool]:
    """Which inputs reach the outputs that are `leaving`. `stop`: `stop_gradient` ends the way."""
    wanted = reach(jaxpr, flow(jaxpr, entering, stop), leaving, stop)
    return [wanted.get(v, False) for v in jaxpr.invars]


def _back(eqn: JaxprEqn, entering: list[bool], leaving: list[bool]) -> list[bool]:
    name = eqn.primitive.name
    if name in RULES:
        return inputs(_body(eqn), entering, leaving, False)
    if (inner := called_jaxpr(eqn)) is not None:
        return inputs(inner.jaxpr, entering, leaving)
    if name == "scan":
        consts, carried = scan_counts(eqn)
        body = eqn.params["jaxpr"].jaxpr
        entry, ends = loop(body, entering, leaving, consts, carried)
        return inputs(body, entry, ends)
    if name == "while":
        c, b = eqn.params["cond_nconsts"], eqn.params["body_nconsts"]
        body, inside = eqn.params["body_jaxpr"].jaxpr, entering[c:]
        entry, ends = loop(body, inside, leaving, b, len(inside) - b)
        wanted = inputs(body, entry, ends)
        return [*[False] * c, *wanted[:b], *ends]
    if name == "cond":
        found = [inputs(b.jaxpr, entering[1:], leaving) for b in eqn.params["branches"]]
        return [False, *(any(a) for a in zip(*found, strict=True))]
    return [True] * len(eqn.invars)


def loop(
    body: Jaxpr, entering: list[bool], leaving: list[bool], consts: int, carried: int
) -> tuple[list[bool], list[bool]]:
    """A loop body's active inputs and live outputs, once what it carries has come round."""
    entry = _fixed(body, entering, consts, carried, True)
    ends = list(leaving)
    while True:
        wanted = inputs(body, entry, ends)[consts : consts + carried]
        after = [a or b for a, b in zip(ends[:carried], wanted, strict=True)]
        if after == ends[:carried]:
            return entry, ends
        ends[:carried] = after

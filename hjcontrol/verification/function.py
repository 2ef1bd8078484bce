"""Verification of any function: `hj.verify(fn, *args)`."""

import dataclasses
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import jaxpr_as_fun

from hjcontrol._ground.progress import tell
from hjcontrol.verification.arithmetic import eps_of
from hjcontrol.verification.certificate import Certificate, Row
from hjcontrol.verification.cuts import cancelled
from hjcontrol.verification.declaring import all_declared
from hjcontrol.verification.naming import raised_at
from hjcontrol.verification.program import Call, Program, called_with, contracted
from hjcontrol.verification.rule import GAP, GUILTY, REACH
from hjcontrol.verification.suspects import with_suspects
from hjcontrol.verification.verdicts import CONSISTENT, REFUTED, UNDEFINED, UNTESTED
from hjcontrol.verification.whole import told_of_refs, told_without_rules
from hjcontrol.verification.witness import examine


def verify_function(
    fn: Callable,
    args: tuple[Any, ...],
    *,
    argnums: int | Sequence[int] | None = None,
    has_aux: bool = False,
    costate: str = "both",
    order: int = 1,
    every: bool = False,
    deliberate: Sequence[Any] = (),
    accepted: float = 1e-6,
    seed: int = 0,
    finer: Sequence[Callable] = (),
) -> Certificate:
    """See `hjcontrol.verify`."""
    chosen = _argnums(argnums, args)
    wanted = lambda path: _wanted(path, chosen)
    settings: dict[str, Any] = {"has_aux": has_aux, "every": every, "order": order}
    if costate == "random":
        settings["whiles"] = True
    tell("tracing")
    call = stated(fn, args, wanted, settings)
    if not call.at:
        raise ValueError(_nothing(fn, args, chosen))
    backward = costate != "random"
    found = examined(call, backward, costate != "actual", seed)
    rows = found.rows
    if backward:
        rows = cancelled(rows, call.program, call.leaves, found.measured.gradient)
    rows = with_suspects(rows, call.program, verify_function)
    rows = all_declared(rows, call.program, deliberate)
    cost, gradient, finite = _value(call, found.measured) if backward else (np.nan, None, True)
    blamed = None
    if not finite and not any(r.verdict in (UNDEFINED, REFUTED) for r in rows):
        tell("looking for the equation that is not finite")
        blamed = blame(fn, args, wanted, has_aux, call.leaves)
        rows += blamed
    notes, also = _about_the_whole(call, rows, blamed, backward)
    if backward and finite and (words := told_of_refs(call, found.measured.gradient)):
        also.append(UNTESTED)
        notes.append(words)
    if not rows and backward and not also:
        notes.append(told_without_rules(call, found.measured.gradient))
    rows = _refined(rows, finer, args, wanted, settings) if finer else rows
    return Certificate(
        rows=tuple(rows),
        cost=cost,
        gradient=gradient,
        tol=accepted,
        accepted=accepted,
        notes=tuple(notes),
        problem={
            "leaves": len(call.at),
            "places": len({row.place for row in rows}),
            "dtype": _dtype(call),
            "also": tuple(also),
        },
    )


def _value(call: Call, measured: Any) -> tuple[float, Any, bool]:
    """The cost, the gradient by name, and whether all of both is finite."""
    cost, gradient = float(np.real(measured.cost)), _gradient(call, measured.gradient)
    finite = np.isfinite(cost) and all(bool(jnp.all(jnp.isfinite(g))) for g in measured.gradient)
    return cost, gradient, bool(finite)


def _about_the_whole(
    call: Call, rows: list[Row], blamed: list[Row] | None, backward: bool
) -> tuple[list[str], list[str]]:
    """Notes, and verdicts that no row carries. `blamed`: rows of equations that are not finite, `None`
    where none was looked for."""
    notes, also = [], []
    if not call.program.scalar:
        notes.append("fn is not scalar: <r, fn> with random r was verified")
    if blamed is not None and not blamed:
        also.append(UNDEFINED)
        notes.append("the cost or its gradient is not finite, and no equation was found guilty")
    if not backward and not rows:
        notes.append("no place was reached")
    if words := used_up(call.program):
        also.append(UNTESTED)
        notes.append(words)
    own = [p for p in call.program.places.values() if not p.library and not p.ends]
    if not rows and backward and own:
        also.append(UNTESTED)
        notes.append("rules stand in fn, and none of them has an element to try")
    return notes, also


def used_up(program: Program) -> str:
    """What is to be said of rules that a derivative inside has used up; "" where there is none."""
    if not program.used_up:
        return ""
    names = ", ".join(program.used_up)
    return f"{names}: dissolved by a derivative inside fn; verify the inner function with order=2"


def stated(fn: Callable, args: tuple[Any, ...], wanted: Callable, settings: dict[str, Any]) -> Call:
    """The program, or a `ValueError` in this library's words."""
    try:
        return called_with(fn, args, wanted, **settings)
    except Exception as error:  # fn is the user's: it may raise anything while it is traced
        if isinstance(error, (TypeError, ValueError)) and str(error).startswith("verify:"):
            raise
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(_untraceable(fn, error)) from error


def _untraceable(fn: Callable, error: Exception) -> str:
    name = getattr(fn, "__name__", type(fn).__name__)
    return (
        f"verify: `fn` ({name}) cannot be traced with these arguments: {told_briefly(error)} "
        "Write it in operations that `jax.jit` accepts, and pass what it needs as arguments."
    )


def told_briefly(error: Exception) -> str:
    """An error's type, the user's line that raised it and the beginning of its message, cut between
    words, as a sentence."""
    words = textwrap.shorten(str(error), 400, placeholder=" ...") or "no message"
    stop = "" if words.endswith((".", "!", "?")) else "."
    return f"{type(error).__name__}{raised_at(error)}: {words}{stop}"


def examined(call: Call, backward: bool, random: bool, seed: int) -> Any:
    """`examine`, with what reverse mode refuses said in this library's words."""
    try:
        return examine(call.program, call.leaves, seed=seed, backward=backward, random=random)
    except jax.errors.UnexpectedTracerError as error:
        raise ValueError(
            "verify: a rule in `fn` closes over a value that `fn` computes, so it cannot be called once "
            "`fn` is traced (nor can `jax.grad(jax.jit(fn))`). Pass the value to the rule as an argument."
        ) from error
    except Exception as error:  # the rules are the user's: they may raise anything
        if backward and _differentiable(call):
            raise RuntimeError(
                "verify: an error of hjcontrol's own, for `jax.grad` of `fn` runs: "
                f"{told_briefly(error)} Please report it with the program; `costate='random'` may go "
                "another way."
            ) from error
        if "Reverse-mode differentiation" not in str(error):
            raise ValueError(
                f"verify: `fn` cannot be differentiated here: {told_briefly(error)} Compare "
                "`jax.grad` of it at the same arguments; `argnums` says which of them are differentiated."
            ) from error
        raise ValueError(
            "verify: `fn` has no backward pass: reverse mode does not work for a `while_loop` or a "
            "`fori_loop` of dynamic length. Use `lax.scan`, or pass `costate='random'`, which tries the "
            "rules inside without a backward pass."
        ) from error


def _differentiable(call: Call) -> bool:
    """Whether JAX itself differentiates the program, at these arguments."""
    program, at = call.program, list(call.at)
    whole = jaxpr_as_fun(program.closed)
    cost = lambda moved: contracted(whole(*program.merged(call.leaves, at, moved)), None)
    try:
        jax.block_until_ready(jax.jit(jax.grad(cost))([call.leaves[k] for k in at]))
    except Exception:  # of the user's rules
        return False
    return True


def _argnums(argnums: Any, args: tuple[Any, ...]) -> tuple[int, ...] | None:
    if argnums is None:
        return None
    asked = (argnums,) if isinstance(argnums, (int, np.integer)) else tuple(argnums)
    bad = [
        k
        for k in asked
        if isinstance(k, bool)
        or not isinstance(k, (int, np.integer))
        or not -len(args) <= k < len(args)
    ]
    if bad or not asked:
        raise ValueError(
            f"verify: `argnums` are positions among {len(args)} arguments; found {argnums!r}."
        )
    found = tuple(int(k) % len(args) for k in asked)
    if len(set(found)) < len(found):
        raise ValueError(f"verify: `argnums` names an argument twice; found {argnums!r}.")
    return found


def _wanted(path: Any, argnums: tuple[int, ...] | None) -> bool:
    if path[0].idx == 0:
        return argnums is None
    return argnums is None or path[1].idx in argnums


def _nothing(fn: Callable, args: tuple[Any, ...], argnums: Any) -> str:
    leaves = jax.tree.leaves((fn if isinstance(fn, eqx.Module) else (), args))
    kinds = sorted({str(getattr(a, "dtype", type(a).__name__)) for a in leaves})
    chosen = "" if argnums is None else f" at argnums {argnums}"
    return (
        f"verify: nothing to differentiate: no floating array among the arguments{chosen}; found "
        f"{', '.join(kinds) or 'none'}. Pass the parameters or the inputs as arguments."
    )


def _gradient(call: Call, flat: Sequence[Any]) -> Any:
    leaves: list[Any] = [None] * len(call.leaves)
    for k, g in zip(call.at, flat, strict=True):
        leaves[k] = g
    own, args = jax.tree.unflatten(call.structure, leaves)
    return (own, args) if jax.tree.leaves(own) else args[0] if len(args) == 1 else args


def _dtype(call: Call) -> str:
    found = [call.leaves[k].dtype for k in call.at]
    return np.dtype(max(found, key=eps_of)).name if found else ""


def blame(fn: Callable, args: Any, wanted: Callable, has_aux: bool, leaves: Any) -> list[Row]:
    """The first equation, in the order of the program, that makes something finite infinite or NaN."""
    call = called_with(fn, args, wanted, has_aux=has_aux, blame=True)
    program = call.program
    tables = program.measure(call.leaves).tables
    for i in sorted(tables):
        table, place = tables[i], program.places[i]
        flat = table.reshape(-1, *table.shape[-2:])
        bad = np.flatnonzero(flat[:, 0, GUILTY] > 0)
        if bad.size:
            at = np.unravel_index(int(bad[0]), place.lengths) if place.lengths else None
            return [
                Row(
                    verdict=UNDEFINED,
                    gap=float("inf"),
                    reach=float(flat[bad[0], 0, REACH]),
                    rule=place.name,
                    kind=place.kind,
                    source=place.source,
                    iteration=None if at is None else tuple(int(j) for j in at),
                    parameter=place.arguments[0].name if place.arguments else "",
                    reason="finite inputs and costate; its value or its derivative is not finite",
                    gaps=flat[:, 0, GAP],
                    reaches=flat[:, 0, REACH],
                    place=place.index,
                )
            ]
    return []


def _refined(
    rows: list[Row], finer: Sequence[Callable], args: Any, wanted: Callable, settings: Any
) -> list[Row]:
    """Gaps at the same places of the same program at tighter tolerances must shrink."""
    series: dict[tuple[int, int], list[float]] = {}
    for fn in finer:
        call = stated(fn, args, wanted, settings)
        for row in examined(call, True, True, 0).rows:
            series.setdefault((row.place, row.argument), []).append(row.gap)
    found = []
    for row in rows:
        gaps = [row.gap, *series.get((row.place, row.argument), [])]
        if row.verdict not in (CONSISTENT, REFUTED) or len(gaps) < 2:
            found.append(row)
            continue
        words = "at finer tolerances: " + " ".join(f"{g:.0e}" for g in gaps)
        shrinks = gaps[-1] <= gaps[0] / 2 ** (len(gaps) - 1)
        verdict = CONSISTENT if shrinks else REFUTED
        gap = gaps[-1] if shrinks else row.gap
        found.append(
            dataclasses.replace(row, verdict=verdict, gap=gap, reason=words, series=tuple(gaps))
        )
    return found

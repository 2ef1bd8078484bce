"""Verification of PyTorch backward passes: `hj.verify_torch(module_or_fn, *inputs)`."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from hjcontrol._ground.renamed import renamed
from hjcontrol.verification.alone import Judged, judge
from hjcontrol.verification.certificate import Certificate, Row
from hjcontrol.verification.naming import Source
from hjcontrol.verification.verdicts import (
    CONSISTENT,
    DELIBERATE,
    DETACHED,
    EXACT,
    REFUTED,
    UNDEFINED,
    UNTESTED,
    Outcome,
)

RESTLESS = (
    "its rule gives another result when it is run again: it depends on a state that is not passed"
)
UNEXPLAINED = (
    "a tensor hook, a C++ function, a state that is not passed, or a branch at a single value such as "
    "where(x == 0, ...)"
)


@renamed(tolerance="tol")
def verify_torch(
    module_or_fn: Callable[..., Any],
    *inputs: Any,
    deliberate: Sequence[Any] = (),
    tol: float = 1e-6,
    seed: int = 0,
) -> Certificate:
    r"""Whether the backward pass of a PyTorch program is the derivative of its forward pass.

        G(x) r  =  T(x) r      at every place, for the costate that arrives and for a random one

    A place is one call of a `torch.autograd.Function`, or of a `torch.library.custom_op` with a
    registered backward pass, at the point where the program makes it: `G` is its rule, `T` reverse mode
    of its own `forward`. Both are compared element by element in every argument that requires a
    gradient, within 64 units of measured roundoff. A body that PyTorch cannot differentiate (NumPy, a
    kernel, a custom operator) is judged by differences of its values, and is `consistent` at best. So
    are modules of the user's own without submodules that apply no such function, and the whole program
    along a random direction.

    ```python
    loss = lambda x, y: ((net(x) - y) ** 2).mean()
    print(hj.verify_torch(net, x))                    # parameters, and inputs that require a gradient
    hj.verify_torch(net, x).raise_for_verdict()
    ```

    **Arguments:**

    - `module_or_fn`: a module, or any function of tensors, uncompiled and outside `autocast`.
    - `inputs`: its arguments, tensors in nested tuples, lists and dicts too. What requires a gradient is
      differentiated; if neither a parameter nor an input does, every floating input is.
    - `deliberate`: rules that differ from the derivative on purpose: their names, classes, or
      `"file.py:line"`. (Keyword only.)
    - `tol`: largest gap of a `consistent` place at which the certificate is still true.
    - `seed`: of the random costates.

    **Returns:** a `Certificate`; `gradient` holds a tensor for each name.

    **Raises:** `ImportError` without PyTorch; `ValueError` or `TypeError` if there is nothing to verify.

    **Limits.** A `.detach()` is no place: what it cuts shows only in differences, of a module or of the
    whole. The same holds for hooks and for C++ autograd functions. A loop to a tolerance is run on where
    its comparison is PyTorch's, not NumPy's. A place's inputs are copied; the whole costs some forty
    forward passes in float64. The module is left as it was: parameters, buffers, `.grad`.
    """
    places = _met()
    _check(module_or_fn, deliberate, tol)
    run = places.run(module_or_fn, inputs, seed)
    rows, notes, also = _told(places, run, deliberate, seed)
    sizes = {"leaves": len(run.gradient), "places": len(run.places), "dtype": run.dtype}
    return Certificate(
        rows=tuple(rows),
        cost=run.cost,
        gradient=run.gradient,
        tol=tol,
        accepted=tol,
        notes=tuple(notes),
        problem=sizes | {"also": tuple(also)},
    )


def _told(
    places: Any, run: Any, deliberate: Sequence[Any], seed: int
) -> tuple[list[Row], list[str], list[str]]:
    """Rows, notes, and verdicts that no row carries."""
    rows = [row for i, place in enumerate(run.places) for row in _rows(i, place, run, seed)]
    rows = [_declared(row, deliberate) for row in rows]
    notes, also = _unseen(run)
    rows, note = _with_whole(rows, run, deliberate, seed)
    also += [UNTESTED] if RESTLESS in note else []
    finite = np.isfinite(run.cost) and run.finite
    if not finite and not any(r.verdict in (UNDEFINED, REFUTED) for r in rows):
        blamed = places.guilty(run)
        if blamed is None:
            also.append(UNDEFINED)
            notes.append("the cost or its gradient is not finite, and no place was found guilty")
        else:
            rows.append(_guilty(len(run.places), *blamed))
    return rows, [*notes, note] if note else notes, also


def _met() -> Any:
    """The module that meets PyTorch."""
    try:
        import hjcontrol.verification.torch_run as run
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "torch":
            raise
        raise ImportError(
            "verify_torch: torch is needed, of the extra `torch`: pip install 'hjcontrol[torch]'."
        ) from None
    return run


def _check(fn: Any, deliberate: Any, tol: Any) -> None:
    if not callable(fn):
        raise TypeError(
            f"verify_torch: `module_or_fn` must be a module or a function; found {type(fn).__name__}."
        )
    if isinstance(tol, bool) or not isinstance(tol, (int, float)) or not (0 < tol < np.inf):
        raise ValueError(f"verify_torch: `tol` must be a positive finite number; found {tol!r}.")
    fine = isinstance(deliberate, (tuple, list)) and all(
        isinstance(d, (str, type)) for d in deliberate
    )
    if not fine:
        raise TypeError(
            "verify_torch: `deliberate` must be a tuple or list of names, classes or 'file.py:line'; "
            f"found {deliberate!r}."
        )


# ------------------------------------------------------------------ rows


def _rows(i: int, place: Any, run: Any, seed: int) -> list[Row]:
    """One row an argument; the rules inside a refuted place after it."""
    found = _judged(place, seed)
    rows = [_row(i, place, o, found.live.get(o.argument)) for o in found.outcomes]
    if place.kind == "module" and (lines := _cut(run, place.source.scope)):
        cut = lambda row: dataclasses.replace(
            row, verdict=DETACHED, reason=f"{row.reason}; cut by {lines}"
        )
        rows = [cut(row) if row.verdict == REFUTED else row for row in rows]
    inside = run.inner.get(id(place), [])
    if inside and any(row.verdict == REFUTED for row in rows):
        within = [row for p in inside for row in _rows(i, p, run, seed)]
        wrong = [row for row in within if row.verdict in (REFUTED, UNDEFINED)]
        if wrong:
            rows = [dataclasses.replace(row, inner=tuple(wrong)) for row in rows]
            words = f"inside {place.rule} at {place.source}"
            rows += [
                dataclasses.replace(row, reach=rows[0].reach, reason=f"{row.reason}; {words}")
                for row in wrong
            ]
    return rows


def _cut(run: Any, scope: str | None = None) -> str:
    """What cuts a gradient in a module, or in the whole program, by the user's lines."""
    return ", ".join(dict.fromkeys(line for at, line in run.detached if scope in (None, at)))


def _judged(place: Any, seed: int) -> Judged:
    try:
        if place.restless():
            return Judged([Outcome(UNTESTED, 0.0, RESTLESS, 0)], {})
        return judge(place.alone(), place.recorded(), place.arrived(), seed)
    except Exception as error:  # the rule is the user's
        why = " ".join(str(error).split())[:200]
        words = f"it cannot be run on its own: {type(error).__name__}: {why}"
        return Judged([Outcome(UNTESTED, 0.0, words, 0)], {})


def _row(i: int, place: Any, o: Outcome, live: float | None) -> Row:
    group = place.groups[o.argument] if o.argument < len(place.groups) else (0,)
    label = next((place.labels[j] for j in group if place.labels[j]), "")
    shape = tuple(getattr(place.args[group[0]], "shape", ()))
    reason = o.reason
    if place.kind == "module" and o.verdict == REFUTED:
        reason += "; a .detach(), a tensor hook or a C++ function inside"
    reach = None if place.kind == "program" else place.costate()
    return Row(
        verdict=o.verdict,
        gap=o.gap,
        reach=reach,
        live=live,
        rule=place.rule,
        kind=place.kind,
        source=place.source,
        argument=group[0],
        parameter=label,
        index=o.index,
        shape=shape,
        arithmetic=place.arithmetic,
        reason=reason,
        gaps=np.asarray([o.gap]),
        reaches=np.asarray([reach or 0.0]),
        kink=o.kink,
        place=i,
    )


def _guilty(i: int, node: str, source: Source) -> Row:
    """An operation of PyTorch's own that is not finite."""
    return Row(
        verdict=UNDEFINED,
        gap=np.inf,
        rule=node,
        kind="node",
        source=source,
        reason="its derivative is not a number here",
        gaps=np.asarray([np.inf]),
        place=i,
    )


def _declared(row: Row, given: Sequence[Any]) -> Row:
    here = f"{row.file}:{row.line}"
    for item in given:
        name = item if isinstance(item, str) else item.__name__
        fits = name in (row.rule, here) or (":" in name and here.endswith("/" + name))
        if fits and row.verdict not in (EXACT, UNTESTED, UNDEFINED):
            return dataclasses.replace(row, verdict=DELIBERATE, reason=f"declared: {name}")
    return row


def _unseen(run: Any) -> tuple[list[str], list[str]]:
    """What the recorder could not judge, and the verdicts that follow."""
    notes, also = [], []
    if not run.scalar:
        notes.append("not a scalar: <r, outputs> with random r was verified")
    if run.dissolved:
        also.append(UNTESTED)
        names = ", ".join(sorted(set(run.dissolved)))
        notes.append(f"{names}: dissolved by a transform of torch.func; verify the inner function")
    if run.missed:
        also.append(UNTESTED)
        notes.append(
            f"{', '.join(run.missed)}: in the graph, and not met in Python; verify eagerly"
        )
    if run.hooked:
        also.append(UNTESTED)
        notes.append(f"{', '.join(run.hooked)}: a hook on the tensor itself is not verified")
    return notes, also


def _with_whole(
    rows: list[Row], run: Any, deliberate: Sequence[Any], seed: int
) -> tuple[list[Row], str]:
    """The rows, with one for the whole program if its gradient disagrees with differences of its cost
    and no place explains that; and a note on it."""
    explained = (REFUTED, UNDEFINED, DELIBERATE, DETACHED)
    if any(row.verdict in explained for row in rows) or not run.finite:
        return rows, ""
    whole = run.whole
    outcome = _judged(whole, seed).outcomes[0]
    still = ", ".join(f"{name}[{row}]" for name, row in whole.still.items())
    still = f"; {still} has no derivative by `padding_idx`, and was not moved" if still else ""
    if outcome.verdict == CONSISTENT:
        before = "" if rows else "no custom rule: every derivative is PyTorch's own. "
        return rows, (
            f"{before}The gradient agrees with differences of the values along a random direction to "
            f"{outcome.gap:.0e}{still}"
        )
    if outcome.verdict not in (REFUTED, DETACHED):
        before = "" if rows else "no custom rule: every derivative is PyTorch's own. "
        return rows, f"{before}Differences of the values resolve nothing: {outcome.reason}"
    row = _row(len(run.places), whole, outcome, None)
    lines = _cut(run)
    cause = f"cut by {lines}" if lines else UNEXPLAINED
    row = dataclasses.replace(
        row,
        verdict=DETACHED if lines else REFUTED,
        reason=f"{outcome.reason}; no place explains it: {cause}",
        parameter=whole.leaf_of(outcome.index)[0],
        index=whole.leaf_of(outcome.index)[1],
    )
    return [*rows, _declared(row, deliberate)], ""

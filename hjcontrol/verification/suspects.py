"""Rules that a derivative inside a library has used up: where the library's place is refuted, or keeps a
gap, they are tried alone, at random arguments, and the one that is wrong is named.

A root finder linearises the user's function, so that a rule in it leaves no equation to test.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax

from hjcontrol.verification.arithmetic import drawn, is_float
from hjcontrol.verification.certificate import Row
from hjcontrol.verification.naming import Source, users
from hjcontrol.verification.program import Program
from hjcontrol.verification.verdicts import CONSISTENT, REFUTED

LEFT = 1e-6  # a gap that a loop keeps, which a wrong rule inside may explain


def with_suspects(rows: Sequence[Row], program: Program, alone: Callable[..., Any]) -> list[Row]:
    """A library's rows with a gap as those of the rule inside that is wrong. `alone`: verification of a
    function at its arguments."""
    bare = lambda row: (
        (row.verdict == REFUTED or (row.verdict == CONSISTENT and row.gap > LEFT))
        and row.place in program.places
        and not row.inner
        and program.places[row.place].library
    )
    if program.dissolved is None or not any(map(bare, rows)):
        return list(rows)
    wrong = next(_wrong(program, alone), None)
    if wrong is None:
        return list(rows)
    return [_inside(row, wrong) if bare(row) else row for row in rows]


def _inside(row: Row, wrong: Row) -> Row:
    words = f"at random arguments: {wrong.reason}; inside {row.rule} at {row.source}"
    return dataclasses.replace(
        wrong,
        reach=row.reach,
        reason=words,
        place=row.place,
        iteration=row.iteration,
        inner=(wrong,),
    )


def _wrong(program: Program, alone: Callable[..., Any]) -> Iterator[Row]:
    """The worst row of each used-up rule that is refuted."""
    count = program.dissolved
    assert count is not None
    gone = sorted(count.gone(program.closed))
    for own, rule, (args, kwargs) in (made for w in gone for made in count.made[w].values()):
        shapes, structure = jax.tree.flatten((args, kwargs))
        if not users(own.file) or not all(
            isinstance(a, jax.ShapeDtypeStruct) and is_float(a) for a in shapes
        ):
            continue
        given = [drawn(a.shape, a.dtype, 7, i) for i, a in enumerate(shapes)]

        def called(*moved: Any, rule: Any = rule, structure: Any = structure) -> Any:
            args, kwargs = jax.tree.unflatten(structure, moved)
            return rule(*args, **kwargs)

        try:
            found = alone(called, tuple(given)).worst
        except Exception:  # the rule is the user's
            continue
        if found is not None and found.verdict == REFUTED:
            source = Source(own.file, own.line, own.name, library=False)
            yield dataclasses.replace(found, source=source, parameter="")

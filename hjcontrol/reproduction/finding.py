r"""What a check measures: a number, what it was to be, and how near that is near enough.

    =    |ours - expected| <= tolerance        <=    ours <= expected + tolerance
                                               >=    ours >= expected - tolerance

A finding has a role. `stated`: the published sentence, checked literally. `amended`: the same
sentence with
its missing term. `instead`: what is true where the sentence is not. `number`: a published number.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from hjcontrol._ground.annotations import shown
from hjcontrol._ground.arguments import admits

Role = Literal["stated", "amended", "instead", "number"]
Relation = Literal["=", "<=", ">="]


@dataclass(frozen=True)
class Measurement:
    """One measured quantity. `ours` and `expected` have one length; `published` is as it was
    printed."""

    name: str
    role: Role
    relation: Relation
    ours: tuple[float, ...]
    expected: tuple[float, ...]
    tol: float
    published: str = ""

    @property
    def _apart(self) -> list[float]:
        """How far each number is on the wrong side; below 0, by how much a bound holds."""
        apart = [o - e for o, e in zip(self.ours, self.expected, strict=True)]
        if self.relation == "=":
            apart = [abs(a) for a in apart]
        elif self.relation == ">=":
            apart = [-a for a in apart]
        return [a if not math.isnan(a) else math.inf for a in apart]

    @property
    def excess(self) -> float:
        """How far the worst number is from holding without tolerance; 0 or less if it does."""
        return max(self._apart, default=math.inf)

    @property
    def holds(self) -> bool:
        """Whether every number is as expected, to the tolerance. A NaN never is."""
        return self.excess <= self.tol

    @property
    def worst(self) -> int:
        """Which of the numbers is furthest from holding; of a bound, on its wrong side or nearest it."""
        return int(np.argmax(self._apart))


def _numbers(name: str, value: Any) -> tuple[float, ...]:
    try:
        found = np.asarray(value)
        if found.dtype.kind not in "biuf":
            raise TypeError
    except (TypeError, ValueError):
        raise ValueError(
            f"finding {name!r}: real numbers are needed; found {shown(value)}."
        ) from None
    return tuple(float(v) for v in np.ravel(found))


def _finding(name: str, relation: Relation, ours: Any, expected: Any, **rest: Any) -> Measurement:
    ours, expected = _numbers(name, ours), _numbers(name, expected)
    if len(expected) == 1:
        expected = expected * len(ours)
    if len(ours) != len(expected):
        raise ValueError(
            f"finding {name!r}: {len(ours)} numbers were measured and {len(expected)} expected. "
            "Give one expectation for all, or one each."
        )
    return Measurement(name, relation=relation, ours=ours, expected=expected, **rest)


@admits(tol=">= 0")
def equal(
    name: str, ours: Any, expected: Any, tol: float, *, role: Role = "stated", published: str = ""
) -> Measurement:
    """`ours` is `expected`, to an absolute `tol`."""
    return _finding(name, "=", ours, expected, tol=tol, role=role, published=published)


@admits(tol=">= 0")
def zero(
    name: str, residual: Any, tol: float, *, role: Role = "stated", published: str = ""
) -> Measurement:
    """The largest of `residual` in size is 0, to `tol`."""
    largest = float(np.max(np.abs(_numbers(name, residual)), initial=0.0))
    return equal(name, largest, 0.0, tol, role=role, published=published)


@admits(slack=">= 0")
def at_most(
    name: str,
    ours: Any,
    bound: Any,
    *,
    slack: float = 0.0,
    role: Role = "stated",
    published: str = "",
) -> Measurement:
    """`ours` does not exceed `bound` by more than `slack`, which is roundoff's."""
    return _finding(name, "<=", ours, bound, tol=slack, role=role, published=published)


@admits(slack=">= 0")
def at_least(
    name: str,
    ours: Any,
    bound: Any,
    *,
    slack: float = 0.0,
    role: Role = "stated",
    published: str = "",
) -> Measurement:
    """`ours` does not stay below `bound` by more than `slack`."""
    return _finding(name, ">=", ours, bound, tol=slack, role=role, published=published)

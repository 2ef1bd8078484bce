"""A place at one point, as arrays: its arguments, its values, its rule and its derivative."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from hjcontrol.verification.gaps import largest

WORST = 16  # elements whose slopes are taken, kinks that are set aside
DIRECTIONS = 3

Arrays = list[Any]  # one array an argument or an output; `None` where there is none


@dataclasses.dataclass
class Alone:
    """A place at one point. Every call gives one array an argument, or one an output.

    `x`: its arguments. `values(x)`: the body's outputs. `applied()`: the outputs under the rule.
    `rule(r)`: `G(x) r`, `None` for an argument that the rule gives nothing. `derivative(r, salt)`:
    `T(x) r`, `None` for an argument in which the body is opaque; with `salt > 0`, roundoff is drawn at
    every operation. `live`: outputs that a costate reaches. `wide()`: the same place in float64, or
    `None`. `arithmetic`: the dtype's name, `eps` its roundoff. `patience`: kinks set
    aside before a direction is given up, of `directions` tried. `further(n)`: the place with its loops
    run on for `n` sweeps more, or `None` where none goes on.
    """

    x: Arrays
    values: Callable[[Arrays], Arrays]
    applied: Callable[[], Arrays]
    rule: Callable[[Arrays], Arrays]
    derivative: Callable[[Arrays, int], Arrays]
    live: list[bool]
    wide: Callable[[], "Alone | None"]
    arithmetic: str
    eps: float
    patience: int = WORST
    directions: int = DIRECTIONS
    further: Callable[[int], "Alone | None"] = lambda n: None


@dataclasses.dataclass
class Sides:
    """One costate and its two images."""

    r: Arrays
    ours: Arrays
    theirs: Arrays


def scaled(p: Arrays) -> Arrays:
    """`p` times the power of two that makes it of order 1; zeros if it is not finite."""
    finite = all(np.isfinite(a).all() for a in p)
    exponent = int(np.frexp(max([largest(a) for a in p], default=0.0))[1])
    if not finite:
        return [np.zeros_like(a) for a in p]
    half = -exponent // 2
    return [a * 2.0**half * 2.0 ** (-exponent - half) for a in p]


def drawn(recorded: Arrays, live: list[bool], seed: int) -> Arrays:
    """A random costate: zero where an output is not finite or not reached."""
    draw = np.random.default_rng(seed)
    found = []
    for y, reached in zip(recorded, live, strict=True):
        q = draw.normal(size=y.shape)
        q = q + 1j * draw.normal(size=y.shape) if np.iscomplexobj(y) else q
        found.append(np.where(np.isfinite(y), q, 0) * reached)
    return found


def sides_of(alone: Alone, r: Arrays) -> Sides:
    """Both images of a costate: zeros where only the rule gives nothing, `None` where neither does."""
    theirs = alone.derivative(r, 0)
    images = zip(alone.rule(r), theirs, alone.x, strict=True)
    ours = [np.zeros_like(a) if g is None and t is not None else g for g, t, a in images]
    return Sides(r, ours, theirs)

r"""Different sets for different weights: a product of control sets.

    Theta = prod over leaves Theta_leaf        P, bounds, normal cone: leaf by leaf

A product is convex, elementwise or smooth if all its factors are. A leaf that no name fits is free.
"""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
from jaxtyping import PyTree

from hjcontrol._ground.arguments import admits
from hjcontrol.control.control_sets import AbstractControlSet, Free, Path


@admits()
class ByLeaf(AbstractControlSet):
    """A set for the leaves of each name (a field of a module or named tuple, a key of a dictionary);
    the others are free.

    `ByLeaf(W=L1Ball(3.0), step=Nonnegative())`
    """

    sets: dict[str, AbstractControlSet]

    def __init__(self, sets: Mapping[str, AbstractControlSet] | None = None, **named):
        self.sets = dict(sets or {}) | named
        for name, of in self.sets.items():
            _check_member(f"ByLeaf: {name!r}", of)

    @property
    def convex(self) -> bool:
        return all(of.convex for of in self.sets.values())

    @property
    def elementwise(self) -> bool:
        return all(of.elementwise for of in self.sets.values())

    @property
    def smooth(self) -> bool:
        return all(of.smooth for of in self.sets.values())

    def nearest(self, v):
        return v  # a leaf without a name

    def at(self, path, run):
        found = [self.sets[name] for name in _names(path) if name in self.sets]
        return found[-1].at(path, run) if found else Free()

    def check(self, weights: PyTree[Any]) -> None:
        leaves = jax.tree_util.tree_leaves_with_path(tuple(weights))
        names = {str(name) for path, _ in leaves for name in _names(path) if name is not None}
        missing = [name for name in self.sets if name not in names]
        if missing:
            raise ValueError(
                f"ByLeaf: no leaf of the weights is called {', '.join(map(repr, missing))}; there are "
                f"{', '.join(sorted(names)) or 'no names at all'}."
            )
        AbstractControlSet.check(self, weights)


@admits()
class ByRun(AbstractControlSet):
    """A set for each run of equal stages, in order of depth; one for every run of the chain."""

    sets: tuple[AbstractControlSet, ...] = eqx.field(converter=tuple)

    def __check_init__(self):
        for r, of in enumerate(self.sets):
            _check_member(f"ByRun: run {r}", of)

    @property
    def convex(self) -> bool:
        return all(of.convex for of in self.sets)

    @property
    def elementwise(self) -> bool:
        return all(of.elementwise for of in self.sets)

    @property
    def smooth(self) -> bool:
        return all(of.smooth for of in self.sets)

    def nearest(self, v):
        return v  # of no run

    def at(self, path, run):
        return self.sets[run].at(path, run)

    def check(self, weights: PyTree[Any]) -> None:
        if len(weights) != len(self.sets):
            raise ValueError(
                f"ByRun: one set for every run of equal stages is needed, {len(weights)}; found "
                f"{len(self.sets)}."
            )
        for of, theta in zip(self.sets, weights, strict=True):
            of.check((theta,))


def _names(path: Path) -> list[Any]:
    return [getattr(k, "name", getattr(k, "key", None)) for k in path]


def _check_member(where: str, of: Any) -> None:
    if not isinstance(of, AbstractControlSet):
        raise ValueError(f"{where} needs a control set; found {type(of).__name__}.")

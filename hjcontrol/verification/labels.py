"""What the inputs of an equation are called: leaves of the function's arguments, followed through casts,
slices and reshapes.

A leaf that was moved on its way (sliced, transposed, scanned along) keeps its name; its elements then
have other indices than where the user reads them.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from jax.extend.core import Jaxpr, JaxprEqn, Literal


class Label(NamedTuple):
    """A leaf's name, "" where it is none; whether its elements were moved."""

    name: str = ""
    moved: bool = False


Labels = dict[Any, Label]


def label_of(labels: Labels, atom: Any) -> Label:
    """What a variable is called; nothing of a literal."""
    return Label() if isinstance(atom, Literal) else labels.get(atom, Label())


def renames(eqn: JaxprEqn) -> bool:
    """Whether an equation's result is its first input, moved at most."""
    return eqn.primitive.name in _STAYS or eqn.primitive.name in _MOVES


def carried_on(eqn: JaxprEqn, label: Label) -> Label:
    """The label of the result of an equation that renames."""
    same = eqn.primitive.name == "reshape" and _shape(eqn.invars[0]) == _shape(eqn.outvars[0])
    return label._replace(moved=label.moved or (eqn.primitive.name in _MOVES and not same))


def passed(jaxpr: Jaxpr, labels: Sequence[Label]) -> list[Label]:
    """Labels of a call's results that are its own inputs, moved at most."""
    found: Labels = dict(zip(jaxpr.invars, labels, strict=True))
    for eqn in jaxpr.eqns:
        if renames(eqn):
            found[eqn.outvars[0]] = carried_on(eqn, label_of(found, eqn.invars[0]))
    return [label_of(found, v) for v in jaxpr.outvars]


def _shape(atom: Any) -> tuple[int, ...]:
    return tuple(atom.aval.shape)


_STAYS = frozenset(
    {"convert_element_type", "copy", "copy_p", "reduce_precision", "sharding_constraint"}
)
_MOVES = frozenset(
    {"reshape", "squeeze", "expand_dims", "broadcast_in_dim", "transpose", "slice", "dynamic_slice"}
)

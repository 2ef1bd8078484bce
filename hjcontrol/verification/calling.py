"""A place's rule called as the program calls it, and its primal.

A rule may ask what is perturbed (`symbolic_zeros=True`): inputs that nothing differentiates, and outputs
whose costate is no array but a symbolic zero. So only active inputs are differentiated, and of such a
rule only live outputs.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax

from hjcontrol._ground.jaxprs import bind
from hjcontrol.verification.inlining import opened_up
from hjcontrol.verification.places import Place


def called(place: Place, ins: Sequence[Any]) -> list[Any]:
    """The place's values, its rule kept."""
    return list(bind(place.eqn, ins))


def primal(place: Place, ins: Sequence[Any]) -> list[Any]:
    """The place's values, rules set aside. An equation of JAX's own stands for itself."""
    return list(opened_up(place.eqn, list(ins)))


def along(function: Any, ins: Sequence[Any], judged: Sequence[int]) -> Any:
    """`function` of the judged inputs, the others held."""

    def moved(*some: Any) -> list[Any]:
        full = list(ins)
        for i, a in zip(judged, some, strict=True):
            full[i] = a
        return function(full)

    return moved


def pulled(place: Place, ins: Sequence[Any], judged: Sequence[int]) -> tuple[list[Any], Any]:
    """The values that the rule's forward pass returns, and `G`: of costates of all outputs, one image
    a judged input."""
    function = along(functools.partial(called, place), ins, judged)
    x = [ins[i] for i in judged]
    if all(place.live) or not place.eqn.params.get("symbolic_zeros"):
        outs, pull = jax.vjp(function, *x)
        return list(outs), pull

    def split(*x: Any) -> Any:
        outs = function(*x)
        return [o for o, live in zip(outs, place.live, strict=True) if live], outs

    _, pull, outs = jax.vjp(split, *x, has_aux=True)
    return list(outs), jax.tree_util.Partial(_OfLive(place.live), pull)


class _OfLive(NamedTuple):
    """The images of live outputs' costates."""

    live: tuple[bool, ...]

    def __call__(self, pull: Any, p: Sequence[Any]) -> Any:
        return pull([a for a, live in zip(p, self.live, strict=True) if live])

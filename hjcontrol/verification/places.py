"""Places: the equations of a program whose derivative somebody wrote, and what each is called.

    place  =  custom_vjp | custom_jvp | linear_call | custom_linear_solve | shard_map with a rule inside
              | a foreign primitive | stop_gradient             (`every`: any differentiable equation)

Two analyses say what of a place can be judged, both fixpoints over what loops carry:

    active    an input depends on what is differentiated           forward
    live      an output reaches the cost through differentiable paths   backward, `stop_gradient` ends it

A place without an active input or a live output is no part of the backward pass and is left out.
"""

import dataclasses
import itertools
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal

from hjcontrol._ground.jaxprs import CALL_PRIMITIVES, bodies, called_jaxpr, scan_counts
from hjcontrol.verification.activity import (
    ENDS,
    differentiable,
    flow,
    get,
    inputs,
    loop,
    reach,
    wanted_refs,
)
from hjcontrol.verification.authorship import foreign, users_rule
from hjcontrol.verification.inlining import RULES, WRITTEN, holds_rule, written
from hjcontrol.verification.labels import Label, Labels, carried_on, label_of, passed, renames
from hjcontrol.verification.naming import Source, located, rule_name
from hjcontrol.verification.references import is_ref

LOOPS = frozenset({"scan", "while", "cond"})


@dataclasses.dataclass(frozen=True, eq=False)
class Place:
    """One equation to judge. `lengths`: of the scans around it; `loops`: with `while`s, as `None`."""

    index: int
    eqn: JaxprEqn
    kind: str
    name: str
    source: Source
    active: tuple[bool, ...]
    live: tuple[bool, ...]
    lengths: tuple[int, ...]
    branched: bool  # a cond or a while stands around it
    reads: tuple[bool, ...]  # whether a live output depends on the input, whatever its derivative
    arguments: tuple[Label, ...]  # what each input is: a leaf of fn's arguments, or nothing
    read: tuple[bool, ...]  # whether an equation, or the result, takes the output

    @property
    def certain(self) -> bool:
        """Whether it is run once and for sure: no scan, cond or while around it."""
        return not self.lengths and not self.branched

    @property
    def library(self) -> str:
        """The library whose rule it is: such a rule is held to the costate that arrives, for a
        library may rely on costates that are always zero."""
        return self.source.within

    @property
    def marked(self) -> bool:
        """Whether the witness made the place: a chain's stage."""
        return self.name.split(".")[-1].startswith("hj_")

    @property
    def told(self) -> tuple[bool, ...]:
        """Outputs whose values the program reads, by whatever path: a wrong one leads it astray. Of a
        library's rule, those that are live."""
        return self.live if self.library else self.read

    @property
    def mutable(self) -> bool:
        """Whether the place reads or writes a ref that is made outside it: it cannot run alone."""
        return any(map(is_ref, self.eqn.invars))

    @property
    def ends(self) -> bool:
        """Whether the place cuts its costate: `stop_gradient`."""
        return self.kind == "stop_gradient"


@dataclasses.dataclass(frozen=True)
class Step:
    """What to do with one equation: nothing special, judge it, or look into its bodies."""

    place: Place | None = None
    plans: tuple["Plan", ...] = ()
    still: bool = False  # nothing that is differentiated enters

    @property
    def indices(self) -> tuple[int, ...]:
        """Places here and in the bodies."""
        own = () if self.place is None else (self.place.index,)
        return own + tuple(i for plan in self.plans for i in plan.indices)


@dataclasses.dataclass(frozen=True)
class Plan:
    """One `Step` an equation."""

    steps: tuple[Step, ...]

    @property
    def places(self) -> Iterator[Place]:
        """All places, those of inner programs included."""
        for step in self.steps:
            if step.place is not None:
                yield step.place
            for plan in step.plans:
                yield from plan.places

    @property
    def indices(self) -> tuple[int, ...]:
        """Their indices."""
        return tuple(place.index for place in self.places)


def planned(
    closed: ClosedJaxpr,
    active: Sequence[bool],
    arguments: Sequence[Label],
    *,
    every: bool = False,
    whiles: bool = False,
) -> Plan:
    """The places of a program.

    **Arguments:** `active`: which inputs are differentiated; `arguments`: what each is called;
    `every`: any differentiable equation is a place; `whiles`: look for places in `while` loops too,
    where no reverse mode goes.
    """
    jaxpr = closed.jaxpr
    known = flow(jaxpr, active)
    live = [differentiable(v) for v in jaxpr.outvars]
    builder = _Builder(every, whiles, itertools.count())
    return builder.plan(jaxpr, list(active), live, list(arguments), Source(), (), known)


class _Builder:
    def __init__(self, every: bool, whiles: bool, numbers: Iterator[int]):
        self.every, self.whiles, self.numbers = every, whiles, numbers

    def plan(
        self,
        jaxpr: Jaxpr,
        active: list[bool],
        live: list[bool],
        arguments: list[Label],
        outer: Source,
        lengths: tuple[int, ...],
        known: dict[Any, bool] | None = None,
        branched: bool = False,
    ) -> Plan:
        known = flow(jaxpr, active) if known is None else known
        wanted = reach(jaxpr, known, live)
        names: Labels = dict(zip(jaxpr.invars, arguments, strict=True))
        taken = [*jaxpr.outvars, *(v for eqn in jaxpr.eqns for v in eqn.invars)]
        read = {v for v in taken if not isinstance(v, Literal)}
        steps = []
        for eqn in jaxpr.eqns:
            source = written_at(eqn, outer)
            labels = [label_of(names, v) for v in eqn.invars]
            steps.append(self._step(eqn, known, wanted, read, labels, source, lengths, branched))
            if renames(eqn):
                names[eqn.outvars[0]] = carried_on(eqn, labels[0])
            elif (inner := called_jaxpr(eqn)) is not None and eqn.primitive.name not in RULES:
                names.update(zip(eqn.outvars, passed(inner.jaxpr, labels), strict=True))
        return Plan(tuple(steps))

    def _step(
        self,
        eqn: JaxprEqn,
        known: dict[Any, bool],
        wanted: dict[Any, bool],
        read: Collection[Any],
        labels: list[Label],
        source: Source,
        lengths: tuple[int, ...],
        branched: bool,
    ) -> Step:
        name = eqn.primitive.name
        active = tuple(get(known, v) for v in eqn.invars)
        cut = name == "stop_gradient"
        live = tuple(wanted.get(v, False) and (cut or known.get(v, False)) for v in eqn.outvars)
        if not any(active) or not (any(live) or wanted_refs(eqn, wanted)):
            return Step(still=not any(active))
        kind = self._kind(eqn)
        if kind is not None:
            place = Place(
                next(self.numbers),
                eqn,
                kind,
                rule_name(eqn),
                source,
                active,
                live,
                lengths,
                branched,
                _reads(eqn, live),
                tuple(labels),
                tuple(v in read for v in eqn.outvars),
            )
            return Step(place)
        if name == "while" and not self.whiles:
            return Step()
        inside = self._inside(eqn, active, live, labels, source, lengths, branched)
        return Step(plans=inside) if any(plan.indices for plan in inside) else Step()

    def _kind(self, eqn: JaxprEqn) -> str | None:
        name = eqn.primitive.name
        if foreign(eqn.primitive):
            return "primitive"
        if name in WRITTEN:
            return name.removesuffix("_call_jaxpr").removesuffix("_call") if name in RULES else name
        if name == "stop_gradient":
            return name
        if name == "shard_map":
            return name if self.every or holds_rule(eqn) else None
        if name in LOOPS or name in CALL_PRIMITIVES or name in ENDS:
            return None
        if any(map(is_ref, (*eqn.invars, *eqn.outvars))):
            return None
        return "equation" if self.every else None

    def _inside(
        self,
        eqn: JaxprEqn,
        active: tuple[bool, ...],
        live: tuple[bool, ...],
        labels: list[Label],
        source: Source,
        lengths: tuple[int, ...],
        branched: bool,
    ) -> tuple[Plan, ...]:
        name = eqn.primitive.name
        if (inner := called_jaxpr(eqn)) is not None:
            flags = list(active), list(live)
            return (self.plan(inner.jaxpr, *flags, labels, source, lengths, None, branched),)
        if name == "scan":
            consts, carried = scan_counts(eqn)
            body = eqn.params["jaxpr"].jaxpr
            entry, leaving = loop(body, list(active), list(live), consts, carried)
            scanned = [label._replace(moved=True) for label in labels[consts + carried :]]
            inner_labels = [*labels[:consts], *[Label()] * carried, *scanned]
            deeper = (*lengths, eqn.params["length"])
            return (self.plan(body, entry, leaving, inner_labels, source, deeper, None, branched),)
        if name == "while":
            c, b = eqn.params["cond_nconsts"], eqn.params["body_nconsts"]
            body = eqn.params["body_jaxpr"].jaxpr
            entry, leaving = loop(body, list(active[c:]), list(live), b, len(active) - c - b)
            inner_labels = [*labels[c : c + b], *[Label()] * (len(labels) - c - b)]
            return (self.plan(body, entry, leaving, inner_labels, source, lengths, None, True),)
        if name == "cond":
            return tuple(
                self.plan(
                    b.jaxpr, list(active[1:]), list(live), labels[1:], source, lengths, None, True
                )
                for b in eqn.params["branches"]
            )
        return ()


def written_at(eqn: JaxprEqn, outer: Source) -> Source:
    """`located`; a rule that the user wrote is the user's, whatever library calls it."""
    source = located(eqn, outer)
    if source.within and written(eqn) and users_rule(eqn):
        return dataclasses.replace(source, within="")
    return source


def holds_users_rule(place: Place) -> bool:
    """Whether a rule that is no library's own sits inside a place."""

    def inside(eqn: JaxprEqn, outer: Source) -> bool:
        for body in bodies(eqn):
            for inner in body.eqns:
                source = written_at(inner, outer)
                if written(inner) and not source.within:
                    return True
                if inside(inner, source):
                    return True
        return False

    return inside(place.eqn, place.source)


def _reads(eqn: JaxprEqn, live: tuple[bool, ...]) -> tuple[bool, ...]:
    if eqn.primitive.name not in RULES:
        return (True,) * len(eqn.invars)
    inner = next(iter(bodies(eqn)))
    sizes = [int(np.prod(v.aval.shape)) for v in eqn.invars]
    used = inputs(inner, [True] * len(eqn.invars), list(live), False)
    return tuple(a and size > 0 for a, size in zip(used, sizes, strict=True))

r"""A user's function as a program: traced once for its shapes, its rules kept, its places planned.

    J(args) scalar,  or  <r, outputs>  with a fixed random r  where fn has other outputs

A program is kept, by function, what the function can see, and shapes: a second call with other values
traces nothing, and what was rebound or changed since is traced anew.
"""

import collections
import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr
from jaxtyping import Array

from hjcontrol._ground.quick import different_jit, quick_jit
from hjcontrol._ground.visible import visible
from hjcontrol.verification.arithmetic import drawn, is_float
from hjcontrol.verification.dissolved import Count, watched
from hjcontrol.verification.families import MEMBERS, families, measured_alone, told
from hjcontrol.verification.labels import Label
from hjcontrol.verification.places import Place, Plan, planned
from hjcontrol.verification.references import leaving_as_found
from hjcontrol.verification.rule import Maps, Settings, maps_of
from hjcontrol.verification.slots import (
    empty,
    empty_record,
    empty_whole,
    looking,
    measuring,
    recording,
    restored,
    run,
)

KEPT = 64  # programs remembered


class Measured(NamedTuple):
    """One run: the cost, its gradient by leaf (flat, active leaves only), a table for each place."""

    cost: Array
    gradient: list[Array]
    tables: dict[Any, Any]


class Program:
    """`fn` for arguments of one structure and shape."""

    def __init__(
        self,
        closed: ClosedJaxpr,
        active: Sequence[bool],
        labels: Sequence[Label],
        *,
        every: bool = False,
        whiles: bool = False,
        blame: bool = False,
        order: int = 1,
        scalar: bool = True,
        dissolved: Count | None = None,
        quick: bool = False,
    ):
        self.closed, self.active, self.labels = closed, tuple(active), tuple(labels)
        self.scalar, self.dissolved, self.order = scalar, dissolved, order
        self.jit, self.jit_alone = (quick_jit,) * 2 if quick else (jax.jit, different_jit)
        self.plan: Plan = planned(closed, active, labels, every=every or blame, whiles=whiles)
        self.places: dict[int, Place] = {place.index: place for place in self.plan.places}
        self.maps: dict[int, Maps] = {i: maps_of(place) for i, place in self.places.items()}
        if blame:  # values and rules are looked at, no derivative is taken beside them
            self.maps = {
                i: m if m.mode == "none" else m._replace(mode="differences")
                for i, m in self.maps.items()
            }
        self.groups: dict[int, Any] = {}
        self.families: list[tuple[int, ...]] = []  # known once the program is traced
        self.trials: dict[int, Any] = {}
        self.inner: dict[int, Any] = {}
        self._programs: dict[Any, Callable] = {}

    @property
    def used_up(self) -> list[str]:
        """Names of the rules that a derivative inside the function has used up."""
        return [] if self.dissolved is None else self.dissolved.missing(self.closed)

    def compiled(self, key: Any, make: Callable[[], Callable]) -> Callable:
        if key not in self._programs:
            self._programs[key] = leaving_as_found(self.jit(make()), self.closed.consts)
        return self._programs[key]

    def _run(self, settings: Settings) -> Callable:
        def measure(leaves: list[Any], seed: Any, weights: Any) -> Measured:
            self.families = self._families(leaves, weights)
            taken = {i for family in self.families for i in family}
            slots = {
                i: empty_whole(m) if i in taken else empty(m, seed) for i, m in self.maps.items()
            }
            at = [k for k, a in enumerate(self.active) if a]
            visit = measuring(self.maps, self.groups, settings, taken)

            def cost(moved: list[Any], slots: Any) -> Array:
                return self.cost(self.merged(leaves, at, moved), slots, visit, weights)

            moved = [leaves[k] for k in at]
            value, (gradient, tables) = jax.value_and_grad(cost, argnums=(0, 1))(moved, slots)
            return Measured(value, gradient, tables)

        return measure

    def _families(self, leaves: Sequence[Any], weights: Any) -> list[tuple[int, ...]]:
        if len(self.places) < MEMBERS:
            return []
        slots = dict.fromkeys(self.maps)
        visit = looking(self.maps, self.groups)
        jax.eval_shape(lambda a, w: self.cost(a, slots, visit, w), list(leaves), weights)
        return families(self.maps, self.groups)

    def merged(self, leaves: list[Any], at: list[int], moved: list[Any]) -> list[Any]:
        full = list(leaves)
        for k, a in zip(at, moved, strict=True):
            full[k] = a
        return full

    def cost(self, leaves: Sequence[Any], slots: Any, visit: Any, weights: Any) -> Array:
        """The scalar whose backward pass is judged. `weights`: of the outputs, or `None`."""
        outs = run(self.closed, self.plan, leaves, slots, visit)
        return contracted(outs, weights)

    def measure(
        self, leaves: list[Any], seed: int = 0, random: bool = True, weights: Any = None
    ) -> Measured:
        """One gradient and every place's table."""
        settings = Settings(random, self.order)
        program = self.compiled(("measure", settings), lambda: self._run(settings))
        at = jnp.asarray(seed, jnp.int32)
        found = program(leaves, at, weights)
        for family in self.families:
            alone = self._alone(family[0], settings)
            found.tables.update({i: alone(found.tables[i], at) for i in family})
        return found._replace(tables=told(jax.device_get(found.tables), self.maps))

    def _alone(self, index: int, settings: Settings) -> Any:
        """What measures the family of a place: from a member's record and the seed, its table."""
        key, maps, groups = ("alone", index, settings), self.maps[index], self.groups[index]
        if key not in self._programs:
            own = lambda record, seed: measured_alone(maps, groups, record, seed, settings)
            self._programs[key] = self.jit_alone(own)
        return self._programs[key]

    def lowered(self, leaves: list[Any]) -> list[Any]:
        """The measuring programs for these arguments, lowered and not yet compiled: the whole one, and
        one for each family."""
        settings, seed = Settings(True, self.order), jnp.asarray(0, jnp.int32)
        whole = jax.jit(self._run(settings)).lower(leaves, seed, None)
        records = whole.out_info.tables
        first = [family[0] for family in self.families]
        return [whole, *(self._alone(i, settings).lower(records[i], seed) for i in first)]

    def record(
        self,
        index: int,
        leaves: list[Any],
        iterations: Sequence[tuple[int, ...]],
        weights: Any = None,
    ) -> list[tuple[list[Any], list[Any]]]:
        """A place's inputs and floating costates at chosen iterations of the scans around it."""
        place = self.places[index]
        chosen = np.zeros((*place.lengths, len(iterations)))
        for j, at in enumerate(iterations):
            chosen[(*at, j)] = 1.0
        program = self.compiled(("record", index), lambda: self._record(index))
        _, ins, costates = jax.device_get(program(leaves, jnp.asarray(chosen), weights))
        avals = [v.aval for v in place.eqn.invars]
        return [
            (
                [restored(a[j], aval) for a, aval in zip(ins, avals, strict=True)],
                [jnp.asarray(p[j]) for p in costates],
            )
            for j in range(len(iterations))
        ]

    def _record(self, index: int) -> Callable:
        visit = recording(index, self.maps)

        def record(leaves: list[Any], chosen: Any, weights: Any) -> Any:
            slot = empty_record(self.maps[index], chosen)

            at = [k for k, a in enumerate(self.active) if a]

            # The arguments are differentiated too: a library's rule may ask what is perturbed.
            def cost(slot: Any, moved: list[Any]) -> Array:
                slots = {i: _void(m) for i, m in self.maps.items()} | {index: slot}
                return self.cost(self.merged(leaves, at, moved), slots, visit, weights)

            return jax.grad(cost, argnums=(0, 1))(slot, [leaves[k] for k in at])[0]

        return record


def _void(maps: Maps) -> Array:
    return jnp.zeros(maps.place.lengths)


def contracted(outs: Sequence[Any], weights: Sequence[Any] | None = None) -> Array:
    """A scalar output as it is; of anything else `<r, outputs>`, the real part, `r` the weights or
    random."""
    floats = [o for o in outs if is_float(o)]
    if weights is None and len(outs) == 1 and _is_scalar(outs[0]):
        return outs[0]
    if weights is None:
        floats = [jnp.asarray(o) for o in floats]  # a number of Python's is a constant result
        weights = [drawn(o.shape, o.dtype, 0, 1009 + k) for k, o in enumerate(floats)]
    parts = [jnp.sum((o * r).real) for o, r in zip(floats, weights, strict=True)]
    return sum(parts[1:], parts[0])


def _is_scalar(out: Any) -> bool:
    return jnp.shape(out) == () and not jnp.iscomplexobj(out)


_FORGOTTEN: list[None] = []


@jax.jit
def _forgetting() -> int:
    _FORGOTTEN.append(None)
    return 0


def _forgotten() -> int:
    """How often JAX has lost its own traces (`jax.clear_caches`), of which programs are made."""
    jax.eval_shape(_forgetting)
    return len(_FORGOTTEN)


_PROGRAMS: collections.OrderedDict[Any, Any] = collections.OrderedDict()


def remembered(key: Any, reads: Any, make: Callable[[], Any]) -> Any:
    """`make()`, or what it gave for an equal key before, if nothing has changed since that can be seen
    from `reads`. What cannot be hashed, or sees too much, is made anew."""
    seen = visible(reads)
    try:
        found = None if seen is None else _PROGRAMS.get((key, seen))
    except TypeError:
        return make()
    if found is not None:
        _PROGRAMS.move_to_end((key, seen))
        return found
    found = make()
    if (
        seen is not None
    ):  # tracing may have filled a memo of the function's own: it is looked at again
        _PROGRAMS[key, visible(reads)] = found
        while len(_PROGRAMS) > KEPT:
            _PROGRAMS.popitem(last=False)
    return found


class Call(NamedTuple):
    """A call of the user's function: its program, and the flat arrays it is called with."""

    program: Program
    leaves: list[Any]
    structure: Any  # of (fn, args), arrays only
    at: tuple[int, ...]  # which leaves are differentiated


def called_with(
    fn: Callable,
    args: tuple[Any, ...],
    wanted: Callable[[Any], bool],
    *,
    has_aux: bool = False,
    name: Callable[[Any], str] | None = None,
    **settings: Any,
) -> Call:
    """State the program of `fn(*args)`.

    **Arguments:** `wanted`: whether the leaf at a path of `(fn, args)` is differentiated, if it is
    floating; `name`: what the leaf at a path is called; `settings`: as in `Program`.
    """
    dynamic, static = eqx.partition(
        (fn, args), jax.tree_util.tree_map_with_path(_is_dynamic, (fn, args))
    )
    paths, structure = jax.tree_util.tree_flatten_with_path(dynamic)
    leaves = [a if eqx.is_array(a) else jnp.asarray(a) for _, a in paths]
    chosen = [is_float(a) and wanted(path) for a, (path, _) in zip(leaves, paths, strict=True)]
    shapes = tuple((a.shape, a.dtype, getattr(a, "weak_type", False)) for a in leaves)
    fixed, outline = jax.tree.flatten(static)
    context = (bool(jax.config.jax_enable_x64), jax.config.jax_default_matmul_precision)
    asked = (has_aux, tuple(sorted(settings.items())), tuple(chosen), context, _forgotten())
    key = (structure, outline, tuple(fixed), shapes, asked)

    def make() -> Program:
        def flat(*leaves: Any) -> Any:
            f, a = eqx.combine(jax.tree.unflatten(structure, leaves), static)
            out = f(*a)
            if has_aux and not (isinstance(out, tuple) and len(out) == 2):
                raise TypeError(
                    "verify: with `has_aux=True` fn returns a pair `(value, anything)`; found "
                    f"{type(out).__name__}."
                )
            return out[0] if has_aux else out

        closed, shape, count = watched(flat, leaves)
        outs = jax.tree.leaves(shape)
        if not any(is_float(o) for o in outs):
            raise ValueError(
                "verify: `fn` must return something differentiable, a floating scalar or floating "
                f"arrays; found {_kinds(outs)}."
            )
        title = (lambda path: label(path, fn)) if name is None else name
        scalar = len(outs) == 1 and _is_scalar(outs[0])
        labels = [Label(title(path)) for path, _ in paths]
        return Program(closed, chosen, labels, scalar=scalar, dissolved=count, **settings)

    program = remembered(key, static, make)
    return Call(program, leaves, structure, tuple(k for k, c in enumerate(chosen) if c))


def _kinds(outs: Sequence[Any]) -> str:
    return ", ".join(str(getattr(o, "dtype", type(o).__name__)) for o in outs) or "nothing"


def _is_dynamic(path: Any, a: Any) -> bool:
    """Arrays; and bare numbers among the arguments, though not in the fields of a module."""
    if eqx.is_array(a):
        return True
    field = any(isinstance(key, jax.tree_util.GetAttrKey) for key in path)
    return isinstance(a, (float, complex, np.generic)) and not field and path[0].idx == 1


def label(path: Any, fn: Callable) -> str:
    """What a leaf of `(fn, args)` is called: `params['w']`, or `.layers[0].weight` of `fn` itself."""
    if path[0].idx == 0:
        return jax.tree_util.keystr(tuple(path[1:]))
    return _argument(fn, path[1].idx) + jax.tree_util.keystr(tuple(path[2:]))


def _argument(fn: Callable, k: int) -> str:
    try:
        parameters = list(inspect.signature(fn).parameters.values())
    except (TypeError, ValueError):
        return f"args[{k}]"
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if k < len(parameters) and parameters[k].kind in kinds:
        return parameters[k].name
    return f"args[{k}]"

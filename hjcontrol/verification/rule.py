r"""One place's two linear maps of a costate, and what is measured of them where the program runs.

    G(x) r   what reverse mode really calls: the rule that somebody wrote
    T(x) r   the transposed derivative of the place's primal, rules inside it set aside

    r = 2^k p + q       p: the costate that arrives, scaled to order 1;   q: random

`q` needs no network above the place: zero heads, dead layers and underflow cannot hide a rule. Both are
linear in `r`, so one comparison judges both, element by element, in every argument. Inputs that are the
same array are one argument. Where reverse mode of the primal does not exist (a `while`), forward mode is
paired, `<r, J v>` with `<G r, v>`, along one random `v`; where no derivative exists, `mode` is
"differences" and the place is left to a trial of its own.
"""

import functools
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr
from jaxtyping import Array, Float

from hjcontrol.verification.arithmetic import drawn, is_float, noisy
from hjcontrol.verification.calling import along, primal, pulled
from hjcontrol.verification.images import Compared, compared, gathered, paired, relative
from hjcontrol.verification.places import Place

Mode = Literal["reverse", "forward", "differences", "none"]
PAIRED = 6  # arguments paired one by one
# Of each argument, as the host tells it.
FIELDS = ("visits", "gap", "reach", "live", "values", "undefined", "second", "apart")
(VISITS, GAP, REACH, LIVE, VALUES, GUILTY, SECOND, APART) = range(len(FIELDS))
# As the program measures it: of the place, then of the argument.
OF_PLACE = ("visits", "second", "reach", "unsound", "met", "outside", "off", "height", "parted")
RAW = (*OF_PLACE, *Compared._fields)
CALM = {8: 100.0, 4: 20.0}  # decades in which a costate is scaled without losing digits
Group = tuple[int, ...]


class Maps(NamedTuple):
    """A place's values and maps as functions of its flat inputs."""

    place: Place
    inputs: tuple[int, ...]  # positions that are judged
    mode: Mode


def maps_of(place: Place) -> Maps:
    """Which inputs are judged, and which derivative of the primal there is. Decided while tracing."""
    judged = tuple(i for i in _judged(place) if place.active[i] and not place.mutable)
    if place.ends or place.mutable:
        return Maps(place, judged, "none")
    avals = [v.aval for v in place.eqn.invars]
    shapes = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in avals]
    trials = [("reverse", _tried_reverse), ("forward", _tried_forward)]
    for mode, trial in trials[1:] if place.kind == "equation" else trials:
        try:
            jax.eval_shape(functools.partial(trial, place, judged), *shapes)
        except Exception:  # whatever a primitive without this derivative raises
            continue
        return Maps(place, judged, mode)
    return Maps(place, judged, "differences")


def _judged(place: Place) -> Sequence[int]:
    """Inputs that the primal reads. A linear solve's primal is its `solve`, on its own constants."""
    count = len(place.eqn.invars)
    if place.kind != "custom_linear_solve":
        return range(count)
    lengths = place.eqn.params["const_lengths"]
    start = lengths.matvec + lengths.vecmat
    outside = place.eqn.invars[:start]
    own = range(start, start + lengths.solve)
    shared = [i for i in own if any(place.eqn.invars[i] is v for v in outside)]
    first = [
        i for i in range(start) if any(place.eqn.invars[i] is place.eqn.invars[j] for j in shared)
    ]
    return [*first, *shared, *range(sum(lengths), count)]


def _tried_reverse(place: Place, judged: Sequence[int], *ins: Any) -> Any:
    outs, pull = jax.vjp(along(functools.partial(primal, place), ins, judged), *_at(ins, judged))
    return pull([_zero(o) for o in outs])


def _tried_forward(place: Place, judged: Sequence[int], *ins: Any) -> Any:
    x = _at(ins, judged)
    return jax.jvp(along(functools.partial(primal, place), ins, judged), x, x)


def _at(ins: Sequence[Any], judged: Sequence[int]) -> list[Any]:
    return [ins[i] for i in judged]


def groups_of(ins: Sequence[Any], judged: Sequence[int]) -> tuple[Group, ...]:
    """Judged inputs by identity: the same array entering twice is one argument."""
    found: dict[int, list[int]] = {}
    for position, i in enumerate(judged):
        found.setdefault(id(ins[i]), []).append(position)
    return tuple(tuple(g) for g in found.values())


def _zero(out: Any) -> Any:
    if is_float(out):
        return jnp.zeros(out.shape, out.dtype)
    return np.zeros(jnp.shape(out), jax.dtypes.float0)


def random_costate(place: Place, outs: Sequence[Any], seed: Any) -> list[Any]:
    """`q`: zero where an output is not live, or its value is not finite (padding is `inf`)."""
    found = []
    for k, (out, live) in enumerate(zip(outs, place.live, strict=True)):
        if not is_float(out) or not live:
            found.append(_zero(out))
            continue
        q = drawn(out.shape, out.dtype, seed, 31 * place.index + 7 * k + 1)
        found.append(jnp.where(jnp.isfinite(out), q, 0))
    return found


def combined(p: Sequence[Any], q: Sequence[Any], scale: Any, use: Any) -> list[Any]:
    """`2^k p + q`, the first only if `use`."""
    return [
        a + jnp.where(use, b * scale.astype(b.real.dtype), 0) if is_float(b) else b
        for a, b in zip(q, p, strict=True)
    ]


def largest(parts: Sequence[Any]) -> Float[Array, ""]:
    """`max |.|` over arrays; NaN spreads."""
    wide = slot_dtype()
    found = [jnp.max(jnp.abs(a), initial=0.0).astype(wide) for a in parts if is_float(a)]
    return functools.reduce(jnp.maximum, found, jnp.zeros((), wide))


def slot_dtype() -> Any:
    """The widest floating dtype there is: measurements span its range."""
    return jnp.zeros(()).dtype if not jax.config.jax_enable_x64 else np.dtype(np.float64)


def exponent(size: Float[Array, ""]) -> tuple[Float[Array, ""], Any]:
    """`2^k` with `2^k size` in [1/2, 1), and whether scaling by it loses no digits."""
    calm = 10.0 ** CALM[np.dtype(size.dtype).itemsize]
    fit = (size > 1 / calm) & (size < calm)
    _, k = jnp.frexp(jnp.where(fit, size, 1.0))
    return jnp.ldexp(jnp.ones((), size.dtype), -k), fit


def measured(
    maps: Maps,
    groups: tuple[Group, ...],
    ins: Sequence[Any],
    outs: Sequence[Any],
    p: Any,
    by_rule: Any,
    pull: Any,
    seed: Any,
    settings: "Settings",
) -> Float[Array, "groups raw"]:
    """One row an argument, see `RAW` and `finished`. `p`: the costate that arrives, `None` where there is
    none; `by_rule`: `G p`; `pull`: `G` itself; `outs`: what the rule's forward pass returned."""
    place, rows = maps.place, functools.partial(_rows, max(len(groups), 1))
    if maps.mode == "none":
        if p is None:
            return rows({})
        reach, projection = _cut(p, seed)
        return rows({"reach": reach, "second": projection})
    if not groups:  # a solve of which only the matrix moves: its adjoint is JAX's own
        return rows({})
    q = random_costate(place, outs, seed)
    if not settings.random:
        q = [a if not is_float(a) else jnp.zeros_like(a) for a in q]
    arrives = p is not None
    images: Any = None if maps.mode == "differences" and arrives else pull(q)
    x = _at(ins, maps.inputs)
    function = along(functools.partial(primal, place), ins, maps.inputs)
    pair: Any = jax.vjp(function, *x) if maps.mode == "reverse" else (None, None)
    values, transpose = pair
    p, by_rule = (p, by_rule) if arrives else (q, images)
    told = _about_outputs(place, outs, p, values) | {"outside": _outside(ins, maps)}
    scale, fit = exponent(told["reach"])
    use = (told["unsound"] == 0) & fit if arrives else False
    if not arrives:
        told["reach"] = 0.0
    if maps.mode == "differences":
        return rows(told, [_flags(by_rule, x)._replace(worst=jnp.nan)] * len(groups))
    r, ours = combined(p, q, scale, use), combined(by_rule, images, scale, use)
    if maps.mode == "reverse":
        theirs = transpose(r)
        total = lambda side, g: sum((side[i] for i in g[1:]), side[g[0]])
        found = [
            compared(total(ours, g), total(theirs, g), total(by_rule, g), x[g[0]]) for g in groups
        ]
    else:
        values, gaps = _forward(function, x, groups, r, ours, seed, place.index)
        flags = _flags(by_rule, x)
        found = [flags._replace(worst=gap, live=live) for gap, live in gaps]
        about = _about_outputs(place, outs, p, values)
        told |= {name: about[name] for name in ("off", "height", "parted")}
    if settings.order == 2 and maps.mode == "reverse":
        told["second"] = _second(maps, groups, ins, q, seed)
    return rows(told, found)


def _rows(
    count: int, told: dict[str, Any], found: Sequence[Compared] = ()
) -> Float[Array, "count raw"]:
    """Rows of `RAW`: numbers set side by side, of which no kernel but a copy is made."""
    wide = slot_dtype()
    parts = [told | (found[k]._asdict() if found else {}) for k in range(count)]

    def one(k: int, name: str) -> Any:
        number = parts[k].get(name, float(name == "visits"))
        return number[k] if jnp.ndim(number) else number

    numbers = [[jnp.asarray(one(k, name), wide) for name in RAW] for k in range(count)]
    return jnp.stack([jnp.stack(row) for row in numbers])


def finished(raw: Any, xp: Any = np) -> Any:
    """Tables of `FIELDS` from those of `RAW`: on the host, where a quotient is no kernel to compile."""
    of = {name: raw[..., k] for k, name in enumerate(RAW)}

    def ratio(a: Any, b: Any) -> Any:
        with np.errstate(invalid="ignore"):
            return xp.where(a == 0, 0.0, a / xp.where(b > 0, b, 1.0))

    some = lambda name: (of[name] > 0).any(axis=-1, keepdims=True)
    result = some("bad") & ~some("unsound")
    guilty = (some("met") | result) & ~(some("entering") | some("outside"))
    columns = {
        "visits": of["visits"],
        "gap": ratio(of["worst"], of["size"]),
        "reach": of["reach"],
        "live": ratio(of["live"], of["count"]),
        "values": xp.where(of["parted"] > 0, xp.inf, ratio(of["off"], of["height"])),
        "undefined": guilty,
        "second": of["second"],
        "apart": ratio(of["far"], of["count"]),
    }
    told = (xp.asarray(columns[name], raw.dtype) for name in FIELDS)
    return xp.stack([xp.broadcast_to(column, raw.shape[:-1]) for column in told], axis=-1)


class Settings(NamedTuple):
    """`random`: with random costates; `order`: of the derivatives compared."""

    random: bool = True
    order: int = 1


def _forward(
    function: Any, x: list[Any], groups: Any, r: Any, ours: Any, seed: Any, salt: int
) -> tuple[Any, list[Any]]:
    """Values, and gap and live share of each argument; of all of them together where they are many."""
    draw = lambda i, a: jnp.where(jnp.isfinite(a), drawn(a.shape, a.dtype, seed, 131 * salt + i), 0)
    v = _aliased([draw(i, a) for i, a in enumerate(x)], groups)
    if len(groups) > PAIRED:
        values, pushed = jax.jvp(function, x, v)
        return values, [paired(r, pushed, ours, v)] * len(groups)
    values, found = None, []
    for g in groups:
        only = [a if i in g else jnp.zeros_like(a) for i, a in enumerate(v)]
        values, pushed = jax.jvp(function, x, only)
        found.append(paired(r, pushed, ours, only))
    return values, found


def _second(maps: Maps, groups: Any, ins: Any, q: Any, seed: Any) -> Any:
    """Gap of `d/dx [G(x) q] v` and `d/dx [T(x) q] v`; NaN where a rule cannot be differentiated."""
    x = _at(ins, maps.inputs)
    v = _aliased(
        [drawn(a.shape, a.dtype, seed, 17 * maps.place.index + i) for i, a in enumerate(x)], groups
    )

    def by_rule(*moved: Any) -> Any:
        return pulled(maps.place, along(list, ins, maps.inputs)(*moved), maps.inputs)[1](list(q))

    def by_primal(*moved: Any) -> Any:
        function = along(functools.partial(primal, maps.place), ins, maps.inputs)
        return jax.vjp(function, *moved)[1](list(q))

    try:
        sides = [jax.jvp(image, x, v)[1] for image in (by_rule, by_primal)]
    except Exception:  # the rule is the user's: whatever it raises, it has no second derivative
        return jnp.full(len(groups), jnp.nan)
    total = lambda side, g: sum((side[i] for i in g[1:]), side[g[0]])
    pairs = [(total(sides[0], g), total(sides[1], g)) for g in groups]
    gaps = [relative(c.worst, c.size) for c in (compared(a, b, a, b) for a, b in pairs)]
    return jnp.stack(gaps).astype(slot_dtype())


def _cut(p: Sequence[Any], seed: Any) -> tuple[Any, Any]:
    """Of a costate that is cut: its size, and one number that moves when it does."""
    found = [
        gathered(jnp.abs(a), a.real * drawn(a.shape, a.real.dtype, seed, 7 + i), total=(1,))
        for i, a in enumerate(b for b in p if is_float(b) and b.size)
    ]
    wide = slot_dtype()
    return _most([f[0] for f in found]), sum(f[1].astype(wide) for f in found)


def _aliased(v: list[Any], groups: tuple[Group, ...]) -> list[Any]:
    for g in groups:
        for i in g[1:]:
            v[i] = v[g[0]]
    return v


def _outside(ins: Sequence[Any], maps: Maps) -> Any:
    """Whether an input that is not judged holds something that is not finite."""
    others = [ins[i] for i in range(len(ins)) if i not in maps.inputs]
    return _most([jnp.any(~jnp.isfinite(a)) * 1.0 for a in others if is_float(a) and a.size])


def _most(parts: Sequence[Any]) -> Any:
    """The largest of several numbers; zero of none."""
    wide = slot_dtype()
    return functools.reduce(jnp.maximum, [a.astype(wide) for a in parts]) if parts else 0.0


def _about_outputs(
    place: Place, outs: Sequence[Any], p: Sequence[Any], values: Sequence[Any] | None
) -> dict[str, Any]:
    """Of the outputs together: `reach`, the largest costate; `unsound`, whether a costate is not finite;
    `met`, whether a value that is not finite meets a costate which is not exactly zero; and how far the
    values of the rule's forward pass are from the primal's: `off` beside `height`, and `parted`."""
    found: dict[str, list[Any]] = {name: [] for name in ("reach", "unsound", "met", "parted")}
    apart = []
    for k, (out, live, told) in enumerate(zip(outs, place.live, place.told, strict=True)):
        if told and values is not None and is_whole(out):
            found["parted"].append(jnp.any(out != values[k]) * 1.0)
        if not is_float(out) or not out.size:
            continue
        c, sound = p[k], jnp.isfinite(out)
        value = out if values is None else values[k]
        both = sound & jnp.isfinite(value)
        size, unsound, meets, off, height, other = gathered(
            jnp.where(live, jnp.abs(c), 0),
            ~jnp.isfinite(c),
            ~sound & (c != 0),
            jnp.where(both & (out != value), jnp.abs(out - value), 0),
            jnp.where(both, jnp.abs(value), 0),
            sound != jnp.isfinite(value),
            floored=(4,),
        )
        for name, number in (("reach", size), ("unsound", unsound), ("met", meets)):
            found[name].append(number)
        if (live or told) and values is not None:
            found["parted"].append(other)
            apart.append((off, height))
    off, height = apart[0] if len(apart) == 1 else (_most([relative(*a) for a in apart]), 1.0)
    told = {name: _most(parts) for name, parts in found.items()}
    return told | {"reach": jnp.asarray(told["reach"], slot_dtype()), "off": off, "height": height}


def is_whole(out: Any) -> bool:
    """Whether an output is of whole numbers, or true or false."""
    return jnp.issubdtype(out.dtype, jnp.integer) or out.dtype == jnp.bool_


SHAKEN = 16  # runs in each of which roundoff may move a whole number


def whole_numbers(
    told: Sequence[bool], outs: Sequence[Any], values: Sequence[Any], closed: ClosedJaxpr, ins: Any
) -> list[tuple[Any, Any, Any]]:
    """Gap, noise and size of each output of whole numbers that is `told`: it differs or it does not, and
    roundoff explains it where it moves it in one of the runs of the program."""
    asked = [k for k, value in enumerate(values) if told[k] and is_whole(value)]
    if not asked:
        return []

    def run(seed: Any) -> list[Any]:
        found = noisy(closed, seed)(*ins)
        return [found[k] for k in asked]

    shaken = jax.lax.map(run, jnp.arange(1, SHAKEN + 1))
    found = []
    for k, runs in zip(asked, shaken, strict=True):
        apart, moves = jnp.any(outs[k] != values[k]), jnp.any(runs != values[k])
        found.append((apart * 1.0, jnp.where(moves, jnp.inf, 0.0), jnp.ones(())))
    return found


def _flags(results: Sequence[Any], at: Sequence[Any]) -> Compared:
    """Whether the rule's results, and its inputs, hold something that is not finite."""
    found = [
        gathered(~jnp.isfinite(result), ~jnp.isfinite(x))
        for result, x in zip(results, at, strict=True)
        if is_float(result) and result.size
    ]
    bad, entering = (_most([f[k] for f in found]) for k in (0, 1))
    return Compared(0.0, 1.0, bad, entering, 0.0, 0.0, 1.0)

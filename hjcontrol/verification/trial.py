r"""A disputed place, tried on its own at the very point where the program ran it.

In order, until one explains the gap or it is refuted:

    noise        64 times what the roundoff of every equation of the primal changes
    formula      rule and derivative replayed in 64 bits, where a dtype is below float32 or the rule is
                 lower than its primal
    inside       rules inside the primal: the place is right up to them, and they are tried in turn
    loops        both run on past the end of every `while`
    slopes       one-sided, from values alone, at the 16 worst elements: kinks, programs without tangents
    differences  along random directions, where no derivative of the primal exists
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr

from hjcontrol._ground.jaxprs import replay
from hjcontrol.verification.arithmetic import (
    drawn,
    eps_of,
    is_float,
    lowest,
    noisy,
    promoted,
    wide,
)
from hjcontrol.verification.directional import differences
from hjcontrol.verification.further import SWEEPS, holds_loop, run_on
from hjcontrol.verification.places import holds_rule, holds_users_rule
from hjcontrol.verification.rule import (
    Maps,
    along,
    called,
    exponent,
    largest,
    primal,
    random_costate,
)
from hjcontrol.verification.slopes import slopes
from hjcontrol.verification.verdicts import (
    CONSISTENT,
    DETACHED,
    EXACT,
    REFUTED,
    UNDEFINED,
    UNTESTED,
    Outcome,
)

UNITS = 64.0  # of noise
WORST = 16  # elements whose slopes are taken
CONVERGED = 1e-9
LOOSE = 1e-2  # a loop whose values do not move says no more than this
LENIENT = 1e-9
SINGLE = 1e-4


@dataclasses.dataclass
class Sides:
    """One costate's two images, by argument: the rule's and the derivative's."""

    r: list[Any]
    ours: list[Any]
    theirs: list[Any] | None


class Trial:
    """A place's compiled programs, kept with the program that holds it."""

    def __init__(self, maps: Maps, groups: tuple[tuple[int, ...], ...]):
        self.maps, self.groups, self.place = maps, groups, maps.place
        self.judged = maps.inputs
        avals = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in self.place.eqn.invars]
        self.closed = jax.make_jaxpr(lambda *ins: primal(self.place, ins))(*avals)
        self.arithmetic = lowest(self.closed)
        # Rules inside a shard_map are not told apart: it is one place.
        self.holds_own_rule = self.place.kind != "shard_map" and holds_users_rule(self.place)
        self._pushed: Any = None
        self._at = jax.jit(self._at_point)
        self._slopes = jax.jit(self._slopes_of, static_argnums=(2, 4))

    # ------------------------------------------------------------------ maps

    def _x(self, ins: Sequence[Any]) -> list[Any]:
        return [ins[i] for i in self.judged]

    def rule(self, ins: Sequence[Any], r: Sequence[Any]) -> list[Any]:
        """`G(x) r`, of the judged inputs."""
        _, pull = jax.vjp(
            along(functools.partial(called, self.place), ins, self.judged), *self._x(ins)
        )
        return list(pull(self._full(r)))

    def transposed(self, closed: ClosedJaxpr, ins: Sequence[Any], r: Sequence[Any]) -> list[Any]:
        """`T(x) r`, of the judged inputs, for a replay of the primal."""
        function = along(lambda full: replay_plain(closed, full), ins, self.judged)
        _, pull = jax.vjp(function, *self._x(ins))
        return list(pull(self._full(r)))

    def _full(self, r: Sequence[Any]) -> list[Any]:
        """Costates of the floating outputs, with the void ones of the others."""
        given, full = iter(r), []
        for v in self.place.eqn.outvars:
            zero = np.zeros(v.aval.shape, jax.dtypes.float0)
            full.append(next(given) if is_float(v.aval) else zero)
        return full

    def _summed(self, parts: Sequence[Any]) -> list[Any]:
        """One array an argument."""
        return [sum((parts[i] for i in g[1:]), parts[g[0]]) for g in self.groups]

    # ------------------------------------------------------------------ at the point

    def _at_point(self, ins: Any, p: Any, seed: Any) -> Any:
        floats = lambda outs: [o for o in outs if is_float(o)]
        outs, _ = jax.vjp(
            along(functools.partial(called, self.place), ins, self.judged), *self._x(ins)
        )
        values = replay_plain(self.closed, ins)
        q = floats(random_costate(self.place, values, seed))
        scale, fit = exponent(largest(p))
        fit = fit & jnp.isfinite(largest(p))
        p = [jnp.where(fit, a * scale.astype(a.real.dtype), 0) for a in p]
        found: dict[str, Any] = {"p": p, "q": q}
        shaken = lambda s: lambda *a: noisy(self.closed, s)(*a)
        moved = [floats(shaken(s)(*ins)) for s in (1, 2)]
        found["values"] = [
            (
                _largest(a - b),
                jnp.maximum(
                    _biggest([_largest(m[k] - b) for m in moved]), eps_of(b.dtype) * _largest(b)
                ),
            )
            for k, (a, b) in enumerate(zip(floats(outs), floats(values), strict=True))
        ]
        for name in ("p", "q"):
            r = found[name]
            ours = self._summed(self.rule(ins, r))
            theirs = noise = None
            if self.maps.mode == "reverse":
                theirs = self._summed(self.transposed(self.closed, ins, r))
                again = [self._summed(self._noisy(ins, r, s)) for s in (1, 2)]
                noise = [
                    jnp.maximum(
                        _biggest([_largest(b[k] - t) for b in again]), eps_of(t.dtype) * _largest(t)
                    )
                    for k, t in enumerate(theirs)
                ]
            found[f"{name} sides"] = (ours, theirs, noise)
        return found

    def _noisy(self, ins: Sequence[Any], r: Sequence[Any], seed: int) -> list[Any]:
        function = along(lambda full: noisy(self.closed, seed)(*full), ins, self.judged)
        _, pull = jax.vjp(function, *self._x(ins))
        return list(pull(self._full(r)))

    # ------------------------------------------------------------------ the trial

    def judge(self, ins: list[Any], p: list[Any], seed: int, inside: Callable) -> list[Outcome]:
        """One outcome an argument. `inside(ins, r)`: the rows of the rules inside the primal."""
        found = jax.device_get(self._at(ins, p, seed))
        for gap, noise in found["values"]:
            if gap > UNITS * noise:
                words = f"the rule's forward pass returns other values: they differ by {gap:.1e}"
                return [Outcome(REFUTED, float(gap), words, k) for k in range(len(self.groups))]
        if self.maps.mode == "reverse":
            return [self._argument(k, ins, found, seed, inside) for k in range(len(self.groups))]
        return self._whole(ins, found, seed, inside)

    def _argument(self, k: int, ins: Any, found: Any, seed: int, inside: Callable) -> Outcome:
        sides = {n: tuple(part[k] for part in found[f"{n} sides"]) for n in ("p", "q")}
        gaps = {n: _gap(a, b) for n, (a, b, _) in sides.items()}
        over = {n: _worst(a, b) > UNITS * noise for n, (a, b, noise) in sides.items()}
        worst = max(gaps, key=lambda n: gaps[n])
        low = self.arithmetic is not None and eps_of(self.arithmetic) > 1e-6
        ours, theirs, noise = sides["q"]
        if not any(over.values()) and not np.any(ours) and not np.any(theirs):
            return Outcome(UNTESTED, 0.0, "derivative zero here in every probe", k)
        if self.place.library and not over["p"] and np.any(found["p"][0] if found["p"] else 0):
            words = f"{self.place.library}'s own: judged by the costate that arrives"
            return Outcome(EXACT, gaps["p"], words, k)
        if not any(over.values()) and not low:
            return Outcome(EXACT, gaps[worst], self._roundoff(), k)
        name = next((n for n in ("q", "p") if over[n]), "q")
        if (told := self._formula(k, ins, found[name], gaps[worst])) is not None:
            return told
        if not any(over.values()):
            return Outcome(EXACT, gaps[worst], self._roundoff(), k)
        return self._disputed(k, ins, found, name, sides, seed, inside)

    def _disputed(
        self, k: int, ins: Any, found: Any, name: str, sides: Any, seed: int, inside: Callable
    ) -> Outcome:
        ours, theirs, noise = sides[name]
        r = found[name]
        if self.holds_own_rule and (told := self._up_to_rules(k, ins, r, ours, noise, inside)):
            return told
        if holds_loop(self.closed) and (told := self._run_on(k, ins, r)) is not None:
            return told
        told = self._by_slopes(k, ins, r, ours, theirs, noise)
        if told.verdict == REFUTED and not np.any(sides["q"][0]) and not np.any(sides["p"][1]):
            words = "the rule gives nothing to this argument, and this cost loses nothing by it"
            return Outcome(DETACHED, 1.0, words, k, told.index)
        return told

    def _roundoff(self) -> str:
        if self.arithmetic is None or eps_of(self.arithmetic) <= eps_of(jnp.zeros(()).dtype):
            return ""
        return f"to roundoff of {np.dtype(self.arithmetic).name}"

    # ------------------------------------------------------------------ formula

    def _formula(self, k: int, ins: Any, r: Any, bare: float) -> Outcome | None:
        """Rule and derivative replayed in 64 bits; `None` where arithmetic is no excuse."""
        rule = jax.make_jaxpr(self.rule)(ins, r)
        derivative = jax.make_jaxpr(functools.partial(self.transposed, self.closed))(ins, r)
        of_rule, of_primal = lowest(rule), self.arithmetic
        if of_rule is None or of_primal is None:
            return None
        lower = eps_of(of_rule) > eps_of(of_primal)
        if not lower and eps_of(of_primal) < 1e-6:
            return None
        with jax.enable_x64(True):
            args = [wide(a) for a in jax.tree.leaves((ins, r))]
            again = [jax.jit(promoted(c))(*args) for c in (rule, derivative)]
            shaken = [self._promoted_noise(derivative, args, s) for s in (1, 2)]
            a, b = (np.asarray(self._summed(side)[k]) for side in again)
            noise = max(_worst(np.asarray(self._summed(s)[k]), b) for s in shaken)
        gap, floor = _gap(a, b), max(noise, eps_of(np.float64) * _most(b))
        if not _worst(a, b) <= UNITS * floor:
            if lower or eps_of(of_primal) > 1e-6:
                where = int(np.argmax(np.abs(a - b)))
                words = f"in float64 too the formula is off by {gap:.1e}"
                return self._refuted_formula(k, ins, gap, where, words)
            return None
        if lower:
            words = (
                f"formula exact in float64 ({gap:.0e}); the rule itself rounds to {of_rule.name}"
            )
            return Outcome(CONSISTENT, bare, words, k)
        words = (
            f"formula exact in float64 ({gap:.0e}); roundoff of {of_primal.name} inside: {bare:.0e}"
        )
        return Outcome(EXACT, gap, words, k)

    def _refuted_formula(
        self, k: int, ins: Any, gap: float, where: int, words: str
    ) -> Outcome | None:
        if holds_rule(self.place.eqn) or holds_loop(self.closed):
            return None
        shape = np.shape(self._x(ins)[self.groups[k][0]])
        return Outcome(REFUTED, gap, words, k, _index(where, shape))

    def _promoted_noise(self, derivative: ClosedJaxpr, args: Any, seed: int) -> Any:
        closed = jax.make_jaxpr(promoted(derivative))(*args)
        return jax.jit(noisy(closed, seed))(*args)

    # ------------------------------------------------------------------ rules inside

    def _up_to_rules(
        self, k: int, ins: Any, r: Any, ours: Any, noise: Any, inside: Callable
    ) -> Outcome | None:
        """Right up to the rules inside the primal, and then as right as they are."""
        try:
            kept = jax.device_get(jax.jit(self._with_rules)(ins, r))
        except Exception:  # a loop in the primal: reverse mode of it does not exist
            return None
        if not _worst(ours, kept[k]) <= UNITS * noise:
            return None
        rows = inside(ins, r)
        return Outcome.of_rows(rows, k) if rows else None

    def _with_rules(self, ins: Any, r: Any) -> Any:
        body = opened(self.place)
        _, pull = jax.vjp(
            along(lambda full: replay_plain(body, full), ins, self.judged), *self._x(ins)
        )
        return self._summed(pull(self._full(r)))

    # ------------------------------------------------------------------ loops

    def _run_on(self, k: int, ins: Any, r: Any) -> Outcome | None:
        x = self._x(ins)
        v = [drawn(a.shape, a.dtype, 5, i) for i, a in enumerate(x)]
        for g in self.groups:
            for i in g[1:]:
                v[i] = v[g[0]]

        def push(ins: Any, v: Any) -> Any:
            function = along(lambda full: replay_plain(self.closed, full), ins, self.judged)
            return jax.jvp(function, self._x(ins), list(v))[1]

        rule = jax.jit(run_on(jax.make_jaxpr(self.rule)(ins, r)))
        pushed = jax.jit(run_on(jax.make_jaxpr(push)(ins, v)))
        values = jax.jit(run_on(self.closed))
        gaps, moves, before = [], 0.0, None
        for sweeps in SWEEPS:
            by_rule = rule(sweeps, *jax.tree.leaves((ins, r)))
            forward = pushed(sweeps, *jax.tree.leaves((ins, v)))
            gaps.append(_paired(r, forward, by_rule, v))
            now = [np.asarray(a) for a in values(sweeps, *ins) if is_float(a)]
            if before is not None:
                moves = max([moves, *(_gap(a, b) for a, b in zip(now, before, strict=True))])
            before = now if before is None else before
        series = " ".join(f"{g:.0e}" for g in gaps)
        words = f"loops run on {', '.join(map(str, SWEEPS))} sweeps: {series}"
        finite = [g for g in gaps if np.isfinite(g)]
        last = min(finite, default=np.inf)
        if last <= CONVERGED:
            return Outcome(CONSISTENT, last, words, k, series=tuple(gaps))
        eps = eps_of(self.arithmetic)
        if moves <= UNITS * eps and last <= LOOSE:
            return Outcome(
                CONSISTENT, last, f"{words}; a smaller fault cannot be seen", k, series=tuple(gaps)
            )
        return Outcome(REFUTED, last, f"{words}: the gap stays", k, series=tuple(gaps))

    # ------------------------------------------------------------------ slopes

    def _slopes_of(self, ins: Any, r: Any, k: int, chosen: Any, count: int) -> Any:
        del count
        function = lambda x: along(lambda f: replay_plain(self.closed, f), ins, self.judged)(*x)
        return slopes(function, self._x(ins), self.groups[k], self._full(r), chosen)

    def _by_slopes(self, k: int, ins: Any, r: Any, ours: Any, theirs: Any, noise: Any) -> Outcome:
        shape = np.shape(self._x(ins)[self.groups[k][0]])
        g, t = np.asarray(ours).ravel(), np.asarray(theirs).ravel()
        off = _distance(g, t)
        disputed = np.flatnonzero(off > UNITS * noise)
        ranked = disputed[np.argsort(-off[disputed], kind="stable")]
        chosen = ranked[:WORST]
        padded = np.resize(chosen, WORST)
        found = jax.device_get(self._slopes(ins, r, k, jnp.asarray(padded), WORST))
        verdicts = [self._element(g[i], t[i], j, found, noise) for j, i in enumerate(chosen)]
        worst = min(range(len(chosen)), key=lambda j: _RANK[verdicts[j][0]])
        verdict, gap = verdicts[worst]
        i = int(chosen[worst])
        many = f"; {len(disputed)} elements" if len(disputed) > 1 else ""
        numbers = (
            f"rule {_shown(g[i])}, slopes of the values {found.right[worst]:.6g} | "
            f"{found.left[worst]:.6g}{many}"
        )
        gap = max(gap, 0.0)
        if verdict == "kink" and len(disputed) <= WORST:
            words = f"kink: {numbers}; the sum of such choices need not be a subgradient"
            return Outcome(EXACT, gap, words, k, _index(i, shape), kink=True)
        if verdict in ("kink", "values") and len(disputed) > WORST:
            return self._many(k, ins, r, ours, theirs, noise, disputed, verdict, numbers, i)
        if verdict == "values":
            words = (
                f"{numbers}: the values agree with the rule, the program's own derivative does not"
            )
            return Outcome(CONSISTENT, gap, words, k, _index(i, shape))
        if verdict == "undefined":
            return Outcome(UNDEFINED, np.inf, f"no one-sided slope: {numbers}", k, _index(i, shape))
        hint = ""
        if not np.any(found.right) and not np.any(found.left) and np.any(g):
            hint = "; the values are piecewise constant: a straight-through estimator? Declare it deliberate"
        return Outcome(REFUTED, _gap(ours, theirs), numbers + hint, k, _index(i, shape))

    def _element(self, g: Any, t: Any, j: int, found: Any, noise: Any) -> tuple[str, float]:
        right, left = found.right[j], found.left[j]
        doubt = 10 * (found.right_error[j] + found.left_error[j]) + UNITS * float(noise)
        if not np.isfinite([right, left, doubt]).all():
            return "undefined", np.inf
        low, high = min(right, left), max(right, left)
        value, own = np.real(g), np.real(t)
        size = max(abs(low), abs(high), abs(value), np.finfo(float).tiny)
        inside = low - doubt <= value <= high + doubt
        if high - low > doubt:
            dispute = abs(value - own) if np.isfinite(own) else 0.0
            return ("kink", 0.0) if inside and dispute <= 2 * (high - low) else ("wrong", np.inf)
        if inside and not low - doubt <= own <= high + doubt:
            return "values", float(abs(value - (low + high) / 2) / size)
        return "wrong", np.inf

    def _many(
        self,
        k: int,
        ins: Any,
        r: Any,
        ours: Any,
        theirs: Any,
        noise: Any,
        disputed: Any,
        verdict: str,
        numbers: str,
        i: int,
    ) -> Outcome:
        """More elements in dispute than are tried one by one. All of them, where moving one moves its
        own output only; else one direction through all of them."""
        shape = np.shape(self._x(ins)[self.groups[k][0]])
        g, t = np.asarray(ours).ravel(), np.asarray(theirs).ravel()
        together = self._together(k, ins, r, disputed)
        if together is not None:
            told = [
                self._element(g[d], t[d], j, together, noise)[0] for j, d in enumerate(disputed)
            ]
            bad = [j for j, v in enumerate(told) if v not in ("kink", "values")]
            if bad:
                d = int(disputed[bad[0]])
                words = (
                    f"rule {_shown(g[d])}, slopes of the values {together.right[bad[0]]:.6g} | "
                    f"{together.left[bad[0]]:.6g}; {len(bad)} of {len(disputed)} elements"
                )
                kind = UNDEFINED if told[bad[0]] == "undefined" else REFUTED
                return Outcome(kind, _gap(ours, theirs), words, k, _index(d, shape))
            kink = all(v == "kink" for v in told)
            words = f"{'kinks: ' if kink else ''}{numbers}, all tried"
            return Outcome(
                EXACT if kink else CONSISTENT, 0.0, words, k, _index(i, shape), kink=kink
            )
        if verdict == "values":
            gap, doubt, own = self._direction(k, ins, r, ours, theirs)
            if gap <= self._tolerance() + 10 * doubt and own > 10 * max(gap, doubt):
                words = f"{numbers}, {WORST} tried; along a random direction the values agree to {gap:.0e}"
                return Outcome(CONSISTENT, gap, words, k, _index(i, shape))
            return Outcome(REFUTED, max(gap, own), numbers, k, _index(i, shape))
        words = f"kinks: {numbers}, {WORST} tried"
        return Outcome(CONSISTENT, 0.0, words, k, _index(i, shape), kink=True)

    def _together(self, k: int, ins: Any, r: Any, disputed: Any) -> Any:
        """Slopes of all disputed elements at once, if each moves its own output only; else `None`."""
        shape = np.shape(self._x(ins)[self.groups[k][0]])
        outs = [v.aval for v in self.place.eqn.outvars if is_float(v.aval)]
        if len(outs) != 1 or outs[0].shape != shape:
            return None
        mask = np.zeros(int(np.prod(shape)), bool)
        mask[disputed] = True
        half = mask & (np.arange(mask.size) % 2 == 0)
        found, diagonal = jax.device_get(
            jax.jit(self._diagonal, static_argnums=2)(
                ins, r, k, mask.reshape(shape), half.reshape(shape)
            )
        )
        if not diagonal:
            return None
        return type(found)(*(np.asarray(a).ravel()[disputed] for a in found))

    def _diagonal(self, ins: Any, r: Any, k: int, mask: Any, half: Any) -> Any:
        from hjcontrol.verification.slopes import FACTOR, STEPS, Slopes, limit

        x, group = self._x(ins), self.groups[k]
        at = x[group[0]]
        size = jnp.max(jnp.abs(at), initial=0.0)
        h0 = jnp.where(at != 0, jnp.abs(at), jnp.where(size > 0, size, 1.0)) / 16

        def output(step: Any, where: Any) -> Any:
            new, inputs = at + jnp.where(where, step, 0).astype(at.dtype), list(x)
            for i in group:
                inputs[i] = new
            function = along(lambda f: replay_plain(self.closed, f), ins, self.judged)
            return next(o for o in function(*inputs) if is_float(o)), new - at

        start, _ = output(0 * h0, mask)
        steps = FACTOR ** -jnp.arange(STEPS, dtype=h0.dtype)

        def quotient(t: Any) -> Any:
            moved, real = output(t * h0, mask)
            return jnp.where(mask, (moved - start) * r[0] / jnp.where(mask, real, 1), 0)

        both = jax.lax.map(quotient, jnp.concatenate([steps, -steps])).reshape(2 * STEPS, -1)
        noise = (jnp.finfo(at.dtype).eps * jnp.abs(start * r[0])).ravel()
        each = jax.vmap(lambda q, h, n: limit(q, steps * h, n), in_axes=(1, 0, 0))
        (right, e), (left, f) = (each(s, h0.ravel(), noise) for s in (both[:STEPS], both[STEPS:]))
        some, _ = output(h0, half)
        whole, _ = output(h0, mask)
        agree = jnp.all(jnp.where(half, some == whole, some == start))
        return Slopes(right, left, e, f), agree

    def _direction(
        self, k: int, ins: Any, r: Any, ours: Any, theirs: Any
    ) -> tuple[float, float, float]:
        """Of differences along one random direction: gap to the rule, their error, gap to the derivative;
        all relative."""
        v, slope, error = jax.device_get(jax.jit(self._differences, static_argnums=2)(ins, r, k))
        size = float(np.sum(np.abs(np.asarray(ours) * v))) or 1.0
        along_ = lambda side: float(np.sum((np.asarray(side) * v).real))
        return (
            abs(slope - along_(ours)) / size,
            float(error) / size,
            abs(slope - along_(theirs)) / size if theirs is not None else np.inf,
        )

    def _differences(self, ins: Any, r: Any, k: int) -> Any:
        x, group = self._x(ins), self.groups[k]
        v = drawn(x[group[0]].shape, x[group[0]].dtype, 3, k)

        def contracted(a: Any) -> Any:
            inputs = list(x)
            for i in group:
                inputs[i] = a
            outs = along(lambda f: replay_plain(self.closed, f), ins, self.judged)(*inputs)
            floats = [o for o in outs if is_float(o)]
            return sum(jnp.sum((o * w).real) for o, w in zip(floats, r, strict=True))

        slope, error = differences(contracted, x[group[0]], v)
        return v, slope, error

    def _tolerance(self) -> float:
        return LENIENT if eps_of(jnp.zeros((), self.arithmetic).dtype) < 1e-12 else SINGLE

    # ------------------------------------------------------------------ no reverse mode of the primal

    def _whole(self, ins: Any, found: Any, seed: int, inside: Callable) -> list[Outcome]:
        if self.maps.mode == "forward":
            return [self._forward(ins, found, inside)]
        return [self._by_differences(k, ins, found) for k in range(len(self.groups))]

    def _forward(self, ins: Any, found: Any, inside: Callable) -> Outcome:
        arrives = any(np.any(a) for a in found["p"])
        if self.holds_own_rule:
            rows = inside(ins, found["p"] if arrives else found["q"])
            bad = [row for row in rows or () if row.verdict in (REFUTED, UNDEFINED)]
            if bad:
                return Outcome.of_rows(bad, 0)
        x = self._x(ins)
        v = [drawn(a.shape, a.dtype, 5, i) for i, a in enumerate(x)]
        for g in self.groups:
            for i in g[1:]:
                v[i] = v[g[0]]
        names = [n for n, use in (("q", not self.place.library), ("p", arrives)) if use] or ["q"]
        if self._pushed is None:
            self._pushed = jax.jit(self._push), jax.jit(self.rule)
        push, rule = self._pushed
        plain = push(ins, v, 0)
        shaken = [push(ins, v, s) for s in (1, 2)]
        worst, noise = 0.0, eps_of(self.arithmetic)
        for n in names:
            worst = max(worst, _paired(found[n], plain, rule(ins, found[n]), v))
            noise = max([noise, *(_paired_noise(found[n], plain, s) for s in shaken)])
        if worst <= UNITS * noise:
            return Outcome(EXACT, worst, "by forward mode, paired" + self._suffix(), 0)
        told = self._run_on(0, ins, found[names[-1]]) if holds_loop(self.closed) else None
        return told or Outcome(REFUTED, worst, "forward mode of the primal disagrees", 0)

    def _push(self, ins: Any, v: Any, seed: Any) -> Any:
        """`J v`; with roundoff made at random where `seed` is not zero."""

        def values(full: Any) -> Any:
            shaken = noisy(self.closed, seed)(*full)
            return [
                jnp.where(seed > 0, a, b) if is_float(a) else b
                for a, b in zip(shaken, replay_plain(self.closed, full), strict=True)
            ]

        return jax.jvp(along(values, ins, self.judged), self._x(ins), list(v))[1]

    def _suffix(self) -> str:
        words = self._roundoff()
        return f"; {words}" if words else ""

    def _by_differences(self, k: int, ins: Any, found: Any) -> Outcome:
        ours = found["q sides"][0][k]
        gap, doubt, _ = self._direction(k, ins, found["q"], ours, None)
        words = f"by differences of the values, along a random direction (their error {doubt:.0e})"
        if not np.any(ours) and gap == 0:
            return Outcome(UNTESTED, 0.0, "derivative zero here in every probe", k)
        if gap <= self._tolerance() + 10 * doubt and doubt <= 1e-2:
            return Outcome(CONSISTENT, gap, words, k)
        return Outcome(REFUTED, gap, words, k)


def opened(place: Any) -> ClosedJaxpr:
    """A place's primal as a program, the rules inside it kept."""
    from hjcontrol._ground.jaxprs import bind, called_jaxpr, descend

    inner = called_jaxpr(place.eqn)
    if inner is not None:
        return inner
    avals = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in place.eqn.invars]
    own = lambda e, i: bind(e, i)
    return jax.make_jaxpr(lambda *ins: descend(place.eqn, ins, own))(*avals)


def replay_plain(closed: ClosedJaxpr, args: Sequence[Any]) -> list[Any]:
    """The program as it is."""
    from hjcontrol._ground.jaxprs import bind

    return replay(closed, args, bind)


_RANK = {"wrong": 0, "undefined": 1, "values": 2, "kink": 3}


def _distance(a: Any, b: Any) -> Any:
    a, b = np.asarray(a), np.asarray(b)
    both = ~np.isfinite(a) & ~np.isfinite(b)
    gap = np.abs(np.where(both | (a == b), 0, a - np.where(both | (a == b), a, b)))
    return np.where(np.isnan(gap), np.inf, gap)


def _most(a: Any) -> float:
    a = np.abs(np.asarray(a, copy=True))
    return float(np.max(np.where(np.isfinite(a), a, 0), initial=0.0))


def _worst(a: Any, b: Any) -> float:
    return float(np.max(_distance(a, b), initial=0.0))


def _gap(a: Any, b: Any) -> float:
    gap = _worst(a, b)
    return 0.0 if gap == 0 else gap / max(_most(a), _most(b), np.finfo(float).tiny)


def _paired(r: Any, pushed: Any, by_rule: Any, v: Any) -> float:
    floats = [a for a in pushed if is_float(a)]
    left = [np.asarray((a * b).real) for a, b in zip(r, floats, strict=True)]
    right = [np.asarray((a * b).real) for a, b in zip(by_rule, v, strict=True) if is_float(a)]
    total = lambda side: sum(float(np.sum(a, dtype=float)) for a in side)
    size = lambda side: sum(float(np.sum(np.abs(a), dtype=float)) for a in side)
    gap = abs(total(left) - total(right))
    return gap / max(size(left), size(right), np.finfo(float).tiny) if gap != 0 else 0.0


def _paired_noise(r: Any, pushed: Any, shaken: Any) -> float:
    one, two = ([a for a in side if is_float(a)] for side in (pushed, shaken))
    parts = [np.asarray((w * (a - b)).real) for w, a, b in zip(r, one, two, strict=True)]
    whole = [np.asarray((w * a).real) for w, a in zip(r, one, strict=True)]
    size = sum(float(np.sum(np.abs(a))) for a in whole) or 1.0
    return abs(sum(float(np.sum(a)) for a in parts)) / size


def _largest(a: Any) -> Any:
    return jnp.max(jnp.where(jnp.isfinite(a), jnp.abs(a), 0), initial=0.0)


def _biggest(parts: Sequence[Any]) -> Any:
    return functools.reduce(jnp.maximum, parts)


def _index(flat: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(flat, shape)) if shape else ()


def _shown(value: Any) -> str:
    return f"{value.real:.6g}{value.imag:+.6g}j" if np.iscomplexobj(value) else f"{value:.6g}"

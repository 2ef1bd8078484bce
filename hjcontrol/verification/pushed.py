"""A trial of a place whose primal has no reverse mode: pairings of forward mode, or differences."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hjcontrol.verification.arithmetic import eps_of, is_float, noisy
from hjcontrol.verification.calling import along
from hjcontrol.verification.elements import direction
from hjcontrol.verification.further import holds_loop
from hjcontrol.verification.gaps import UNITS, paired, paired_noise
from hjcontrol.verification.inlining import replay_plain
from hjcontrol.verification.verdicts import CONSISTENT, EXACT, REFUTED, UNDEFINED, UNTESTED, Outcome


def by_forward_mode(trial: Any, ins: Any, found: Any, inside: Callable) -> Outcome:
    """`<r, J v>` beside `<G r, v>`: all arguments at once."""
    arrives = any(np.any(a) for a in found["p"])
    if trial.holds_own_rule:
        rows = inside(ins, found["p"] if arrives else found["q"])
        bad = [row for row in rows or () if row.verdict in (REFUTED, UNDEFINED)]
        if bad:
            return Outcome.of_rows(bad, 0)
    v = trial.direction(ins)
    names = [n for n, use in (("q", not trial.place.library), ("p", arrives)) if use] or ["q"]
    push = trial.compiled("push", lambda *a: _push(trial, *a))
    rule = trial.compiled("rule", trial.rule)
    plain = push(ins, v, 0)
    shaken = [push(ins, v, s) for s in (1, 2)]
    worst, noise = 0.0, eps_of(trial.arithmetic)
    for n in names:
        worst = max(worst, paired(found[n], plain, rule(ins, found[n]), v))
        noise = max([noise, *(paired_noise(found[n], plain, s) for s in shaken)])
    if worst <= UNITS * noise:
        words = "; ".join(w for w in ("by forward mode, paired", trial.roundoff()) if w)
        return Outcome(EXACT, worst, words, 0)
    told = trial.run_on(0, ins, found[names[-1]]) if holds_loop(trial.closed) else None
    told = told or Outcome(REFUTED, worst, "forward mode of the primal disagrees", 0)
    r = found[names[-1]]
    heard = zip(r, [a for a in plain if is_float(a)], strict=True)
    if told.verdict == REFUTED and not any(np.any((w != 0) & (a != 0)) for w, a in heard):
        # Of a bisection, which compares, no more
        images = enumerate(found[f"{names[-1]} sides"][0])
        values = [by_differences(trial, k, ins, r, ours) for k, ours in images]
        if all(o.verdict in (CONSISTENT, UNTESTED) for o in values):
            return dataclasses.replace(max(values, key=lambda o: o.gap), argument=0)
    return told


def _push(trial: Any, ins: Any, v: Any, seed: Any) -> Any:
    """`J v`; with roundoff made at random where `seed` is not zero."""

    def values(full: Any) -> Any:
        shaken = noisy(trial.closed, seed)(*full)
        return [
            jnp.where(seed > 0, a, b) if is_float(a) else b
            for a, b in zip(shaken, replay_plain(trial.closed, full), strict=True)
        ]

    return jax.jvp(along(values, ins, trial.judged), [ins[i] for i in trial.judged], list(v))[1]


def by_differences(trial: Any, k: int, ins: Any, r: Any, ours: Any) -> Outcome:
    """Differences of the values along a random direction of argument `k`, beside the image of `r`."""
    dispute = trial.dispute(k, ours, None, 0.0)
    gap, doubt, _ = direction(trial.spot(ins, r), dispute)
    words = f"by differences of the values, along a random direction (their error {doubt:.0e})"
    if not np.any(ours) and gap == 0:
        return Outcome(UNTESTED, 0.0, "derivative zero here in every probe", k)
    if gap <= dispute.tol + 10 * doubt and doubt <= 1e-2:
        return Outcome(CONSISTENT, gap, words, k)
    return Outcome(REFUTED, gap, words, k)

r"""A place replayed in 64 bits: is it the formula that is off, or its arithmetic?

    G(x) r  and  T(x) r,   rule and derivative, every floating value in float64, casts dropped

Off there too, by more than the roundoff of float64: one-sided slopes of the values decide. Right there,
but off by more than the derivative rounded as it was computed: the rule rounds, and is `consistent`.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hjcontrol.verification.arithmetic import eps_of, is_float, noisy, promoted, wide
from hjcontrol.verification.calling import along, pulled
from hjcontrol.verification.elements import Dispute, Spot, by_slopes
from hjcontrol.verification.further import holds_loop
from hjcontrol.verification.gaps import UNITS, beyond, furthest, largest, relative
from hjcontrol.verification.inlining import replay_plain
from hjcontrol.verification.roundoff import SALTS, noise_between, shaken
from hjcontrol.verification.verdicts import CONSISTENT, EXACT, REFUTED, Outcome

LOW = 1e-6  # an eps above this hides faults that one sees
LENIENT = 1e-9


def is_low(dtype: Any) -> bool:
    """Whether a place that computes in this dtype is replayed."""
    return dtype is not None and eps_of(dtype) > LOW


def by_formula(
    trial: Any, k: int, ins: Any, r: Any, bare: float, over: bool, low: bool = False
) -> Outcome | None:
    """Rule and derivative of argument `k` in 64 bits; `None` where arithmetic is no excuse. `bare`: the
    gap as it was computed, `over`: and whether it is more than the derivative's own roundoff; `low`: the
    roundoff of the place's dtype is found to hide faults."""
    of_rule, of_primal = trial.lowest_of_rule(ins, r), trial.arithmetic
    if of_rule is None or of_primal is None:
        return None
    lower = eps_of(of_rule) > eps_of(of_primal)
    low = low or is_low(of_primal)
    if not lower and not low:
        return None
    _retrace(trial, ins, r)
    with jax.enable_x64(True):
        args = [wide(a) for a in jax.tree.leaves((ins, r))]
        again = [trial.programs[f"{side} in 64 bits"](*args) for side in ("rule", "derivative")]
        a, b = (np.asarray(trial.summed(side)[k]) for side in again)
        chosen = lambda side: None if side is None else [side[k]]
        shake = lambda salt: trial.programs["shaken in 64 bits"](args, salt)
        run = lambda salt: [chosen(side) for side in jax.device_get(shake(salt))]
        (noise,) = noise_between([a], [b], run)
    gap = relative(a, b)
    if beyond(a, b, noise).any():
        if trial.users_inside or holds_loop(trial.closed):
            return None
        return _by_slopes(trial, ins, r, Dispute(k, trial.groups[k], a, b, noise, LENIENT))
    if low and not is_low(of_primal) and not (np.abs(b) > UNITS * noise).any():
        return None  # roundoff in 64 bits too
    right = f"formula exact in float64 ({gap:.0e}); "
    if lower or over:
        words = f"{right}the rule itself rounds to {of_rule.name}"
        return Outcome(CONSISTENT, bare, words, k)
    return Outcome(EXACT, gap, f"{right}roundoff of {of_primal.name} inside: {bare:.0e}", k)


def in_double(
    trial: Any, k: int, ins: Any, r: Any, bare: float, over: bool = False
) -> Outcome | None:
    """`by_formula` of a place in 32 bits whose roundoff hides faults; `None` too where a program cannot
    be rewritten, or computes in 64 bits already."""
    if trial.arithmetic is None or not LOW >= eps_of(trial.arithmetic) > LENIENT:
        return None
    try:
        return by_formula(trial, k, ins, r, bare, over=over, low=True)
    except (TypeError, ValueError, NotImplementedError):
        return None


def _retrace(trial: Any, ins: Any, r: Any) -> None:
    """The trial's programs in 64 bits: one of each, whichever argument is asked about and how often."""
    if "shaken in 64 bits" in trial.programs:
        return
    rule = jax.make_jaxpr(trial.rule)(ins, r)
    derivative = jax.make_jaxpr(functools.partial(trial.transposed, trial.closed))(ins, r)
    for name, closed in (("rule", rule), ("derivative", derivative)):
        trial.compiled(f"{name} in 64 bits", promoted(closed))

    def again(args: Any, salt: Any) -> Any:
        programs = [jax.make_jaxpr(promoted(c))(*args) for c in (derivative, rule)]
        summed = lambda side: None if side is None else trial.summed(side)
        return [summed(side) for side in shaken(programs, args, salt)]

    trial.compiled("shaken in 64 bits", again)


def _by_slopes(trial: Any, ins: Any, r: Any, d: Dispute) -> Outcome:
    """A kink is one in 64 bits too: the values there say what the rule may be."""
    with jax.enable_x64(True):
        held, costate = [wide(a) for a in ins], [wide(a) for a in r]
        closed = jax.make_jaxpr(promoted(trial.closed))(*held)
        function = lambda x, held: along(lambda f: replay_plain(closed, f), held, trial.judged)(*x)
        x = [held[i] for i in trial.judged]
        compiled = lambda name, f: trial.compiled(f"in 64 bits, {name}", f)
        told = by_slopes(Spot(function, x, held, costate, trial.full(costate), compiled), d)
    too = " too the formula is off by " + f"{relative(d.ours, d.theirs):.1e}"
    words = f"in float64{too if told.verdict == REFUTED else ''}: {told.reason}"
    return dataclasses.replace(told, reason=words)


def other_values(trial: Any, ins: Any) -> float:
    """How far the rule's forward pass is from the primal's values in 64 bits; 0 within roundoff."""
    forward = jax.make_jaxpr(lambda *ins: pulled(trial.place, ins, trial.judged)[0])(*ins)
    with jax.enable_x64(True):
        args = [wide(a) for a in ins]
        primal = jax.make_jaxpr(promoted(trial.closed))(*args)
        told = [jax.jit(promoted(forward))(*args), jax.jit(promoted(trial.closed))(*args)]
        again = [] if holds_loop(primal) else [jax.jit(noisy(primal, s))(*args) for s in SALTS[0]]
    worst = 0.0
    for k, (a, b) in enumerate(zip(*told, strict=True)):
        if not is_float(b):
            continue
        noise = max([eps_of(jnp.float64) * largest(b), *(furthest(s[k], b) for s in again)])
        gap = furthest(np.where(np.isfinite(b), a, b), b)
        worst = max(worst, gap if gap > UNITS * noise else 0.0)
    return worst

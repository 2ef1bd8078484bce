r"""The costate itself: is a rule that is right for a costate of order one right for the one that arrives?

    2^k G(p) = G(2^k p)      for a linear map to the bit, unless something underflows or overflows

A place is tried at `2^k p`, of order one, where no digits are lost. A rule that squares its costate, or
asks how large it is, may be right there and wrong where the program runs it.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hjcontrol.verification.arithmetic import eps_of
from hjcontrol.verification.gaps import UNITS
from hjcontrol.verification.roundoff import ALONE
from hjcontrol.verification.rule import CALM, slot_dtype
from hjcontrol.verification.trial import Trial
from hjcontrol.verification.verdicts import REFUTED, Outcome

NOTHING_LEFT = 0.5  # a gap above this is no roundoff, whatever the arithmetic


def unusual(reach: Any) -> Any:
    """Which costates are too small or too large to be judged where the program runs."""
    calm = 10.0 ** CALM[np.dtype(slot_dtype()).itemsize]
    return (reach > 0) & np.isfinite(reach) & ((reach <= 1 / calm) | (reach >= calm))


def of_order_one(p: Sequence[Any]) -> tuple[list[Any], float]:
    """`2^k p` and `2^k`. What is zero, not finite or below the normal numbers is left as it is."""
    size = max((float(np.max(np.abs(a), initial=0.0)) for a in p), default=0.0)
    limits = [jnp.finfo(a.dtype) for a in p]
    if not (np.isfinite(size) and size > max((float(f.tiny) for f in limits), default=0.0)):
        return list(p), 1.0
    factor = float(np.ldexp(1.0, -int(np.frexp(size)[1])))
    return [a * np.asarray(factor, f.dtype) for a, f in zip(p, limits, strict=True)], factor


def lost(
    trial: Trial, ins: list[Any], p: list[Any], scaled: list[Any], factor: float, o: Outcome
) -> Outcome | None:
    """A rule that was acquitted at `scaled`, `factor` times `p`, and is off at `p`; else `None`."""
    own = trial.programs.setdefault("rule", jax.jit(trial.rule))
    # Twice, one after the other: a rule with a hidden state is not taken for one that loses costates.
    gap = min(_apart(trial, own, ins, p, scaled, factor, o.argument) for _ in range(2))
    limit = min(o.room, ALONE * UNITS * eps_of(trial.arithmetic), NOTHING_LEFT)
    if gap <= limit:
        return None
    if trial.maps.mode == "reverse":  # the derivative loses it as well: that is arithmetic
        derivative = jax.jit(lambda ins, r: trial.transposed(trial.closed, ins, r))
        limit = 4 * _apart(trial, derivative, ins, p, scaled, factor, o.argument)
    if gap <= limit:
        return None
    size = max(float(np.max(np.abs(a), initial=0.0)) for a in p)
    words = (
        f"off for the costate that arrives, of size {size:.0e}, and right for the same costate scaled "
        "to order one: the rule underflows, overflows or asks how large its costate is"
    )
    return Outcome(REFUTED, gap, words, o.argument)


def _apart(
    trial: Trial,
    image: Callable,
    ins: list[Any],
    p: list[Any],
    scaled: list[Any],
    factor: float,
    k: int,
) -> float:
    """Gap of `2^k G(p)` and `G(2^k p)` over the elements of `G(p)` that are normal numbers, relative."""
    wanted, found = (
        sum(np.asarray(parts[i]) for i in trial.groups[k])
        for parts in (image(ins, scaled), image(ins, p))
    )
    limits = jnp.finfo(np.asarray(wanted).dtype)
    with np.errstate(all="ignore"):
        there = np.abs(wanted) / np.asarray(factor, limits.dtype)
        normal = (there > 2 * limits.tiny / limits.eps) & (there < limits.max)
        gap = np.abs(found * np.asarray(factor, limits.dtype) - wanted)
    worst = float(np.max(np.where(normal, gap, 0), initial=0.0))
    size = float(np.max(np.abs(wanted), initial=0.0))
    return worst / size if size and np.isfinite(worst) else 0.0

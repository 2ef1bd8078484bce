"""A place whose values change from run to run: a host function in it that counts, draws or remembers.

What changes by itself has no derivative to hold a rule to, so such a place is not refuted; and its
changes would be taken for roundoff, so it is not exact.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from hjcontrol._ground.jaxprs import equations
from hjcontrol.verification.arithmetic import OPAQUE
from hjcontrol.verification.trial import Trial
from hjcontrol.verification.verdicts import REFUTED, UNDEFINED, UNTESTED, Outcome

APART = 1e-4  # relative; far above the roundoff of a machine that sums in any order
WORDS = "its values change from run to run: it calls a host function that is not pure"


def excused_if_impure(
    outcomes: Sequence[Outcome], trial: Trial, ins: Sequence[Any], p: Sequence[Any], seed: int
) -> list[Outcome]:
    """The outcomes of a trial; `untested` of a place that is not pure."""
    against = any(o.verdict in (REFUTED, UNDEFINED) for o in outcomes)
    hosted = any(e.primitive.name in OPAQUE for e in equations(trial.closed.jaxpr))
    if not (against or hosted) or not _changes(trial, ins, p, seed):
        return list(outcomes)
    return [Outcome(UNTESTED, 0.0, WORDS, k) for k in sorted({o.argument for o in outcomes})]


def _changes(trial: Trial, ins: Sequence[Any], p: Sequence[Any], seed: int) -> bool:
    try:
        runs = [jax.device_get(trial.at_point(ins, p, seed)) for _ in range(3)]
    except jax.errors.JaxRuntimeError:  # a guard of the program's own: it bears no other run
        return False
    return any(_apart(_images(run), _images(runs[0])) for run in runs[1:])


def _images(found: Any) -> list[np.ndarray]:
    """The images of both costates, and how large the values are and how far apart, relative."""
    sides = [side for name in ("p sides", "q sides") for side in found[name][:2]]
    sizes = [np.asarray([size, size + gap]) for gap, _, size in found["values"]]
    return [np.asarray(a) for side in sides if side is not None for a in side] + sizes


def _apart(a: Sequence[np.ndarray], b: Sequence[np.ndarray]) -> bool:
    finite = lambda x: np.where(np.isfinite(x), x, 0)
    gap = lambda x, y: np.max(np.abs(finite(x) - finite(y)), initial=0.0)
    size = lambda y: np.max(np.abs(finite(y)), initial=0.0)
    return any(gap(x, y) > APART * size(y) for x, y in zip(a, b, strict=True))

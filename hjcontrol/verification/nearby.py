"""How far the derivative of a place's primal jumps within the roundoff of its inputs.

    jump  =  max over draws of |T(x + 4 eps |x|max s) r - T(x) r| / max |T r|,        s random signs

At a kink within roundoff, a program that fuses other instructions takes the other side: rule and
derivative then differ when the program ran, and agree when the place is tried alone.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from hjcontrol.verification.arithmetic import eps_of, is_float
from hjcontrol.verification.gaps import TINY, furthest, largest

DRAWS = 8


def jumps(trial: Any, ins: Sequence[Any], p: Any, seed: int) -> list[float]:
    """One number per argument of the place of `trial`, whose program at a point is compiled already."""
    draw, found = np.random.default_rng(seed), []
    for turn in range(DRAWS + 1):
        moved = [_moved(a, draw) if turn else a for a in ins]
        point = jax.device_get(trial.at_point(moved, p, seed))
        found.append([point[f"{name} sides"][1] for name in ("p", "q")])
    here, there = found[0], found[1:]
    return [
        max(
            furthest(sides[k], one[k]) / max(largest(sides[k]), largest(one[k]), TINY)
            for others in there
            for sides, one in zip(here, others, strict=True)
        )
        for k in range(len(here[0]))
    ]


def _moved(a: Any, draw: np.random.Generator) -> Any:
    if not is_float(a) or np.iscomplexobj(a):
        return a
    step = 4 * eps_of(a.dtype) * largest(a)
    return (np.asarray(a) + step * draw.choice([-1.0, 1.0], np.shape(a))).astype(a.dtype)

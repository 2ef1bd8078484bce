r"""Kinks of several elements and arguments together: right one by one, are they right along all of them?

    v = 1 at every element in dispute        D-(v) <= <g, v> <= D+(v)

A tie of maxima has slopes [0, 1] along each element alone, so a rule that gives 1 to both passes there;
along both the values are smooth, with slope 1.
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from hjcontrol.verification.arithmetic import is_float
from hjcontrol.verification.elements import UNITS, Spot, voids
from hjcontrol.verification.gaps import beyond
from hjcontrol.verification.slopes import slopes

Side = tuple[np.ndarray, np.ndarray, np.ndarray]  # the rule's image, the derivative's, the noise


def against(
    spot: Spot,
    groups: Sequence[tuple[int, ...]],
    sides: Sequence[Side],
    rounding: Sequence[np.ndarray],
) -> str:
    """What speaks against the rule along all elements in dispute at once; "" if nothing does. `rounding`:
    how far roundoff moves the rule's images, infinite where that is not known; at a kink the derivative,
    a 0 or a 1, does not tell."""
    masks = [beyond(*side) for side in sides]
    for k, mask in enumerate(masks):  # arguments of one shape tie with each other
        same = [m for m in masks if m.shape == mask.shape]
        masks[k] = np.any(same, axis=0)
    tied = [np.abs(np.asarray(spot.x[g[0]])[m]) for g, m in zip(groups, masks, strict=True)]
    unit = max([float(np.max(a, initial=0.0)) for a in tied]) or 1.0
    unit = 2.0 ** np.floor(np.log2(unit))  # so that x + t v is not rounded
    moves = [unit * m for m in masks]

    def along(x: Any, held: Any, r: Any, moves: Any) -> Any:
        def function(t: Any) -> Any:
            moved = list(x)
            for g, v in zip(groups, moves, strict=True):
                for i in g:
                    moved[i] = x[i] + (t[0][0] * v).astype(x[i].dtype)
            return spot.function(moved, held)

        at = [jnp.zeros(1, jnp.result_type(*(a.real for a in x if is_float(a))))]
        return slopes(function, at, (0,), voids(spot, r), jnp.zeros(1, int))

    found = spot.compiled("joint", along)(spot.x, spot.held, spot.r, moves)
    right, left, e, f, low, high = (float(a[0]) for a in found)
    value = sum(float(np.sum(np.real(s[0]) * v)) for s, v in zip(sides, moves, strict=True))
    every = zip(sides, rounding, moves, strict=True)
    own = lambda noise, e: np.where(np.isfinite(e), np.maximum(noise, e), noise)
    noise = sum(float(np.sum(own(s[2], e) * v)) for s, e, v in every)
    doubt = 10 * (e + f) + UNITS * noise
    if not np.isfinite([right, left, doubt]).all():
        return ""
    if min(right, left, low) - doubt <= value <= max(right, left, high) + doubt:
        return ""
    return (
        f"kinks that are right one by one and wrong together: along all {sum(m.sum() for m in masks)} of "
        f"them rule {value / unit:.6g}, slopes of the values {right / unit:.6g} | {left / unit:.6g}"
    )

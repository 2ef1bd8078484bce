r"""Roundoff of a comparison, element by element: programs run again, every equation rounded at random.

    noise_i = max( |dT_i|, min(|dG_i|, max |dT|) )      dT, dG: what moves in derivative and rule

A rule may round more than the derivative at one element, for it may be another formula, and is not
excused by more than the derivative rounds at any. So elements much smaller than the largest are judged.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jax.extend.core import ClosedJaxpr

from hjcontrol.verification.arithmetic import eps_of, noisy
from hjcontrol.verification.further import holds_loop
from hjcontrol.verification.gaps import UNITS, beyond, distance, largest

SALTS = ((1, 2), (3, 4, 5, 6, 7, 8, 9, 10))  # drawn twice, and eight times more where that decides
ALONE = 16.0  # times the noise: the program fuses other instructions
Arrays = Sequence[Any]


def shaken(programs: Sequence[ClosedJaxpr], args: Arrays, salt: Any) -> list[list[Any] | None]:
    """Each program's results, rounded at random; `None` for one with a loop, which may not end."""
    return [None if holds_loop(c) else noisy(c, salt)(*args) for c in programs]


def moves(plain: Arrays, again: Sequence[Arrays | None]) -> list[np.ndarray]:
    """Of each array, how far its elements move in any run, at least half a unit in the last place."""
    found = []
    for i, a in enumerate(plain):
        runs = [np.inf if run is None else distance(run[i], a) for run in again]
        most = np.max(np.broadcast_arrays(_ulp(a), *map(_finite, runs)), axis=0)
        found.append(np.asarray(most))  # of one number too
    return found


def noise_of(derivative: np.ndarray, rule: np.ndarray) -> np.ndarray:
    """Noise of the difference of two images that move so."""
    of_rule = np.minimum(rule, np.max(derivative, initial=0.0))
    return np.asarray(np.maximum(derivative, of_rule))


def noise_between(
    ours: Arrays, theirs: Arrays, run: Callable[[int], tuple[Arrays | None, Arrays | None]]
) -> list[np.ndarray]:
    """Noise of each pair of images. `run(salt)`: derivative's and rule's images, rounded at random."""
    runs: list[Any] = []
    noise: list[np.ndarray] = []
    for salts in SALTS:
        runs += map(run, salts)
        of_derivative, of_rule = (
            moves(s, [r[j] for r in runs]) for j, s in enumerate((theirs, ours))
        )
        noise = [noise_of(d, r) for d, r in zip(of_derivative, of_rule, strict=True)]
        if not any(map(_doubtful, ours, theirs, noise)):
            break
    return noise


def _doubtful(a: Any, b: Any, noise: np.ndarray) -> bool:
    """Whether only an element beside its own noise is in dispute: two draws may have left it still."""
    return bool(beyond(a, b, noise).any() and not beyond(a, b, np.max(noise, initial=0.0)).any())


def _ulp(a: Any) -> np.ndarray:
    return np.asarray(eps_of(np.asarray(a).dtype) * _finite(np.abs(np.asarray(a))))


def _finite(size: Any) -> np.ndarray:
    """What is not a number, and an overflow of one run, moves nothing; a loop's stays infinite."""
    return np.asarray(size if size is np.inf else np.where(np.isfinite(size), size, 0))


def hidden_by(side: Any) -> float:
    """The largest fault, relative, that the noise of an image would explain."""
    _, theirs, noise = side
    size = largest(theirs)
    return UNITS * largest(noise) / size if size else np.inf


def room_for(noise: Any, size: Any) -> float:
    """How far a place that is run alone may be from the program, relative."""
    return ALONE * UNITS * float(noise) / float(size) if size else np.inf

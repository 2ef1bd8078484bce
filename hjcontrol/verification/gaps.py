"""Distances between two images of a costate, on the host: maxima, never squares, so nothing overflows."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from hjcontrol.verification.arithmetic import is_float

TINY = np.finfo(float).tiny
UNITS = 64.0  # of noise: what is within them is roundoff


def distance(a: Any, b: Any) -> np.ndarray:
    """`|a - b|` by element: 0 where both are not finite or equal, infinite where one is not a number."""
    a, b = np.asarray(a), np.asarray(b)
    same = (~np.isfinite(a) & ~np.isfinite(b)) | (a == b)
    gap = np.abs(np.where(same, 0, a) - np.where(same, 0, b))
    return np.where(np.isnan(gap), np.inf, gap)


def largest(a: Any) -> float:
    """`max |a|` over the finite elements."""
    size = np.abs(np.asarray(a))
    return float(np.max(np.where(np.isfinite(size), size, 0), initial=0.0))


def furthest(a: Any, b: Any) -> float:
    """`max |a - b|`."""
    return float(np.max(distance(a, b), initial=0.0))


def relative(a: Any, b: Any) -> float:
    """`max |a - b|` over the larger of `max |a|` and `max |b|`."""
    gap = furthest(a, b)
    return 0.0 if gap == 0 else gap / max(largest(a), largest(b), TINY)


def beyond(a: Any, b: Any, noise: Any) -> np.ndarray:
    """Which elements are further apart than roundoff explains."""
    return np.asarray(distance(a, b) > UNITS * np.asarray(noise))


def worst_first(a: Any, b: Any, noise: Any) -> np.ndarray:
    """The elements that are `beyond`, by their distance in units of noise; those without noise by the
    distance itself. Of flat arrays."""
    gap, noise = distance(a, b), np.asarray(noise)
    with np.errstate(over="ignore"):  # a derivative of zero has no noise
        off = gap / np.maximum(noise, TINY)
    found = np.flatnonzero(beyond(a, b, noise))
    return found[np.lexsort((-gap[found], -off[found]))]


def by_element(a: Any, b: Any) -> np.ndarray:
    """`|a - b|` over the larger of `|a|` and `|b|`, each element by its own size."""
    size = np.maximum(np.abs(np.asarray(a)), np.abs(np.asarray(b)))
    size = np.where(np.isfinite(size), size, TINY)
    gap = distance(a, b)
    return np.where(gap == 0, 0.0, gap / np.maximum(size, TINY))


def paired(
    r: Sequence[Any], pushed: Sequence[Any], by_rule: Sequence[Any], v: Sequence[Any]
) -> float:
    """`|<r, J v> - <G r, v>|` over the larger sum of absolute summands. The real part, without
    conjugation."""
    left, right = _sides(r, pushed, by_rule, v)
    gap = abs(_sum(left) - _sum(right))
    return 0.0 if gap == 0 else gap / max(signal(r, pushed, by_rule, v), TINY)


def signal(
    r: Sequence[Any], pushed: Sequence[Any], by_rule: Sequence[Any], v: Sequence[Any]
) -> float:
    """The larger sum of absolute summands: what `paired` is relative to."""
    return max(_sum(map(np.abs, side)) for side in _sides(r, pushed, by_rule, v))


def paired_noise(r: Sequence[Any], pushed: Sequence[Any], shaken: Sequence[Any]) -> float:
    """How far `<r, J v>` moves when every equation's roundoff does, on the same scale."""
    one, two = ([np.asarray(a) for a in side if is_float(a)] for side in (pushed, shaken))
    moved = _products(r, [a - b for a, b in zip(one, two, strict=True)])
    return abs(_sum(moved)) / max(_sum(map(np.abs, _products(r, one))), TINY)


def _sides(r: Any, pushed: Any, by_rule: Any, v: Any) -> tuple[list[np.ndarray], list[np.ndarray]]:
    return _products(r, [a for a in pushed if is_float(a)]), _products(by_rule, v)


def _products(a: Sequence[Any], b: Sequence[Any]) -> list[np.ndarray]:
    pairs = zip(a, b, strict=True)
    return [np.asarray(np.real(np.asarray(x) * np.asarray(y))) for x, y in pairs if is_float(x)]


def _sum(parts: Any) -> float:
    return sum(float(np.sum(a, dtype=float)) for a in parts)

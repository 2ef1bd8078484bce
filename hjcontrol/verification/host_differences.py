r"""Slopes and differences of a place's values, on the host: values only, no derivative rule has a say.

    D+-  =  lim_{t -> 0+-}  Re <r, F(x + t e_i) - F(x)> / t
    D v  =  lim_{t -> 0}    Re <r, F(x + t v) - F(x - t v)> / 2t

Steps `h_j = h_0 / 4^j`, extrapolated to 0; the entry of least estimated error is kept. The *difference*
is contracted, so outputs that do not move add no roundoff.
"""

from typing import Any

import numpy as np

STEPS = 8


def slope(alone: Any, k: int, r: list[Any], i: int, sign: int) -> tuple[float, float]:
    """One-sided slope of `Re <r, values>` along one element, and its error."""
    flat = _sizes(alone.x[k])
    h = float(flat[i] or flat.max(initial=0.0) or 1.0) / 16 * 4.0 ** -np.arange(STEPS)
    v = np.zeros(alone.x[k].size)
    v[i] = sign
    quotients, height = _quotients(alone, k, r, v, h)
    value, error = limit(quotients, h, alone.eps * height, 4.0)
    return sign * value, error


def central(alone: Any, k: int, r: list[Any], v: np.ndarray) -> tuple[float, float]:
    """Central difference of `Re <r, values>` along `v`, and its error."""
    top = float(_sizes(alone.x[k]).max(initial=0.0)) or 1.0
    v = v * np.isfinite(alone.x[k].ravel())
    # Small: a direction crosses the kinks of many elements
    h = top / 256 * 4.0 ** -np.arange(STEPS)
    up, height = _quotients(alone, k, r, v, h)
    down, _ = _quotients(alone, k, r, -v, h)
    return limit((up - down) / 2, h, alone.eps * height, 16.0)


def _sizes(x: np.ndarray) -> np.ndarray:
    """Of its elements; 0 of those that are not finite, which cannot be moved."""
    return np.abs(np.where(np.isfinite(x), x, 0)).ravel()


def _quotients(
    alone: Any, k: int, r: list[Any], v: np.ndarray, steps: np.ndarray
) -> tuple[np.ndarray, float]:
    """`Re <r, F(x + h v) - F(x)> / h`, and the size of what was subtracted."""
    start, at = alone.values(alone.x), alone.x[k]
    found, taken = [], []
    for h in steps:
        x = list(alone.x)
        x[k] = (at + (h * v).reshape(at.shape)).astype(at.dtype)
        parts = zip(r, alone.values(x), start, strict=True)
        with np.errstate(invalid="ignore"):
            went = np.where(v == 0, 0, np.real(x[k] - at).ravel()) * v  # as it rounded
            taken.append(float(np.sum(went) / np.sum(v * v)))
            found.append(
                sum(
                    float(np.sum(np.real(np.conj(w) * np.where(w == 0, 0, b - a))))
                    for w, b, a in parts
                )
            )
    height = sum(
        float(np.sum(np.abs(np.where(w == 0, 0, w * a)))) for w, a in zip(r, start, strict=True)
    )
    return np.asarray(found) / np.asarray(taken), height


def limit(
    quotients: np.ndarray, steps: np.ndarray, noise: float, ratio: float
) -> tuple[float, float]:
    """Richardson's entry with the least estimated error, and that error; infinite if none is finite."""
    column, best, error = quotients, 0.0, np.inf
    rounding = noise / steps
    with np.errstate(invalid="ignore"):
        for j in range(1, 5):
            coarse, fine = column[:-1], column[1:]
            column = fine + (fine - coarse) / (ratio**j - 1)
            gap = np.maximum(np.abs(column - fine), np.abs(column - coarse)) + rounding[j:]
            gap = np.where(np.isfinite(gap), gap, np.inf)
            i = int(np.argmin(gap))
            if gap[i] < error:
                best, error = float(column[i]), float(gap[i])
    return best, error

r"""Atoms on a set of dimension m cover it at h ~ N^{-1/m}, whatever the ambient d."""

import numpy as np

from hjcontrol.reproduction import by_hand
from hjcontrol.reproduction.claim import Claim, Evidence, evidence
from hjcontrol.reproduction.finding import equal

AMBIENT = 10


def _sheet(u: np.ndarray, ambient: int) -> np.ndarray:
    """A smooth sheet of dimension `u.shape[1]` in the ambient space."""
    rng = np.random.default_rng(2)
    waves = rng.standard_normal((u.shape[1], ambient)) / np.sqrt(ambient)
    return np.sin(u @ waves * 1.5 + rng.uniform(0, 6, ambient)) + u @ waves


def _covering(m: int, N: int, ambient: int) -> float:
    """Mean distance from a point of the sheet to the nearest of N atoms on it."""
    rng = np.random.default_rng(100 * m + N)
    atoms = _sheet(rng.uniform(-1, 1, (N, m)), ambient)
    points = _sheet(rng.uniform(-1, 1, (800, m)), ambient)
    square = (points**2).sum(1)[:, None] + (atoms**2).sum(1) - 2 * points @ atoms.T
    return float(np.sqrt(np.maximum(square.min(1), 0)).mean())


def _measure(noise: bool) -> Evidence:
    widths = (32, 128, 512, 2048)
    slopes = []
    for m in (1, 2, 3):
        h = [_covering(AMBIENT if noise else m, N, AMBIENT) for N in widths]
        slopes.append(by_hand.slope(np.array(widths), np.array(h)))
    return evidence(
        equal(
            "slope of the covering radius over N, m = 1, 2, 3", slopes, [-1, -1 / 2, -1 / 3], 0.07
        )
    )


CLAIM = Claim(
    id="intrinsic-dimension",
    title="Intrinsic dimension, not ambient, sets the width needed",
    source="main text, scaling; second-hand",
    published="The number of neurons needed depends on the intrinsic dimension of the data.",
    precise="Atoms on a set of box dimension m cover it at h ~ N^{−1/m} in any ambient dimension "
    "(ten here), so the bound L h_N is N^{−1/m}.",
    check=lambda fast: _measure(False),
    fault="the atoms fill all ten dimensions",
    control=lambda fast: _measure(True),
    recorded="holds exactly",
)

r"""How many neurons does a target on a set of dimension m need, in ten ambient dimensions?

    layer fitted to |x|^2/2 on the sheet     error ~ N^{-2/m}: at most N^{-1/m}, the Lipschitz bound
    atoms on the sheet                       cover it at h ~ N^{-1/m}

Fitted: L-BFGS on 600 points of the sheet, from tangents at N of them, each the farthest from those
before; eps = h^2/5, h their covering radius. The error is that at 400 other points.
"""

import functools

import jax
import numpy as np

from hjcontrol.layers import LSE
from hjcontrol.reproduction import by_hand
from hjcontrol.reproduction.claim import Claim, Evidence, evidence
from hjcontrol.reproduction.finding import at_most, equal

AMBIENT, WIDTHS = 10, (4, 8, 16, 32)


def _sheet(u: np.ndarray, ambient: int) -> np.ndarray:
    """A smooth sheet of dimension `u.shape[1]` in the ambient space."""
    rng = np.random.default_rng(2)
    waves = rng.standard_normal((u.shape[1], ambient)) / np.sqrt(ambient)
    return np.sin(u @ waves * 1.5 + rng.uniform(0, 6, ambient)) + u @ waves


@jax.jit
def _values(x, W, b, eps):
    return jax.vmap(LSE(W, b, eps))(x)


@functools.cache
def _fitted(m: int, N: int, ambient: int) -> float:
    """Root mean square error of `N` fitted neurons at other points of the sheet."""
    rng = np.random.default_rng(10 * m + N)
    x, test = (_sheet(rng.uniform(-1, 1, (n, m)), ambient) for n in (600, 400))
    target = lambda at: (at**2).sum(1) / 2
    chosen, square = [0], ((x - x[0]) ** 2).sum(1)
    while len(chosen) < N:
        chosen.append(int(square.argmax()))
        square = np.minimum(square, ((x - x[chosen[-1]]) ** 2).sum(1))
    W, eps = x[chosen], square.max() / 5
    _, W, b = by_hand.least_squares(x, target(x), W, -target(W), eps, maxiter=100)
    return float(np.sqrt(np.mean((np.asarray(_values(test, W, b, eps)) - target(test)) ** 2)))


def _covering(m: int, N: int, ambient: int) -> float:
    """Mean distance from a point of the sheet to the nearest of N atoms on it."""
    rng = np.random.default_rng(100 * m + N)
    atoms = _sheet(rng.uniform(-1, 1, (N, m)), ambient)
    points = _sheet(rng.uniform(-1, 1, (800, m)), ambient)
    square = (points**2).sum(1)[:, None] + (atoms**2).sum(1) - 2 * points @ atoms.T
    return float(np.sqrt(np.maximum(square.min(1), 0)).mean())


def _measure(full: bool) -> Evidence:
    """`full`: the points fill all ten dimensions."""
    slopes, covers, widths = [], [], (32, 128, 512, 2048)
    for m in (1, 2, 3):
        inner = AMBIENT if full else m
        slopes.append(
            by_hand.slope(np.array(WIDTHS), np.array([_fitted(inner, N, AMBIENT) for N in WIDTHS]))
        )
        h = [_covering(inner, N, AMBIENT) for N in widths]
        covers.append(by_hand.slope(np.array(widths), np.array(h)))
    rate = [-1, -1 / 2, -1 / 3]
    return evidence(
        at_most("slope of the fitted error over N, m = 1, 2, 3", slopes, rate),
        equal("slope of the covering radius over N, m = 1, 2, 3", covers, rate, 0.07),
    )


CLAIM = Claim(
    id="intrinsic-dimension",
    title="Intrinsic dimension, not ambient, sets the width needed",
    source="main text, scaling; second-hand",
    published="The number of neurons needed depends on the intrinsic dimension of the data.",
    precise="Fitted neurons: on a sheet of dimension m in ten ambient ones the error falls as N^{−1/m} "
    "or faster (−2/m is the rate of smooth data). Atoms on it cover it at h ~ N^{−1/m}. Where the "
    "points fill all ten dimensions neither rate is reached.",
    check=lambda fast: _measure(False),
    fault="the points fill all ten dimensions",
    control=lambda fast: _measure(True),
    recorded="holds within its bound",
)

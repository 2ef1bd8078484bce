r"""Do a trained layer's (y_j, g_j) tend to the true g = |y| as eps -> 0?

Published: eight atoms on [-2, 2], t = 1, 400 points of [-2.4, 2.4]. Only two of the eight win
anywhere: the target is
|x|/7 - 15/49. Ten neurons collapse onto two places; g_j carries eps log(multiplicity), so merge first:
    g_eff = -eps log sum over a cluster of e^{-g_j/eps}
Starts default_rng(0..7), Adam 5000 steps at 0.008, then L-BFGS-B.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from hjcontrol.hamilton_jacobi import InitialData, c_transform, data_of_layer, merge
from hjcontrol.reproduction import by_hand
from hjcontrol.reproduction.claim import Claim, Evidence, Picture, evidence
from hjcontrol.reproduction.finding import equal, zero

Y = np.linspace(-2, 2, 8)
G = np.abs(Y)
X = np.linspace(-2.4, 2.4, 400)
TRAINED = {
    0.5: (4.23e-4, 0.522, 0.528),
    0.1: (1.01e-4, 0.323, 0.313),
    0.04: (1.58e-5, 0.294, 0.291),
}


@functools.cache
def _fit(eps: float) -> tuple[float, np.ndarray, np.ndarray]:
    """Least mean square over eight starts, with its weights."""
    target = X**2 / 4 - (G + (X[:, None] - Y) ** 2 / 4).min(1)
    slopes, fits = by_hand.squares(X[:, None], target, eps), []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        W, b = 0.4 * rng.standard_normal((10, 1)), 0.2 * rng.standard_normal(10)
        W, b = by_hand.adam(slopes, W, b, 5000, 0.008)
        tight = {"maxiter": 10000, "ftol": 1e-24, "gtol": 1e-14}
        fits.append(by_hand.least_squares(X[:, None], target, W, b, eps, **tight))
    square, W, b = min(fits, key=lambda fit: fit[0])
    return square, W[:, 0], b


def _merged(eps: float) -> tuple[float, float, float]:
    """Mean square, and place and value of the merged right-hand atom."""
    square, W, b = _fit(eps)
    data = data_of_layer(jnp.asarray(W[:, None]), jnp.asarray(b), 1.0)
    one = merge(data, eps, tol=0.05)
    y, g = np.asarray(one.atoms)[:, 0], np.asarray(one.energies(eps))
    weight = by_hand.weights(-by_hand.energies(X[:, None], y[:, None], g, 1.0), eps).mean(0)
    k = int(np.argmax(np.where(y > 0, weight, -1)))
    return square, float(y[k]), float(g[k])


def _merging() -> np.ndarray:
    """Two atoms at one place and one elsewhere, merged at ε = 0.3, against the closed form."""
    data = InitialData(jnp.array([[1.0], [1.0], [-1.0]]), jnp.array([0.4, 0.1, 0.2]))
    one = merge(data, 0.3, tol=0.05)
    found = sorted(zip(np.asarray(one.atoms)[:, 0], np.asarray(one.energies(0.3)), strict=True))
    together = -0.3 * np.log(np.exp(-0.4 / 0.3) + np.exp(-0.1 / 0.3))
    return np.subtract(found, [(-1.0, 0.2), (1.0, together)])


@jax.jit
def _read(x, seen, y, W, b):
    """The c-transform of what is seen, and the values that the weights give."""
    return c_transform(x, seen, 1.0, y), data_of_layer(W, b, 1.0).values


def _measure(fast: bool, offset: float, steep: float = 1.0) -> Evidence:
    """Values and biases are `offset` too large; the values are those of `steep` |y|."""
    cost = steep * G + (X[:, None] - Y) ** 2 / 4
    won = np.unique(cost.argmin(1))
    target = X**2 / 4 - cost.min(1)
    W, b = Y / 2, -G - Y**2 / 4
    back, read = (
        np.asarray(a)
        for a in _read(X[:, None], cost.min(1) + offset, Y[:, None], W[:, None], b + offset)
    )
    found = [
        equal("atoms of eight that the values on the window determine", len(won), 8, 0.5),
        zero("c-transform of u_0 − g at those that win", (back - G)[won], 1e-3, role="amended"),
        zero("read off from weights − g, all eight", read - G, 1e-14, role="amended"),
        zero("two atoms at one place, merged − by hand", _merging(), 1e-14, role="amended"),
        zero("target − (|x|/7 − 15/49)", target - (np.abs(X) / 7 - 15 / 49), 1e-14, role="number"),
    ]
    picture = None
    if not fast:
        fits = [_merged(e) for e in TRAINED]
        for (eps, (mse, y, g)), (m, place, value) in zip(TRAINED.items(), fits, strict=True):
            found.append(
                equal(
                    f"mean square at ε = {eps}",
                    m,
                    mse,
                    0.2 * mse,
                    role="number",
                    published=f"{mse:.1e}",
                )
            )
            found.append(
                equal(f"merged atom y, g at ε = {eps}", [place, value], [y, g], 0.01, role="number")
            )
        picture = Picture(
            "Merged recovered data and |y|.",
            "y",
            "g",
            {
                "|y|": (Y, G),
                "merged, ε = 0.5, 0.1, 0.04": (
                    np.array([f[1] for f in fits]),
                    np.array([f[2] for f in fits]),
                ),
            },
        )
    return evidence(*found, picture=picture)


CLAIM = Claim(
    id="recovery",
    title="A trained layer reveals its initial data as ε → 0",
    source="recovery.py",
    published="From the trained weights (y_j, g_j) approach the true g as ε → 0.",
    precise="From weights it is a read-off, given t. From values at ε = 0 only the c-transform "
    "envelope is determined (two atoms of the eight here); at ε > 0 it is backward heat. Neurons "
    "at one place are merged before g is compared.",
    check=lambda fast: _measure(fast, 0.0),
    fault="g is 0, where every atom wins somewhere; and values and biases are 0.05 too large",
    control=lambda fast: Evidence(
        (*_measure(True, 0.0, 0.0).findings[:1], *_measure(True, 0.05).findings[1:3])
    ),
    recorded="holds once amended",
    seconds=20,
)

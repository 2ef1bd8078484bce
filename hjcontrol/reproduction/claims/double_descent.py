r"""Double descent with the curvature recorded, in two models.

    features   f = sum_k c_k softplus((w_k x + b_k)/eps) eps, least-norm least squares, w ~ 1.5 N(0, 1)
    layer      f = lse(W x + b, eps), trained by Adam

24 noisy samples; widths pass through 24. Error against the true function, curvature the mean of |f''|;
medians over twelve draws of default_rng(seed) for features, means over two for the layer.
"""

import jax
import numpy as np

from hjcontrol.layers import Softplus
from hjcontrol.reproduction import by_hand
from hjcontrol.reproduction.claim import Claim, Evidence, Picture, evidence
from hjcontrol.reproduction.finding import at_least, at_most, zero

SAMPLES, EPS = 24, 0.05
PEAK = 10.0  # what counts as a peak: an order of magnitude over the widest
WIDTHS, LAYERS = (4, 8, 12, 16, 20, 24, 28, 32, 48, 96, 192), (2, 6, 12, 24, 48)
TEST = np.linspace(-1.9, 1.9, 400)


@jax.jit
def _units(z):
    """Features and their derivatives by the logit, first and second."""
    slope = jax.grad(lambda a: Softplus(EPS).value(a))
    bend = jax.jvp(slope, (z,), (jax.numpy.ones_like(z),))[1]
    return Softplus(EPS).values(z), bend


def _features(ridge: float) -> tuple[np.ndarray, np.ndarray]:
    """Error and curvature by width."""
    runs = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        x = rng.uniform(-2, 2, SAMPLES)
        y = np.sin(2 * x) + 0.3 * rng.standard_normal(SAMPLES)
        w, b = 1.5 * rng.standard_normal(WIDTHS[-1]), rng.uniform(-3, 3, WIDTHS[-1])
        value, bend = (np.asarray(a) for a in _units(np.outer(np.append(x, TEST), w) + b[None, :]))
        for N in WIDTHS:
            F, size = value[:SAMPLES, :N], np.sqrt(ridge) * np.eye(N)
            A, target = (F, y) if ridge == 0 else (np.vstack([F, size]), np.append(y, np.zeros(N)))
            c = np.linalg.lstsq(A, target, rcond=1e-12)[0]
            error = np.sqrt(np.mean((value[SAMPLES:, :N] @ c - np.sin(2 * TEST)) ** 2))
            runs.append((error, np.abs((bend[SAMPLES:, :N] * w[:N] ** 2) @ c).mean()))
    both = np.median(np.reshape(runs, (12, len(WIDTHS), 2)), axis=0)
    return both[:, 0], both[:, 1]


def _off() -> float:
    """How far the units and their second derivatives are from the closed form."""
    z = np.linspace(-0.5, 0.5, 101)
    value, bend = (np.asarray(a) for a in _units(z[:, None]))
    share = 1 / (1 + np.exp(-z / EPS))
    apart = value[:, 0] - EPS * np.logaddexp(0, z / EPS), EPS * bend[:, 0] - share * (1 - share)
    return float(np.abs(apart).max())


def layers() -> np.ndarray:
    """Error of the trained layer by width, for a convex target."""
    found = []
    for N in LAYERS:
        runs = []
        for seed in range(2):
            rng = np.random.default_rng(seed)
            x = rng.uniform(-2, 2, (SAMPLES, 1))
            y = x[:, 0] ** 2 / 2 + 0.3 * rng.standard_normal(SAMPLES)
            W, b = rng.standard_normal((N, 1)), 0.3 * rng.standard_normal(N)
            W, b = by_hand.adam(by_hand.squares(x, y, EPS), W, b, 800, 0.02)
            out = by_hand.lse(TEST[:, None] @ W.T + b, EPS)
            runs.append(np.sqrt(np.mean((out - TEST**2 / 2) ** 2)))
        found.append(np.mean(runs))
    return np.array(found)


def _peaks(error: np.ndarray, curvature: np.ndarray) -> tuple:
    together = np.corrcoef(np.log(error), np.log(curvature))[0, 1]
    return (
        at_least("features: error at the peak over the widest", error.max() / error[-1], PEAK),
        at_least(
            "features: width of the peak over the samples", WIDTHS[error.argmax()] / SAMPLES, 1.0
        ),
        at_least("features: correlation of log error and log curvature", together, 0.9),
    )


def _check(fast: bool) -> Evidence:
    del fast
    error, curvature = _features(0.0)
    layer = layers()
    over = layer[1:].max() / layer[-1]
    n = np.array(WIDTHS, float)
    return evidence(
        *_peaks(error, curvature),
        at_least("layer: error at the peak over the widest", over, PEAK),
        at_most("layer: no peak, within a half", over, 1.5, role="instead"),
        zero("features and their curvature − by hand", _off(), 1e-13, role="instead"),
        picture=Picture(
            "Least-norm features of growing width (24 samples), and a trained layer.",
            "width",
            "error, curvature",
            {
                "error, features": (n, error),
                "curvature, features": (n, curvature),
                "error, layer": (np.array(LAYERS, float), layer),
            },
            x_log=True,
            y_log=True,
        ),
    )


def _control(fast: bool) -> Evidence:
    del fast
    error, _ = _features(0.0)
    layer = at_least("layer: error at the peak over the widest", error.max() / error[-1], PEAK)
    return evidence(*_peaks(*_features(1.0)), layer)


CLAIM = Claim(
    id="double-descent",
    title="Double descent is dense near-shocks at the interpolation threshold",
    source="discussion; project page",
    published="At the interpolation threshold near-shocks become dense: the curvature peaks where "
    "the error does.",
    precise="For least-norm random features error and curvature peak together, at widths from the "
    "number of samples on. A trained log-sum-exp layer, convex and trained by descent, has no "
    "peak of error.",
    check=_check,
    fault="the features are fitted with a ridge of 1, which has no threshold; features without it are "
    "taken for the layer",
    control=_control,
    recorded="heuristic",
    rule=True,
)

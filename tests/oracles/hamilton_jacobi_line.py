"""The Hamilton-Jacobi equation on a line, by sums over a very fine grid of sources.

Hopf-Lax   u(x, t) = min_y g(y) + t L((x - y)/t)
Hopf-Cole  u(x, t) = -eps log int exp(-(g(y) + (x - y)^2/(4t))/eps) dy / sqrt(4 pi eps t)     H = p^2
"""

import numpy as np
import scipy.special


def hopf_lax(g, lagrangian, x, t, reach, n=20001):
    """`g` and `lagrangian` of arrays; sources `x - reach .. x + reach`, an odd number of them."""
    shift = np.linspace(-reach, reach, n)
    return np.array([np.min(g(a - shift) + t * lagrangian(shift / t)) for a in np.ravel(x)])


def hopf_cole(g, x, t, eps, n=4001):
    """Twelve standard deviations of the heat kernel to either side, trapezoid rule."""
    z = np.linspace(-12, 12, n)
    weight = np.exp(-(z**2) / 2) * (z[1] - z[0]) / np.sqrt(2 * np.pi)
    step = np.sqrt(2 * eps * t)
    return np.array(
        [-eps * scipy.special.logsumexp(-g(a - step * z) / eps, b=weight) for a in np.ravel(x)]
    )

"""References in multiprecision arithmetic, by the textbook formula: slow, and obviously right.

The textbook formula cancels in any precision; 400 digits keep 100 of them for every derivative whose
norm exceeds 1e-290, and the tests look at no other.
"""

import mpmath
import numpy as np

DIGITS = 400


def _weights(z, eps):
    top = max(z)
    e = [mpmath.exp((mpmath.mpf(float(v)) - mpmath.mpf(float(top))) / eps) for v in z]
    total = mpmath.fsum(e)
    return [v / total for v in e]


def gibbs_tangent(z, eps, g):
    """`p (g - p.g) / eps`, the derivative of the Gibbs state along `g`."""
    with mpmath.workdps(DIGITS):
        return gibbs_tangent_of(z, eps, [mpmath.mpf(float(v)) for v in g])


def gibbs_tangent_of(z, eps, g):
    """The same along a `g` that is known to more digits than a float holds."""
    with mpmath.workdps(DIGITS):
        eps = mpmath.mpf(float(eps))
        p = _weights(z, eps)
        mean = mpmath.fdot(p, g)
        return [a * (b - mean) / eps for a, b in zip(p, g, strict=True)]


def gibbs_second(z, eps, g, h):
    """The second derivative of the Gibbs state along `g` and `h`."""
    with mpmath.workdps(DIGITS):
        eps = mpmath.mpf(float(eps))
        p = _weights(z, eps)
        g = [mpmath.mpf(float(v)) for v in g]
        h = [mpmath.mpf(float(v)) for v in h]
        mg, mh = mpmath.fdot(p, g), mpmath.fdot(p, h)
        cov = mpmath.fsum(a * (b - mg) * (c - mh) for a, b, c in zip(p, g, h, strict=True))
        rows = zip(p, g, h, strict=True)
        return [a * ((b - mg) * (c - mh) - cov) / eps**2 for a, b, c in rows]


def error(got, want):
    """Norm-wise relative error of `got`, and the norm of `want`."""
    with mpmath.workdps(40):  # the reference is known; a ratio of norms needs no more
        size = mpmath.norm(want)
        if size == 0:
            return float(np.linalg.norm(got)), 0.0
        apart = mpmath.norm([mpmath.mpf(float(a)) - b for a, b in zip(got, want, strict=True)])
        return float(apart / size), float(size)

"""Entropy of a layer from its definition, in many digits; critical points by looking everywhere."""

import mpmath
import numpy as np


def entropy(W, b, x, eps, digits=60):
    """`-sum pi log pi` at one point."""
    with mpmath.workdps(digits):
        z = [(sum(mpmath.mpf(w) * v for w, v in zip(r, x, strict=True)) + mpmath.mpf(c)) / eps
             for r, c in zip(W, b, strict=True)]  # fmt: skip
        top = max(z)
        e = [mpmath.exp(v - top) for v in z]
        return -sum(v / sum(e) * mpmath.log(v / sum(e)) for v in e)


def gradient(W, b, x, eps, digits=60):
    """By central differences in `digits` digits."""
    with mpmath.workdps(digits):
        h = mpmath.mpf(10) ** (-digits // 3)
        out = []
        for k in range(len(x)):
            at = lambda s, k=k: [mpmath.mpf(v) + (s * h if j == k else 0) for j, v in enumerate(x)]
            up, down = (entropy(W, b, at(s), mpmath.mpf(eps), digits) for s in (1, -1))
            out.append((up - down) / (2 * h))
        return out


def fold_on_a_line(W, b, x, eps):
    """The fold near `(x, eps)`: H' = H'' = 0 by Newton on differences in 200 digits."""
    h = mpmath.mpf(10) ** -15
    H = lambda s, e: entropy(W, b, [s], e, digits=200)

    def both(s, e):
        low, mid, high = H(s - h, e), H(s, e), H(s + h, e)
        return [(high - low) / (2 * h), (high - 2 * mid + low) / h**2]

    with mpmath.workdps(60):
        found = mpmath.findroot(both, (mpmath.mpf(x), mpmath.mpf(eps)), tol=1e-24)
        return float(found[0]), float(found[1])


def turns_on_a_line(W, b, eps, low, high, n=40001):
    """Where the slope of the entropy changes sign on a fine grid: (left, right) of each."""
    x = np.linspace(low, high, n)
    z = (np.outer(x, np.ravel(W)) + np.asarray(b)) / eps
    p = np.exp(z - z.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    w = np.ravel(W)
    slope = -((p * w * z).sum(1) - (p * w).sum(1) * (p * z).sum(1))
    k = np.flatnonzero(np.sign(slope[1:]) != np.sign(slope[:-1]))
    return np.stack([x[k], x[k + 1]], axis=1)

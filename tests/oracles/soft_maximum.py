"""The eps-family in 60-digit decimal arithmetic: slow, and obviously right."""

import decimal
import math

decimal.getcontext().prec = 60
decimal.getcontext().Emax, decimal.getcontext().Emin = 10**9, -(10**9)


def _weights(z: list[float], eps: float) -> tuple[decimal.Decimal, list[decimal.Decimal]]:
    top = max(decimal.Decimal(v) for v in z if v != -math.inf)
    e = decimal.Decimal(eps)
    scaled = [
        decimal.Decimal("-Infinity") if v == -math.inf else (decimal.Decimal(v) - top) / e
        for v in z
    ]
    floor = decimal.Decimal(-(10**6))  # exp(-1e6) is nothing, in sixty digits too
    return top, [s.exp() if s > floor else decimal.Decimal(0) for s in scaled]


def lse(z: list[float], eps: float) -> float:
    """`eps log sum exp(z/eps)`; the maximum at `eps = 0`."""
    if all(v == -math.inf for v in z) or eps == 0:
        return max(z)
    top, e = _weights(z, eps)
    return float(top + decimal.Decimal(eps) * sum(e).ln())


def gibbs(z: list[float], eps: float) -> list[float]:
    """Softmax at temperature `eps`; uniform over the maximisers at 0; zero where all is masked."""
    if all(v == -math.inf for v in z):
        return [0.0] * len(z)
    if eps == 0:
        hits = [float(v == max(z)) for v in z]
        return [h / sum(hits) for h in hits]
    _, e = _weights(z, eps)
    return [float(v / sum(e)) for v in e]


def entropy(z: list[float], eps: float) -> float:
    """Shannon entropy of the Gibbs weights, in nats."""
    if eps == 0 or all(v == -math.inf for v in z):
        return -sum(p * math.log(p) for p in gibbs(z, eps) if p > 0)
    _, e = _weights(z, eps)
    p = [v / sum(e) for v in e if v > 0]
    return float(-sum(v * v.ln() for v in p if v > 0))

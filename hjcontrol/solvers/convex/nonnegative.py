r"""Nonnegative fits of ones, in logarithms: the Hopf-Cole problem with its slopes fixed.

    minimise over c >= 0   (1/n) sum_i phi(u_i),   u = A c,   A_ij = exp(L_ij)
    maximise over s        -(1/n) sum_i phi*(1 - s_i)   subject to   E_{pi_j}[s] <= 1

squared    phi(u) = (u - 1)^2 / 2       phi*(v) = v^2/2 + v         s = 2 - u at the optimum
kullback   phi(u) = u - 1 - log u       phi*(v) = -log(1 - v)       s = 1 / u
pi_j       softmax over the *samples* of L_ij: the Gibbs state of one slope

Columns of A span hundreds of decades, so only log A and log c are kept; a column is divided by its
largest entry before it is exponentiated, and what then underflows is nothing.

`squared` is Lawson and Hanson's active set on the triangular factor of [A, 1]. `kullback` starts by
expectation-maximisation, which multiplies (so that it crosses decades), then takes damped Newton
steps, each a squared fit again: u - log u is self-concordant, hence 1/(1 + decrement) is safe.
"""

from typing import Literal

import numpy as np
import scipy.linalg
import scipy.optimize
from scipy.special import logsumexp

Loss = Literal["squared", "kullback"]
LOSSES = ("squared", "kullback")
EM_STEPS = 30


def values(loss: Loss, log_u: np.ndarray) -> tuple[float, np.ndarray]:
    """Objective, and the scores that the fit implies: `s`, or `log s` for `kullback`."""
    with np.errstate(over="ignore"):
        if loss == "squared":
            u = np.exp(log_u)
            return float(np.mean(0.5 * np.expm1(log_u) ** 2)), 2.0 - u
        return float(np.mean(np.expm1(log_u) - log_u)), -log_u


def dual_value(loss: Loss, scores: np.ndarray, price: float) -> float:
    """Value of the scores, made feasible where some slope's Gibbs average `price` exceeds one."""
    if loss == "squared":
        v = 1.0 - scores + (price - 1.0)
        return float(-np.mean(0.5 * v**2 + v))
    return float(np.mean(scores) - np.log(price))


def prices(loss: Loss, L: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """`E_{pi_j}[s]` of every column."""
    with np.errstate(over="ignore"):
        logp = L - logsumexp(L, axis=0)
        if loss == "squared":
            return scores @ np.exp(logp)
        return np.sum(np.exp(logp + scores[:, None]), axis=0)


def log_response(L: np.ndarray, log_c: np.ndarray) -> np.ndarray:
    """`log u`; columns without mass play no part."""
    live = np.isfinite(log_c)
    return np.asarray(logsumexp(L[:, live] + log_c[live], axis=1))


def fit(loss: Loss, L: np.ndarray, max_steps: int = 200) -> tuple[np.ndarray, int]:
    """Logarithm of the optimal masses (`-inf` for none), and the steps taken."""
    if loss == "squared":
        top = L.max(axis=0)
        c = _nnls(np.exp(L - top), np.ones(len(L)))
        with np.errstate(divide="ignore"):
            return np.log(c) - top, int(np.sum(c > 0))
    return _kullback(L, max_steps)


def _nnls(A: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Nonnegative least squares on the triangular factor: the rows of A are many."""
    if len(A) > A.shape[1] + 1:
        R = np.asarray(
            scipy.linalg.qr(np.column_stack([A, target]), mode="r", check_finite=False)[0]
        )
        R = R[: A.shape[1] + 1]
        A, target = R[:, :-1], R[:, -1]
    return scipy.optimize.nnls(A, target, maxiter=30 * A.shape[1])[0]


def _kullback(L: np.ndarray, max_steps: int) -> tuple[np.ndarray, int]:
    total = np.asarray(logsumexp(L, axis=0))
    log_c = -L.max(axis=0) - np.log(L.shape[1])
    for _ in range(EM_STEPS):
        log_c = log_c + logsumexp(L - log_response(L, log_c)[:, None], axis=0) - total
    for step in range(max_steps):
        log_u = log_response(L, log_c)
        # the model at u is the squared fit of rows divided by u to the targets 2 - u
        scaled = L - log_u[:, None]
        top = np.max(scaled, axis=0)
        with np.errstate(divide="ignore", over="ignore"):
            target = np.maximum(2.0 - np.exp(log_u), -1e6)
            found = np.asarray(np.log(_nnls(np.exp(scaled - top), target)) - top)
        ratio = np.exp(log_response(L, found) - log_u) if np.isfinite(found).any() else 0.0 * log_u
        decrement = float(np.sqrt(np.sum((ratio - 1.0) ** 2)))
        length = 1.0 if decrement < 0.25 else 1.0 / (1.0 + decrement)
        with np.errstate(divide="ignore"):
            log_c = np.logaddexp(log_c + np.log1p(-length), found + np.log(length))
        if decrement < 1e-9:
            return log_c, step + 1
    return log_c, max_steps

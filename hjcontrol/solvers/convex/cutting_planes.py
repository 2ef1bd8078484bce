r"""Cutting planes for convex regression: few of the n(n-1) constraints ever matter.

    round:  solve the quadratic program on the pairs at hand     -> a bound below, multipliers
            raise the values to their planes' maximum, and move  -> a feasible point, a bound above
            add the most violated pairs of every row and column

The first pairs are nearest neighbours, which bind most. Multipliers of a program with fewer constraints
are multipliers of the whole one, zero elsewhere. An interior point leaves `sum_i lam_ij (x_i - x_j)` at
its tolerance instead of zero; a least weighted correction of the multipliers mends that, so that the
bound below is one in exact arithmetic.
"""

import warnings
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from hjcontrol._ground.third_party import needs
from hjcontrol._ground.threads import one_blas_thread
from hjcontrol.solvers.convex.least_distance import least_distance

NEIGHBOURS = 12  # first pairs a sample
WORST = 3  # pairs added a row and a column


class Found(NamedTuple):
    """Feasible values and slopes, multipliers `(n, n)`, bounds on the optimum, and the work done."""

    values: np.ndarray
    slopes: np.ndarray
    multipliers: np.ndarray
    upper: float
    lower: float
    rounds: int
    constraints: int


def cutting_planes(
    x: Float[np.ndarray, "n d"], y: Float[np.ndarray, " n"], tol: float, max_steps: int
) -> Found:
    """Least squares over convex functions to a relative gap of `tol`."""
    n = len(x)
    # in units of the data, so that the interior point's tolerances are relative
    shift, scale = y.mean(), max(float(y.std()), np.finfo(float).tiny)
    centre, width = x.mean(axis=0), max(float(x.std()), np.finfo(float).tiny)
    u, v = (x - centre) / width, (y - shift) / scale
    pairs, best = _neighbours(u), (v, np.zeros_like(u))
    upper, lower = np.inf, 0.0
    multipliers, round_ = np.zeros((n, n)), 0
    for round_ in range(1, max_steps + 1):
        i, j = np.divmod(pairs, n)
        theta, xi, lam = _master(u, v, i, j)
        lam = _balanced(u, i, j, np.maximum(lam, 0.0))
        r = np.bincount(j, lam, n) - np.bincount(i, lam, n)
        bound = float(np.sum(r * v - 0.25 * r**2))
        if bound > lower or round_ == 1:
            lower, multipliers = bound, np.zeros((n, n))
            multipliers[i, j] = lam
        planes = u @ xi.T + (theta - np.sum(xi * u, axis=1))
        raised = planes.max(axis=1)
        raised = raised + np.mean(v - raised)
        value = float(np.sum((raised - v) ** 2))
        if value < upper:
            upper, best = value, (raised, xi[planes.argmax(axis=1)])  # the top plane's own slope
        if upper - lower <= tol * upper or upper <= 1e-20 * n:
            break
        more = _violated(planes - theta[:, None], n)
        if np.isin(more, pairs).all():  # the quadratic program has no more digits to give
            break
        pairs = np.union1d(pairs, more)
    if upper <= 1e-20 * n:  # an exact fit: the bound of no multipliers at all, 0, is the optimum
        lower, multipliers = 0.0, np.zeros((n, n))
    raised, xi = _gentle(u, v, *best, upper + 0.1 * tol * upper + 1e-14 * n)
    upper = float(np.sum((raised - v) ** 2))
    return Found(
        shift + scale * raised,
        scale / width * xi,
        scale * multipliers,
        scale**2 * upper,
        scale**2 * lower,
        round_,
        len(pairs),
    )


def _gentle(
    x: np.ndarray, y: np.ndarray, values: np.ndarray, slopes: np.ndarray, most: float
) -> tuple[np.ndarray, np.ndarray]:
    """Of all subgradients of the same values, those of least norm: an interior point's are arbitrary
    where the data leave them free, and then the function runs away beyond the samples.

    Values are raised to the new planes, and all is left as it was should that cost more than `most`.
    """
    slack = 1e-11 * np.ptp(values)
    found = slopes.copy()
    for j in range(len(x)):
        z = least_distance(x[j] - x, values[j] - values - slack)
        found[j] = slopes[j] if z is None else z
    planes = x @ found.T + (values - np.sum(found * x, axis=1))
    raised = planes.max(axis=1)
    found = found[planes.argmax(axis=1)]
    return (raised, found) if np.sum((raised - y) ** 2) <= most else (values, slopes)


def _neighbours(x: np.ndarray) -> Int[np.ndarray, " pairs"]:
    """Nearest pairs both ways, as `i n + j`."""
    n = len(x)
    count = min(NEIGHBOURS, n - 1)
    square = np.sum(x**2, axis=1)
    distance = square[:, None] + square[None, :] - 2 * x @ x.T
    np.fill_diagonal(distance, np.inf)
    near = np.argpartition(distance, count - 1, axis=1)[:, :count]
    here = np.repeat(np.arange(n), count)
    return np.unique(np.concatenate([near.ravel() * n + here, here * n + near.ravel()]))


def _violated(above: np.ndarray, n: int) -> Int[np.ndarray, " pairs"]:
    """The worst pairs of each row and column."""
    np.fill_diagonal(above, -np.inf)
    count = min(WORST, n - 1)
    rows = np.argpartition(-above, count - 1, axis=1)[:, :count]
    columns = np.argpartition(-above, count - 1, axis=0)[:count]
    index = np.arange(n)
    pairs = np.concatenate([(index[:, None] * n + rows).ravel(), (columns * n + index).ravel()])
    return np.unique(pairs[above.ravel()[pairs] > 1e-9])


def _master(
    x: np.ndarray, y: np.ndarray, i: np.ndarray, j: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values, slopes and multipliers of the program on the pairs `(i, j)`."""
    needs("A convex problem", "cvxpy")
    import cvxpy as cp
    import scipy.sparse

    n, d = x.shape
    row = np.arange(len(i))
    step = x[i] - x[j]
    columns = [j, i, (n + j[:, None] * d + np.arange(d)).ravel()]
    entries = [np.ones(len(i)), -np.ones(len(i)), step.ravel()]
    A = scipy.sparse.csc_matrix(
        (
            np.concatenate(entries),
            (np.concatenate([row, row, np.repeat(row, d)]), np.concatenate(columns)),
        ),
        shape=(len(i), n + n * d),
    )
    z = cp.Variable(n + n * d)
    below = A @ z <= 0
    program = cp.Problem(cp.Minimize(cp.sum_squares(z[:n] - y)), [below])
    tight = dict.fromkeys(("tol_gap_abs", "tol_gap_rel", "tol_feas"), 1e-10) | {"max_threads": 1}
    with warnings.catch_warnings(), one_blas_thread():
        # An inaccurate round is judged by its gap, not by its words
        warnings.simplefilter("ignore")
        program.solve(solver=cp.CLARABEL, **tight)
    if z.value is None:
        raise RuntimeError(
            f"ConvexRegression: the quadratic program of {len(i)} planes ended as {program.status!r}. "
            "Rescale the inputs, or use fewer samples."
        )
    return z.value[:n], z.value[n:].reshape(n, d), np.asarray(below.dual_value)


def _balanced(x: np.ndarray, i: np.ndarray, j: np.ndarray, lam: np.ndarray) -> np.ndarray:
    """The multipliers with `sum_i lam_ij (x_i - x_j) = 0`, corrected most where they are large."""
    n, d = x.shape
    step = x[i] - x[j]
    for _ in range(3):
        off = np.zeros((n, d))
        np.add.at(off, j, lam[:, None] * step)
        moment = np.zeros((n, d, d))
        np.add.at(moment, j, lam[:, None, None] ** 2 * step[:, :, None] * step[:, None, :])
        mu = np.linalg.pinv(moment, hermitian=True) @ off[:, :, None]
        new = lam - lam**2 * np.sum(mu[j, :, 0] * step, axis=1)
        lam = np.maximum(new, 0.0)
    return lam

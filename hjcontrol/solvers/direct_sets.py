r"""Control sets as constraints of a nonlinear program: bounds, linear rows, sums of squares.

    lower <= theta <= upper                         low <= A (theta, t) + Q theta^2 <= high

    bounds    their own                             L2Ball   sum v^2 <= r^2
    Simplex   v >= 0,  sum v = r                    L1Ball   v - t <= 0,  -v - t <= 0,  sum t <= r

v: one leaf of one stage's weights; t: auxiliary, one for each of an `L1Ball`'s weights; squares entry by
entry. At every point of these sets the active gradients are independent, so multipliers exist and are
unique: lambda of the rows, lambda_x of the bounds. The element of the normal cone that they make,

    lambda_x + (A + 2 Q diag(theta))' lambda,

is -dJ/dtheta at a stationary point. A `GroupBall` has no such rows: where a row of weights vanishes,
|v_i|^2 <= t_i^2 has the gradient zero.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp

from hjcontrol._ground.shapes import of_drawn
from hjcontrol.control import AbstractControlSet, ControlProblem, L1Ball, L2Ball, Simplex


@dataclasses.dataclass(frozen=True)
class SetRows:
    """All of a problem's: `lower`, `upper` of the weights, one after the other; `A` and `Q`, a column for
    each weight and then for each `t`, a row for each constraint; their `low` and `high`; `heights`: how
    many rows each name has; `of`: the weight that each `t` bounds."""

    lower: np.ndarray
    upper: np.ndarray
    A: sp.csc_matrix
    Q: sp.csc_matrix
    low: np.ndarray
    high: np.ndarray
    heights: dict[str, int]
    of: np.ndarray

    def normal(self, theta: np.ndarray, lam_x: np.ndarray, lam: np.ndarray) -> np.ndarray:
        """The element of the normal cone at `theta` that these multipliers make."""
        m = theta.size
        return lam_x + self.A[:, :m].T @ lam + 2 * theta * (self.Q[:, :m].T @ lam)


class _Rows(NamedTuple):
    """One leaf's: `A` over its weights and over its own `t`, `Q` over its weights."""

    A: Any
    T: Any
    Q: Any
    low: np.ndarray
    high: np.ndarray


def set_rows(problem: ControlProblem) -> SetRows:
    """The control set of a problem, constraint by constraint.

    **Raises:** `ValueError` for a set that has no such constraints.
    """
    lower, upper, parts, heights, of, start = [], [], [], {}, [], 0
    for name, shape, the_set in _leaves(problem):
        m = int(np.prod(shape))
        low, high = _bounds(the_set, shape)
        lower.append(low)
        upper.append(high)
        rows = None if the_set.elementwise else _described(the_set, m)
        if rows is not None and m:
            parts.append((rows, start))
            heights[f"{type(the_set).__name__} of {name}"] = rows.low.size
            of.append(start + np.arange(rows.T.shape[1]))
        start += m
    A, Q = _stacked(parts, start)
    joined = lambda arrays: np.concatenate([np.zeros(0), *arrays])
    low, high = (joined([getattr(rows, end) for rows, _ in parts]) for end in ("low", "high"))
    return SetRows(joined(lower), joined(upper), A, Q, low, high, heights, joined(of).astype(int))


def _leaves(problem: ControlProblem) -> Iterator[tuple[str, tuple[int, ...], AbstractControlSet]]:
    """Name, shape and set of every leaf, in the order of the program's variables."""
    weights, k = of_drawn(problem.init), 0
    for r, (run, theta) in enumerate(zip(problem.chain.runs, weights, strict=True)):
        leaves = jax.tree_util.tree_leaves_with_path(theta)
        for j in range(run.sets):
            for path, leaf in leaves:
                name = f"theta[{k + j}]{jax.tree_util.keystr(path)}"
                yield name, leaf.shape[1:], problem.control_set.at(path, r)
        k += run.length


def _bounds(the_set: AbstractControlSet, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    if the_set.elementwise:
        low, high = (np.asarray(b, float).ravel() for b in the_set.interval(jnp.zeros(shape)))
        return low, high
    m = int(np.prod(shape))
    low = 0.0 if isinstance(the_set, Simplex) else -np.inf
    return np.full(m, low), np.full(m, np.inf)


def _described(the_set: AbstractControlSet, m: int) -> _Rows:
    eye, one, none = sp.identity(m), np.ones((1, m)), np.full(1, -np.inf)
    if isinstance(the_set, L2Ball):
        r = np.full(1, float(the_set.radius))
        return _Rows(0 * one, np.zeros((1, 0)), one, none, r**2)
    if isinstance(the_set, Simplex):
        r = np.full(1, float(the_set.radius))
        return _Rows(one, np.zeros((1, 0)), 0 * one, r, r)
    if isinstance(the_set, L1Ball):
        A, T = sp.vstack([eye, -eye, 0 * one]), sp.vstack([-eye, -eye, one])
        high = np.append(np.zeros(2 * m), float(the_set.radius))
        return _Rows(A, T, 0 * A, np.full(2 * m + 1, -np.inf), high)
    raise ValueError(
        f"Direct: no constraints are known that describe a {type(the_set).__name__}. Use 'adam', whose "
        "steps are projected."
    )


def _stacked(parts: list[tuple[_Rows, int]], weights: int) -> tuple[sp.csc_matrix, sp.csc_matrix]:
    """The leaves' rows below each other, each in the columns of its own weights and `t`."""
    width = weights + sum(rows.T.shape[1] for rows, _ in parts)
    found, own = {"A": [], "Q": []}, weights
    for rows, start in parts:
        height, m = rows.A.shape
        for key, over_t in (("A", rows.T), ("Q", 0 * rows.T)):
            blocks = [
                sp.csc_matrix((height, start)),
                sp.csc_matrix(getattr(rows, key)),
                sp.csc_matrix((height, own - start - m)),
                sp.csc_matrix(over_t),
                sp.csc_matrix((height, width - own - over_t.shape[1])),
            ]
            found[key].append(sp.hstack(blocks))
        own += rows.T.shape[1]
    A, Q = (
        sp.csc_matrix(sp.vstack([*found[key], sp.csc_matrix((0, width))])) for key in ("A", "Q")
    )
    A.eliminate_zeros()
    Q.eliminate_zeros()
    return A, Q

r"""Small linear algebra on arrays of CasADi scalars, entry by entry.

    lu                    P A = L U, rows exchanged by size: the pivot is a choice among symbols
    cholesky              A = L L'
    triangular_solve      by substitution
    custom_linear_solve   the matrix of its `matvec`, applied to unit vectors, by CasADi's own `solve`

Derivatives are those of the expressions; JAX's rules for the same primitives say the same. A batch is a
loop. Eigenvalues are replayed for 2 x 2 alone, where they have a closed form; a program that reads the
eigenvectors, whose sign nothing fixes, is refused.
"""

from collections.abc import Callable
from typing import Any

import casadi as ca
import numpy as np
from jax.extend.core import JaxprEqn

from hjcontrol._ground.jaxprs import replay
from hjcontrol.solvers.casadi_scalars import box, is_symbolic, lifted

EIGENVECTOR = "an eigenvector"  # the name of a symbol that no program may end with


def _batched(function: Callable[..., Any], *arrays: np.ndarray) -> list[np.ndarray]:
    """`function` of matrices, for every entry of the leading axes; its results stacked likewise."""
    lead = arrays[0].shape[:-2]
    found = [function(*(a[b] for a in arrays)) for b in np.ndindex(lead)]
    outs = []
    for parts in zip(*found, strict=True):
        out = np.empty((len(parts), *parts[0].shape), object)
        for i, part in enumerate(parts):
            out[i] = part
        outs.append(out.reshape(*lead, *parts[0].shape))
    return outs


def _lu_of(A: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    A, (m, n) = A.copy(), A.shape
    pivots, order = [], lifted(np.arange(m)).copy()
    for k in range(min(m, n)):
        at, best = ca.SX(k), ca.fabs(A[k, k])
        for i in range(k + 1, m):
            larger = ca.fabs(A[i, k]) > best
            at, best = ca.if_else(larger, i, at), ca.if_else(larger, ca.fabs(A[i, k]), best)
        pivots.append(at)
        for rows in (A, order.reshape(m, 1)):  # exchanged in place: `order` is seen through a view
            first = rows[k].copy()
            for i in range(k + 1, m):
                here = at == i
                for j in range(rows.shape[1]):
                    own = rows[i, j]
                    rows[k, j] = ca.if_else(here, own, rows[k, j])
                    rows[i, j] = ca.if_else(here, first[j], own)
        for i in range(k + 1, m):
            A[i, k] = A[i, k] / A[k, k]
            for j in range(k + 1, n):
                A[i, j] = A[i, j] - A[i, k] * A[k, j]
    return A, box(pivots, (len(pivots),)), order


def _permutation(eqn: JaxprEqn, pivots: Any) -> np.ndarray:
    """`lu_pivots_to_permutation`: the exchanges one after the other."""

    def one(pivots: np.ndarray) -> np.ndarray:
        order = lifted(np.arange(eqn.params["permutation_size"])).copy()
        for k, at in enumerate(pivots):
            first = order[k]
            for i in range(k + 1, len(order)):
                own, here = order[i], at == i
                order[k], order[i] = ca.if_else(here, own, order[k]), ca.if_else(here, first, own)
        return order

    rows = pivots.reshape(-1, pivots.shape[-1])
    return np.stack([one(row) for row in rows]).reshape(eqn.outvars[0].aval.shape)


def _cholesky_of(A: np.ndarray) -> tuple[np.ndarray]:
    n = len(A)
    L = lifted(np.zeros((n, n))).copy()
    for j in range(n):
        left = A[j, j] - sum((L[j, k] ** 2 for k in range(j)), ca.SX(0))
        L[j, j] = ca.sqrt(left)
        for i in range(j + 1, n):
            left = A[i, j] - sum((L[i, k] * L[j, k] for k in range(j)), ca.SX(0))
            L[i, j] = left / L[j, j]
    return (L,)


def _triangular_solve(eqn: JaxprEqn, A: Any, B: Any) -> Any:
    p = eqn.params

    def solve(A: np.ndarray, B: np.ndarray) -> tuple[np.ndarray]:
        lower = p["lower"] != p["transpose_a"]
        A = A.T if p["transpose_a"] else A
        if not p["left_side"]:
            A, B, lower = A.T, B.T, not lower
        X = B.copy()
        order = range(len(A)) if lower else range(len(A))[::-1]
        done: list[int] = []
        for i in order:
            for c in range(X.shape[1]):
                left = X[i, c] - sum((A[i, k] * X[k, c] for k in done), ca.SX(0))
                X[i, c] = left if p["unit_diagonal"] else left / A[i, i]
            done.append(i)
        return (X if p["left_side"] else X.T,)

    return _batched(solve, lifted(A), lifted(B))[0]


def linear_solve(eqn: JaxprEqn, args: list[Any], rule: Callable) -> list[Any]:
    """`custom_linear_solve`: what its `matvec` maps to the right-hand side."""
    lengths, programs = eqn.params["const_lengths"], eqn.params["jaxprs"]
    own, right = args[: lengths.matvec], args[sum(lengths) :]
    sizes = [v.aval.size for v in eqn.outvars]
    ends = np.cumsum([0, *sizes])
    columns = []
    for k in range(int(ends[-1])):
        unit = np.eye(int(ends[-1]))[k]
        parts = [
            unit[a:b].reshape(v.aval.shape)
            for a, b, v in zip(ends[:-1], ends[1:], eqn.outvars, strict=True)
        ]
        found = replay(programs.matvec, [*own, *parts], rule)
        columns.append(ca.vertcat(*[e for f in found for e in lifted(f).ravel()]))
    matrix = ca.densify(ca.horzcat(*columns))
    b = ca.densify(ca.vertcat(*[e for r in right for e in lifted(r).ravel()]))
    x = box(ca.vertsplit(ca.densify(ca.solve(matrix, b))), (int(ends[-1]),))
    return [
        x[a:b].reshape(v.aval.shape)
        for a, b, v in zip(ends[:-1], ends[1:], eqn.outvars, strict=True)
    ]


def _eigh(eqn: JaxprEqn, A: Any) -> Any:
    if A.shape[-1] != 2 or A.ndim != 2 or not is_symbolic(A):
        return NotImplemented
    a, b, c = A[0, 0], A[1, 0], A[1, 1]
    mean, half = 0.5 * (a + c), 0.5 * (a - c)
    apart = ca.sqrt(half**2 + b**2)
    vectors = box([ca.SX.sym(EIGENVECTOR) for _ in range(4)], (2, 2))
    return [vectors, box([mean - apart, mean + apart], (2,))]


LINEAR: dict[str, Callable[..., Any]] = {
    "cholesky": lambda eqn, A: _batched(_cholesky_of, A)[0],
    "eigh": _eigh,
    "lu": lambda eqn, A: _batched(_lu_of, A),
    "lu_pivots_to_permutation": _permutation,
    "triangular_solve": _triangular_solve,
}

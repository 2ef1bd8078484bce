r"""Collocation of one piece of a flow, x' = f(x, theta), on Legendre or Radau points.

    z_j = x_e + h sum_l A_jl f(z_l)          j = 1..s, in every element e of length h
    x_{e+1} = x_e + h sum_l b_l f(z_l)       A, b: integrals of the Lagrange polynomials of the points

Written in integrals, with the next state subtracted, the multiplier of an element's last equation is the
costate at its end: no sign to flip, no weight to divide by. Order 2s (Legendre), 2s - 1 (Radau).

W. W. Hager, Runge-Kutta methods in optimal control and the transformed adjoint system (2000).
"""

from typing import Any

import casadi as ca
import numpy as np

from hjcontrol.solvers.transcribable import SCHEMES

__all__ = ["SCHEMES", "between", "coefficients", "gaps", "of_piece", "size", "times"]


def coefficients(scheme: str, degree: int) -> tuple[np.ndarray, np.ndarray]:
    """`A` (s, s) and `b` (s,) of the scheme's `degree` points on [0, 1]."""
    tau = np.array(ca.collocation_points(degree, scheme))
    powers = np.arange(1, degree + 1)
    vandermonde = tau[:, None] ** (powers - 1)
    solve = lambda rows: np.linalg.solve(vandermonde.T, np.atleast_2d(rows).T).T
    return solve(tau[:, None] ** powers / powers), solve(1.0 / powers)[0]


def of_piece(scheme: tuple[str, int, Any], k: int) -> tuple[str, int, int]:
    """The scheme of piece k, where every piece may have its own number of elements."""
    name, degree, elements = scheme
    return name, degree, elements if isinstance(elements, int) else elements[k]


def times(scheme: tuple[str, int, int]) -> np.ndarray:
    """The interior points of a piece, and its elements' seams, on [0, 1]."""
    name, degree, elements = scheme
    tau = np.array([*ca.collocation_points(degree, name), 1.0])
    return np.concatenate([(e + tau) / elements for e in range(elements)])[:-1]


def size(d: int, n: int, degree: int, elements: int) -> int:
    """Entries of the interior states of one piece: the points of each element, the elements' seams."""
    return d * n * (elements * degree + elements - 1)


def gaps(
    step: ca.Function,
    ends: tuple[ca.DM | ca.MX, ca.MX],
    interior: ca.MX,
    theta: ca.MX,
    span: float,
    scheme: tuple[str, int, int],
) -> tuple[ca.MX, ca.MX]:
    """What the equations of one piece miss by: all but the last element's end, and that one.

    `ends`: states at the start and the end of the piece, `(d, n)`; `interior`: `size` entries, element
    after element; `step(x, theta, u)[0]`: the velocity of one sample; `scheme`: name, degree, elements.
    """
    name, degree, elements = scheme
    A, b = coefficients(name, degree)
    (x, last), h = ends, span / elements
    d, n = last.shape
    columns = ca.reshape(interior, d, interior.numel() // d)
    missed, end = [], ca.MX(0, 1)
    for e in range(elements):
        first = e * (degree + 1) * n
        points = columns[:, first : first + degree * n]
        velocity, _ = step.map(degree * n)(
            points, ca.repmat(theta, 1, degree * n), ca.DM(0, degree * n)
        )
        v = ca.horzsplit(velocity, n)
        z = ca.horzsplit(points, n)
        summed = lambda row, v=v: sum((h * float(a) * w for a, w in zip(row, v, strict=True)), x)
        missed += [ca.vec(summed(row) - point) for row, point in zip(A, z, strict=True)]
        seam = (
            last if e == elements - 1 else columns[:, first + degree * n : first + (degree + 1) * n]
        )
        end = ca.vec(summed(b) - seam)
        if e < elements - 1:
            missed.append(end)
        x = seam
    return ca.vertcat(*missed), end


def between(x: np.ndarray, after: np.ndarray, scheme: tuple[str, int, int]) -> np.ndarray:
    """Interior states on the straight line from `x` to `after`, `(d, n)` each: where a solve starts."""
    return np.concatenate([(x + t * (after - x)).T.ravel() for t in times(scheme)])

r"""What a cvxpy problem calls large: the units in which its certificate is judged.

    row i          |g_i(0)| + |J_i| |x|                     of a constraint's value
    force          sum of |grad| over the terms of L, and of f at 0 and at 2 x, the largest of a variable
    multiplier i   force / |J_i|
    objective      the largest of |f(x) - f(0)|, |y_i g_i(0)|, force . |x|

Each is homogeneous: f, x or a constraint stated in other units changes it as it changes the residual.
"""

from typing import Any, NamedTuple

import numpy as np


class ForeignUnits(NamedTuple):
    """By constraint (`rows`, `multipliers`) and by variable (`points`, `forces`), and of the gap."""

    rows: dict[str, float]
    multipliers: dict[str, float]
    points: dict[str, float]
    forces: dict[str, float]
    objective: float


def blocks(c: Any) -> list:
    """The expressions that a constraint's multipliers pair with."""
    kind = type(c).__name__
    if kind in ("Equality", "Inequality"):
        return [c.args[0] - c.args[1]]
    return list(c.args)


def sign(c: Any) -> float:
    """The sign with which `y . block` enters the Lagrangian."""
    return 1.0 if type(c).__name__ in ("Equality", "Zero", "Inequality", "NonPos") else -1.0


def measure_units(problem: Any, duals: list) -> ForeignUnits:
    """At the values that the variables hold."""
    cost, variables = problem.objective.args[0], problem.variables()
    here = {v: np.asarray(v.value, float) for v in variables}
    points = {v.name(): float(np.max(np.abs(x), initial=0.0)) for v, x in here.items()}
    common = max(points.values(), default=0.0) or _natural_point(cost, here)
    points = {k: size or common for k, size in points.items()}
    forces = {v.name(): _largest(_slope(cost, v, np.ones(()))) for v in variables}
    rows, slopes, pulls = {}, {}, []
    for i, (c, y) in enumerate(zip(problem.constraints, duals, strict=True)):
        name = f"constraint {i}"
        rows[name], slopes[name] = 0.0, {v.name(): 0.0 for v in variables}
        for block, part in zip(blocks(c), y, strict=True):
            reach = np.zeros(block.size)
            for v in variables:
                jacobian = np.abs(_jacobian(block, v))
                reach = reach + jacobian.T @ np.abs(np.ravel(here[v], order="F"))
                slopes[name][v.name()] = max(slopes[name][v.name()], _largest(jacobian))
                pull = _largest(jacobian @ np.abs(np.ravel(part, order="F")))
                forces[v.name()] = max(forces[v.name()], pull)
            rows[name] = max(rows[name], _largest(reach))
    there = float(np.asarray(cost.value).item())
    for factor in (0.0, 2.0):
        for v, x in here.items():
            v.save_value(factor * x)
        for v in variables:
            forces[v.name()] = max(forces[v.name()], _largest(_slope(cost, v, np.ones(()))))
        if factor == 0.0:
            pulls.append(_largest(np.asarray(_value(cost) - there)))
            for i, (c, y) in enumerate(zip(problem.constraints, duals, strict=True)):
                at_zero = [_value(b) for b in blocks(c)]
                rows[f"constraint {i}"] = max(rows[f"constraint {i}"], *map(_largest, at_zero))
                pairs = zip(at_zero, y, strict=True)
                pulls += [_largest(a * np.reshape(b, np.shape(a))) for a, b in pairs]
    for v, x in here.items():
        v.save_value(x)
    pulls += [forces[k] * size for k, size in points.items()]
    multipliers = {
        name: max((forces[k] / s for k, s in by.items() if s > 0), default=0.0)
        for name, by in slopes.items()
    }
    return ForeignUnits(rows, multipliers, points, forces, max(pulls, default=0.0))


def _natural_point(cost: Any, here: dict) -> float:
    """Where all variables are 0: how far f goes until its gradient has changed by itself; 1 if it never
    does."""
    slopes = []
    for x in (0.0, 1.0):
        for v in here:
            v.save_value(np.full(v.shape, x))
        slopes.append([_slope(cost, v, np.ones(())) for v in here])
    for v, x in here.items():
        v.save_value(x)
    bend = max((_largest(b - a) for a, b in zip(*slopes, strict=True)), default=0.0)
    size = max((_largest(a) for a in slopes[0]), default=0.0)
    return size / bend if size > 0 and bend > 0 else 1.0


def _value(expression: Any) -> np.ndarray:
    with np.errstate(all="ignore"):
        value = expression.value
    return np.asarray(np.nan if value is None else value, float)


def _jacobian(expression: Any, v: Any) -> np.ndarray:
    """`(entries of v, entries of the expression)`, 0 where there is none."""
    with np.errstate(all="ignore"):
        g = expression.grad.get(v, 0.0)
    if g is None or np.isscalar(g):
        return np.full((v.size, expression.size), 0.0 if g is None else float(g))
    return np.asarray(g.todense() if hasattr(g, "todense") else g, float)


def _slope(expression: Any, v: Any, y: Any) -> np.ndarray:
    return _jacobian(expression, v) @ np.ravel(y, order="F")


def _largest(x: Any) -> float:
    finite = np.abs(np.asarray(x, float))
    return float(np.max(finite, where=np.isfinite(finite), initial=0.0))

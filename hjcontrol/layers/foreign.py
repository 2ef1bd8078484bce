r"""The certificate of a cvxpy problem, from the user's own values and multipliers.

    minimise f(x)   s.t.   g_i(x) <= 0 : y_i,   h_i(x) = 0 : y_i,   k_i(x) in K : y_i in K*
    L(x, y) = f + y.g + y.h - y.k           dual objective L(x, y) - 2 |r|_1 |x|_inf,  r = dL/dx

Wolfe's bound, less what stationarity leaves open: no feasible point within 2 |x|_inf of x lies below
(within 1, where x = 0).

Residuals are judged in units of the problem's own numbers: a constraint by its constant and its terms, a
gradient by its terms and by that of f at 0 and at 2 x. So f times 1e-14 is judged as f is.

Everything is computed from the problem's expressions; no solver's status is believed. Signs are those
of cvxpy: multipliers of a maximisation are those of the minimisation of its negative.

Stationarity is the gradient of L. Where L has a kink, that gradient is one of many and need not vanish:
then the step is reported that the proximal map of L takes from x, zero exactly when 0 is a subgradient.
Bounds stated as attributes of a variable (`nonneg=True`) have no multiplier: the gradient stands for it.
"""

import warnings
from typing import Any

import jax.numpy as jnp
import numpy as np

from hjcontrol._ground.third_party import needs
from hjcontrol.layers.foreign_units import ForeignUnits, blocks, measure_units, sign
from hjcontrol.layers.program import Residuals, Scales

SIGNED = ("nonneg", "nonpos", "pos", "neg")
SMOOTH = 1e-10  # gradients below this, in their unit, need no second look


def cvxpy_residuals(problem: Any, candidate: Any = None, dual: Any = None) -> Residuals:
    """Residuals of `candidate` and `dual`; see [`certify`][hjcontrol.layers.certify].

    **Raises:** `ValueError` for a problem that is not convex by cvxpy's rules, a constraint or variable
    of a kind not listed, a value that is missing or of the wrong shape.
    """
    _refuse(problem)
    before = {v: v.value for v in problem.variables()}
    try:
        _assign(problem, candidate)
        return _measure(problem, _multipliers(problem, dual))
    finally:
        for v, value in before.items():
            v.save_value(value)


def _refuse(problem: Any) -> None:
    if not problem.is_dcp():
        raise ValueError(
            "certify: the problem is not convex by cvxpy's rules (`problem.is_dcp()` is False)."
        )
    for p in problem.parameters():
        if p.value is None:
            raise ValueError(
                f"certify: parameter {p.name()} has no value; found None. Set `{p.name()}.value`."
            )
    known = {"Equality", "Zero", "Inequality", "NonPos", "NonNeg", "SOC", "ExpCone", "PSD"}
    for i, c in enumerate(problem.constraints):
        if type(c).__name__ not in known:
            raise ValueError(
                f"certify: constraint {i} is a {type(c).__name__}; understood are "
                f"{', '.join(sorted(known))}."
            )
    for v in problem.variables():
        bad = [k for k, on in v.attributes.items() if _on(on) and k not in (*SIGNED, "symmetric")]
        if bad:
            raise ValueError(
                f"certify: variable {v.name()} has the attribute {bad[0]!r}, which hides a constraint "
                "without multiplier. State it as a constraint."
            )


def _on(attribute: Any) -> bool:
    return attribute is not None and attribute is not False and np.size(attribute) > 0


def _assign(problem: Any, candidate: Any) -> None:
    variables = problem.variables()
    if candidate is not None and not isinstance(candidate, dict):
        if len(variables) != 1:
            names = ", ".join(v.name() for v in variables)
            raise ValueError(
                f"certify: the problem has variables {names}; pass a dict from each to its value."
            )
        candidate = {variables[0]: candidate}
    for v in variables:
        value = v.value if candidate is None else candidate.get(v, candidate.get(v.name()))
        if value is None:
            raise ValueError(
                f"certify: no value for variable {v.name()}. Solve the problem, or pass `candidate`."
            )
        value = np.asarray(value, float)
        if value.shape != v.shape:
            raise ValueError(
                f"certify: variable {v.name()} has shape {v.shape}; found {value.shape}."
            )
        v.save_value(value)


def _multipliers(problem: Any, dual: Any) -> list:
    given = [c.dual_value for c in problem.constraints] if dual is None else list(dual)
    if len(given) != len(problem.constraints):
        raise ValueError(
            f"certify: one multiplier a constraint is needed, {len(problem.constraints)}; found "
            f"{len(given)}."
        )
    found = []
    for i, (c, y) in enumerate(zip(problem.constraints, given, strict=True)):
        if y is None or (isinstance(y, list) and any(part is None for part in y)):
            raise ValueError(
                f"certify: constraint {i} has no multiplier. Solve the problem, or pass `dual`."
            )
        parts = y if isinstance(y, (list, tuple)) else [y]
        paired = blocks(c)
        if len(parts) != len(paired):
            raise ValueError(
                f"certify: constraint {i} takes {len(paired)} multipliers; found {len(parts)}."
            )
        for part, block in zip(parts, paired, strict=True):
            if np.size(part) != block.size:
                raise ValueError(
                    f"certify: the multiplier of constraint {i} must have shape {block.shape}; found "
                    f"{np.shape(part)}."
                )
        rows = zip(parts, paired, strict=True)
        found.append([np.asarray(part, float).reshape(b.shape) for part, b in rows])
    return found


def _measure(problem: Any, duals: list) -> Residuals:
    cost = problem.objective.args[0]
    sense = 1.0 if type(problem.objective).__name__ == "Minimize" else -1.0
    value = float(np.asarray(sense * cost.value).item())
    value = np.inf if np.isnan(value) else value
    units = measure_units(problem, duals)
    primal, off, slack, gap = {}, {}, {}, 0.0
    for i, (c, y) in enumerate(zip(problem.constraints, duals, strict=True)):
        name = f"constraint {i}"
        values = [np.asarray(b.value, float) for b in blocks(c)]
        primal[name], off[name], slack[name] = _cone(type(c).__name__, values, y)
        gap -= sign(c) * sum(float(np.sum(a * b)) for a, b in zip(values, y, strict=True))
    stationarity, signs = _stationarity(problem, sense, duals, units)
    reach = 2.0 * max(units.points.values(), default=1.0)
    gap += reach * sum(float(np.sum(a)) for a in stationarity.values())
    gap = gap if np.isfinite(gap) else np.inf
    gap = np.nan if any(np.isnan(v.value).any() for v in problem.variables()) else gap
    as_arrays = lambda tree: {k: jnp.asarray(v, float) for k, v in tree.items()}
    rows = {k: jnp.asarray(units.rows[k]) for k in off}
    multipliers = {k: jnp.asarray(units.multipliers[k]) for k in off}
    scales = Scales(
        primal=rows | {k: jnp.asarray(units.points[k]) for k in signs},
        dual=multipliers,
        complementarity={k: rows[k] * multipliers[k] for k in off},
        stationarity={k: jnp.asarray(units.forces[k]) for k in stationarity},
        excess=jnp.asarray(units.objective),
        undecidable=jnp.asarray(False),
    )
    return Residuals(
        primal=as_arrays(primal | signs),
        dual=as_arrays(off),
        complementarity=as_arrays(slack),
        stationarity=as_arrays(stationarity),
        objective=jnp.asarray(value),
        dual_objective=jnp.asarray(value - gap if np.isfinite(value) else -np.inf),
        excess=jnp.asarray(gap),
        scales=scales,
    )


def _cone(kind: str, s: list, y: list) -> tuple[Any, Any, Any]:
    """Violation of the constraint, of the multiplier's cone, and of `y.s = 0`."""
    if kind in ("Equality", "Zero"):
        return np.abs(s[0]), np.zeros(np.shape(y[0])), np.zeros(np.shape(s[0]))
    if kind in ("Inequality", "NonPos", "NonNeg"):
        out = s[0] if kind != "NonNeg" else -s[0]
        return np.maximum(out, 0.0), np.maximum(-y[0], 0.0), np.abs(s[0] * y[0])
    if kind == "PSD":
        least = lambda a: np.maximum(-np.linalg.eigvalsh(0.5 * (a + a.T))[0], 0.0)
        return least(s[0]), least(y[0]), np.abs(np.sum(s[0] * y[0]))
    if kind == "SOC":
        over = lambda a: np.maximum(np.linalg.norm(_columns(*a), axis=0) - np.ravel(a[0]), 0.0)
        return over(s), over(y), np.abs(np.ravel(s[0]) * np.ravel(y[0]) + _inner(s, y))
    over = np.maximum(s[1] * np.exp(s[0] / np.where(s[1] > 0, s[1], 1.0)) - s[2], 0.0)
    primal = np.where(s[1] > 0, over, np.maximum(np.maximum(s[0], -s[1]), -s[2]))
    u, v, w = y
    safe = np.where(u < 0, u, -1.0)
    exceeds = np.maximum(-u * np.exp(v / safe - 1.0) - w, 0.0)  # the dual exponential cone
    dual = np.where(u < 0, exceeds, np.maximum(np.maximum(u, -v), -w))
    return primal, dual, np.abs(sum(a * b for a, b in zip(s, y, strict=True)))


def _columns(t: np.ndarray, x: np.ndarray) -> np.ndarray:
    return np.reshape(x, (-1, np.size(t)), order="F") if np.ndim(x) > 1 else np.reshape(x, (-1, 1))


def _inner(s: list, y: list) -> np.ndarray:
    return np.sum(_columns(*s) * _columns(*y), axis=0)


def _stationarity(
    problem: Any, sense: float, duals: list, units: ForeignUnits
) -> tuple[dict, dict]:
    """Gradient of the Lagrangian, or proximal step where that is smaller; sign violations."""
    terms = [(sense * problem.objective.args[0], np.ones(()))]
    for c, y in zip(problem.constraints, duals, strict=True):
        terms += [(b, sign(c) * part) for b, part in zip(blocks(c), y, strict=True)]
    slopes, signs = {}, {}
    for v in problem.variables():
        total = np.zeros(v.size)
        for expression, y in terms:
            g = expression.grad.get(v, 0.0)
            flat = np.ravel(y, order="F")
            total = total + (np.nan if g is None else (0.0 if np.isscalar(g) else g @ flat))
        slope = np.reshape(total, v.shape, order="F")
        slope = 0.5 * (slope + slope.T) if v.attributes.get("symmetric") else slope
        slopes[v.name()] = np.abs(_natural(v, slope))
        violation = v.value - _kept(v, v.value)
        if np.any([_on(v.attributes.get(k)) for k in SIGNED]):
            signs[v.name()] = np.abs(violation)
    over = lambda found: max(
        (_ratio(float(np.max(a)), units.forces[k]) for k, a in found.items() if a.size), default=0.0
    )
    largest = over(slopes)
    if largest > SMOOTH or np.isnan(largest):
        steps = _proximal(problem, sense, duals, units)
        if steps and not over(steps) > largest:
            return steps, signs
    return {k: np.where(np.isnan(a), np.inf, a) for k, a in slopes.items()}, signs


def _kept(v: Any, value: np.ndarray) -> np.ndarray:
    """The projection of a value on the sign that the variable was declared with."""
    if _on(v.attributes.get("nonneg")) or _on(v.attributes.get("pos")):
        return np.maximum(value, 0.0)
    if _on(v.attributes.get("nonpos")) or _on(v.attributes.get("neg")):
        return np.minimum(value, 0.0)
    return value


def _natural(v: Any, slope: np.ndarray) -> np.ndarray:
    """The natural residual: the slope itself where the variable is free of signs."""
    if any(_on(v.attributes.get(k)) for k in SIGNED):
        return v.value - _kept(v, v.value - slope)
    return slope


def _proximal(problem: Any, sense: float, duals: list, units: ForeignUnits) -> dict:
    """`w |x - argmin L(x', y) + w |x' - x|^2/2|`, a force, by a solver; `w` a force over a point, by
    variable. Empty if L is not convex at these `y`."""
    needs("certify", "cvxpy")
    import cvxpy as cp

    lagrangian = sense * problem.objective.args[0]
    for c, y in zip(problem.constraints, duals, strict=True):
        for block, part in zip(blocks(c), y, strict=True):
            signed = np.maximum(part, 0.0) if type(c).__name__ in ("Inequality", "NonPos") else part
            lagrangian = lagrangian + sign(c) * cp.sum(cp.multiply(signed, block))
    here = {v: np.asarray(v.value) for v in problem.variables()}
    stiff = {v: (units.forces[v.name()] or 1.0) / (units.points[v.name()] or 1.0) for v in here}
    near = sum(stiff[v] * cp.sum_squares(v - x) for v, x in here.items())
    step = cp.Problem(cp.Minimize((lagrangian + 0.5 * near) / (units.objective or 1.0)))
    if not step.is_dcp():
        return {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of accuracy: what comes is measured, not believed
            step.solve(solver="CLARABEL", tol_gap_abs=1e-14, tol_gap_rel=1e-14, tol_feas=1e-14)
    except cp.error.SolverError:
        return {}
    if any(v.value is None for v in here):
        return {}
    found = {v.name(): stiff[v] * np.abs(np.asarray(v.value) - x) for v, x in here.items()}
    for v, x in here.items():
        v.save_value(x)
    return found


def _ratio(x: float, unit: float) -> float:
    return 0.0 if x == 0 else x / unit if unit else np.inf

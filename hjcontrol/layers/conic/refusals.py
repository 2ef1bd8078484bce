"""What a program layer refuses, in words: problems that are not DPP, parameters that do not fit."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from hjcontrol._ground.annotations import shown
from hjcontrol._ground.concrete import known
from hjcontrol.deformation.soft_maximum import floating

_SIGNS = {
    "nonneg": (">= 0", lambda v: v >= 0),
    "pos": ("> 0", lambda v: v > 0),
    "nonpos": ("<= 0", lambda v: v <= 0),
    "neg": ("< 0", lambda v: v < 0),
}


def check_dpp(problem: Any) -> None:
    """Refuse a problem that is not DPP, pointing at the smallest sub-expression that is not.

    **Raises:** `ValueError` with that sub-expression and what to write instead.
    """
    if problem.is_dpp():  # which is more than DCP
        return
    dpp = problem.is_dcp()
    guilty = _guilty(problem, dpp)
    if not dpp:
        raise ValueError(
            "ProgramLayer: the problem is not convex by cvxpy's rules (not DCP); the sub-expression at "
            f"fault is `{guilty}`. Minimise what is convex, maximise what is concave, and bound convex "
            "expressions from above."
        )
    raise ValueError(
        f"ProgramLayer: the problem is not DPP; the sub-expression at fault is `{guilty}`. A parameter "
        f"may enter only affinely, and never multiply another parameter: {_rewrite(guilty)}."
    )


def _guilty(problem: Any, dpp: bool) -> Any:
    """The smallest sub-expression that breaks the rules; or the constraint or objective, whose parts
    keep them each."""
    whole = [problem.objective, *problem.constraints]
    for part in whole:
        for e in part.args:
            found = _smallest(e, dpp)
            if found is not None:
                return found
    return next((part for part in whole if not part.is_dcp(dpp=dpp)), problem.objective)


def _rewrite(guilty: Any) -> str:
    """What to write instead of an expression that is not DPP."""
    kind = type(guilty).__name__
    if kind == "QuadForm":
        return "write `sum_squares(L.T @ x)` with a parameter L, where L L' is the matrix"
    if kind == "DivExpression" and guilty.args[1].parameters():
        return (
            f"write `multiply(q, {guilty.args[0]})` with a parameter q, the inverse of the divisor"
        )
    inside = _of_parameters(guilty)
    what = f"`{inside}`" if inside is not None else "the product"
    return f"give {what} a parameter of its own, whose value is computed beforehand"


def _of_parameters(expression: Any) -> Any:
    """The largest sub-expression that holds parameters alone, and not one of them bare."""
    if expression.parameters() and not expression.variables() and len(expression.args):
        return expression if not hasattr(expression, "dual_value") else None
    found = (_of_parameters(child) for child in expression.args)
    return next((e for e in found if e is not None), None)


def _smallest(expression: Any, dpp: bool) -> Any:
    """The first sub-expression that breaks the rules while all of its own arguments keep them."""
    for child in getattr(expression, "args", ()):
        found = _smallest(child, dpp)
        if found is not None:
            return found
    return None if expression.is_dcp(dpp=dpp) else expression


def checked_parameter(parameter: Any, value: Any) -> Any:
    """`value` if it fits the parameter: shape, sign, symmetry, finite. A symmetric one is symmetrised,
    so that its gradient is symmetric.

    **Raises:** `ValueError`.
    """
    name, shape = parameter.name(), parameter.shape
    if value is None:
        raise ValueError(
            f"ProgramLayer: parameter {name} has no value; found None. Pass an array of shape {shape}."
        )
    value = _real(name, shape, value)
    if value.shape != shape:
        hint = "Batch with `jax.vmap`" if value.ndim > len(shape) else "Reshape it"
        raise ValueError(
            f"ProgramLayer: parameter {name} has shape {shape}; found {value.shape}. {hint}: one call "
            "takes one sample."
        )
    on = {k: v for k, v in parameter.attributes.items() if v is not None and v is not False}
    matrix = on.keys() & {"symmetric", "PSD", "NSD"}
    seen = known(value)
    if seen is not None:
        _refuse(name, np.asarray(seen, float), on, bool(matrix))
    if matrix:
        value = (value + jnp.swapaxes(value, -1, -2)) / 2
    return value


def _real(name: str, shape: tuple, value: Any) -> Any:
    try:
        kind = value if hasattr(value, "dtype") else np.asarray(value)
    except ValueError:  # lists of several lengths
        kind = None
    real = jnp.floating, jnp.integer
    if kind is None or not any(jnp.issubdtype(kind.dtype, r) for r in real):
        raise ValueError(
            f"ProgramLayer: parameter {name} must be a real array of shape {shape}; found {shown(value)}."
        )
    return floating(value)


def _refuse(name: str, seen: np.ndarray, on: dict, matrix: bool) -> None:
    if not np.all(np.isfinite(seen)):
        offender = seen[~np.isfinite(seen)][0]
        raise ValueError(f"ProgramLayer: parameter {name} must be finite; found {offender}.")
    for kind, (words, holds) in _SIGNS.items():
        if kind in on and not np.all(holds(seen)):
            offender = seen[~holds(seen)][0]
            raise ValueError(
                f"ProgramLayer: parameter {name} is declared `{kind}=True` and must be {words}; found "
                f"{offender}."
            )
    size = np.max(np.abs(seen), initial=0.0)
    near = 1e-6 * size
    if matrix and np.max(np.abs(seen - seen.T), initial=0.0) > near:
        raise ValueError(
            f"ProgramLayer: parameter {name} must be symmetric; found entries that differ from their "
            f"mirror by {np.max(np.abs(seen - seen.T)):.1e}. Pass (M + M.T) / 2."
        )
    if {"PSD", "NSD"} & on.keys() and seen.size:
        lowest = np.min(np.linalg.eigvalsh(seen if "PSD" in on else -seen))
        if lowest < -near:
            word = "PSD" if "PSD" in on else "NSD"
            raise ValueError(
                f"ProgramLayer: parameter {name} is declared `{word}=True`; found an eigenvalue of the "
                f"wrong sign, {lowest:.1e}."
            )
    if "sparsity" in on and np.any(seen[~_pattern(on["sparsity"], seen.shape)]):
        raise ValueError(
            f"ProgramLayer: parameter {name} is declared with `sparsity`; found entries outside of it."
        )
    if "diag" in on and seen.ndim == 2 and np.any(seen - np.diag(np.diag(seen))):
        raise ValueError(
            f"ProgramLayer: parameter {name} is declared `diag=True`; found entries off its diagonal."
        )


def _pattern(sparsity: Any, shape: tuple) -> np.ndarray:
    """Where a parameter may have entries; `True` leaves it to the values."""
    held = np.zeros(shape, bool)
    held[sparsity if isinstance(sparsity, tuple) else tuple(map(tuple, sparsity))] = True
    return held

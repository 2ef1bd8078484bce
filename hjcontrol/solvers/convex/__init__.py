"""Training problems that are convex, each solved with a dual, a gap and the theorem behind them.

problem.solve() -> ConvexSolution: an ordinary network, and a proof that no weights do better
"""

import importlib
from typing import Any

_HOMES = {
    "AbstractConvexProblem": "problem",
    "ConvexSolution": "problem",
    "Theorem": "problem",
    "SoftmaxReadout": "logistic",
    "HopfCole": "hopf_cole",
    "fit_lse": "column_generation",
    "LSEFit": "column_generation",
    "polish": "polishing",
    "Polished": "polishing",
    "Ball": "pricing",
    "ConvexRegression": "convex_regression",
    "GatedReLU": "gated_relu",
    "sample_gates": "gated_relu",
    "DifferenceOfConvex": "difference",
    "DifferenceOfMaxAffine": "max_affine_difference",
    "SoftMaximum": "stages",
    "Difference": "stages",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:  # lazily: each problem brings its own third party
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__

"""Training problems that are convex, each solved with a dual, a gap and the theorem behind them.

problem.solve() -> ConvexSolution: an ordinary network, and a proof that no weights do better
"""

from hjcontrol._ground.lazy import lazily

_HOMES = {
    "AbstractConvexProblem": ".problem",
    "ConvexSolution": ".problem",
    "Theorem": ".problem",
    "SoftmaxReadout": ".logistic",
    "HopfCole": ".hopf_cole",
    "fit_lse": ".column_generation",
    "LSEFit": ".column_generation",
    "polish": ".polishing",
    "Polished": ".polishing",
    "Ball": ".pricing",
    "ConvexRegression": ".convex_regression",
    "GatedReLU": ".gated_relu",
    "sample_gates": ".gated_relu",
    "DifferenceOfConvex": ".difference",
    "DifferenceOfMaxAffine": ".max_affine_difference",
    "SoftMaximum": ".stages",
    "Difference": ".stages",
}

__getattr__, __dir__ = lazily(__name__, _HOMES)  # each problem brings its own third party
__all__ = __dir__()

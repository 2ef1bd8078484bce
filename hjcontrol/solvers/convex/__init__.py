"""Training problems that are convex, each solved with a dual, a gap and the theorem behind them.

problem.solve() -> Solution: an ordinary network, and a proof that no weights do better
"""

from hjcontrol._ground.lazy import lazily

_HOMES = {
    "AbstractConvexProblem": ".problem",
    "PrimalDual": ".problem",
    "PricedAtoms": ".column_generation",
    "SoftmaxReadout": ".logistic",
    "HopfCole": ".hopf_cole",
    "fit_lse": ".column_generation",
    "JointFit": ".joint_fit",
    "fit_jointly": ".joint_fit",
    "polish": ".polishing",
    "Ball": ".pricing",
    "ConvexRegression": ".convex_regression",
    "GatedReLU": ".gated_relu",
    "sample_gates": ".gated_relu",
    "DifferenceOfConvex": ".difference",
    "DifferenceOfMaxAffine": ".max_affine_difference",
    "Difference": ".difference",
}

_RENAMED = {
    "ConvexSolution": "hjcontrol.control:Solution",
    "LSEFit": "hjcontrol.control:Solution",
    "Polished": "hjcontrol.control:Solution",
    "SoftMaximum": "hjcontrol.networks:soft_maximum",
    "Theorem": "hjcontrol.control:Theorem",
}

# Each problem brings its own third party
__getattr__, __dir__ = lazily(__name__, _HOMES, renamed=_RENAMED)
__all__ = __dir__()

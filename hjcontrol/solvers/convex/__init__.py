"""Training problems that are convex, each solved with a dual, a gap and the theorem behind them.

problem.solve() -> Solution: an ordinary network, and a proof that no weights do better
"""

from hjcontrol._ground.lazy import lazily

_HOMES = {
    "AbstractConvexProblem": "problem",
    "PrimalDual": "problem",
    "PricedAtoms": "column_generation",
    "SoftmaxReadout": "logistic",
    "HopfCole": "hopf_cole",
    "fit_lse": "column_generation",
    "polish": "polishing",
    "Ball": "pricing",
    "ConvexRegression": "convex_regression",
    "GatedReLU": "gated_relu",
    "sample_gates": "gated_relu",
    "DifferenceOfConvex": "difference",
    "DifferenceOfMaxAffine": "max_affine_difference",
    "Difference": "difference",
}

__all__ = sorted(_HOMES)
__getattr__, __dir__ = lazily(  # each problem brings its own third party
    __name__,
    {name: f"{__name__}.{home}" for name, home in _HOMES.items()},
    renamed={
        "ConvexSolution": "hjcontrol.control:Solution",
        "LSEFit": "hjcontrol.control:Solution",
        "Polished": "hjcontrol.control:Solution",
        "SoftMaximum": "hjcontrol.networks:soft_maximum",
        "Theorem": "hjcontrol.control:Theorem",
    },
)

"""Public names that the sweep of bad calls leaves out: records that only the library makes, what is
abstract, what has no argument, and what collects others' answers.
"""

_NAMES = {
    "analysis.attribution": """
        Attribution LayerAttribution
    """,
    "analysis.bifurcation": """
        Bifurcation Branch CriticalPoints Fold Landscape Merge
    """,
    "analysis.continual": """
        Forgetting Overlap Pull forgetting pull
    """,
    "analysis.dimension": """
        IntrinsicDimension SampleSize
    """,
    "analysis.extrapolation": """
        Coverage Gap Ray
    """,
    "analysis.robustness": """
        Attack BoxMargin Change Curvature DeepRadius OutputBounds Radius
    """,
    "analysis.temperature": """
        Choice Window jointly
    """,
    "analysis.tree": """
        Agreement AffineBlock ModelTree PiecewiseAffine SoftTree
    """,
    "control": """
        AbstractControlSet AbstractRunningCost Binary Free History Minibatch Nonnegative
        Feedback Rounding Solution Ternary Theorem Trajectory
    """,
    "comparison": """
        Comparison
    """,
    "data": """
        DataError DataSet Pretrained Split Tokens read_encoder
    """,
    "estimators": """
        ControlledNetClassifier ControlledNetRegressor FitCertificate LSEClassifier LSERegressor
        MaxAffineRegressor
    """,
    "hamilton_jacobi": """
        AbstractHamiltonian Bracket Conjugate Envelope GridPlan GridSolution
        HJProx HalfQuadratic Minimum Quadratic Recovered Relativistic EquationResidual Searched
        Sum
    """,
    "layers": """
        AbstractConvexLayer AbstractFace AbstractProgram Attended CommutingSquare Faces
        GradientTable Optimality Residuals Shannon maximum table
    """,
    "reproduction": """
        Claim Entry Measurement Picture audit evidence
    """,
    "networks": """
        AbstractArchitecture AbstractStage AbstractUnits AffineWeights AttentionWeights
        BlockWeights EmbedWeights FeedForwardWeights HeadTable MeanPool ModeWeights Moment NormWeights
        Output RecurrentWeights SentenceEncoder StateSpaceWeights StepWeights Symmetry Weights
        head_table identity sentence_encoder
    """,
    "solvers": """
        AbstractSolver Ended Sweep capabilities capability_table loadable_backends
    """,
    "solvers.convex": """
        AbstractConvexProblem Ball Difference JointFit PricedAtoms PrimalDual polish
    """,
}
ELSEWHERE = {f"{room}.{name}" for room, names in _NAMES.items() for name in names.split()}

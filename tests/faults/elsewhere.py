"""Public names that the sweep of bad calls leaves out: records that only the library makes, what is
abstract, what has no argument, and what collects others' answers.
"""

_NAMES = {
    "analysis.bifurcation": """
        Bifurcation Branch CriticalPoints Fold Landscape Merge
    """,
    "analysis.tree": """
        Agreement Block ModelTree PiecewiseAffine SoftTree
    """,
    "control": """
        AbstractControlSet AbstractRunningCost Binary Free History Minibatch Nonnegative
        Rounding Solution Ternary Theorem Trajectory
    """,
    "comparison": """
        Comparison
    """,
    "data": """
        DataError DataSet Pretrained Split Tokens read_encoder
    """,
    "hamilton_jacobi": """
        AbstractHamiltonian Bracket Conjugate Envelope GridPlan GridSolution
        HJProx HalfQuadratic Minimum Quadratic Recovered Relativistic Residual Searched
        Sum
    """,
    "layers": """
        AbstractConvexLayer AbstractFace AbstractProgram Attended CommutingSquare Faces
        GradientTable Optimality Residuals maximum table
    """,
    "reproduction": """
        Claim Entry Finding Picture audit evidence
    """,
    "networks": """
        AbstractArchitecture AbstractStage AbstractUnits AffineWeights AttentionWeights
        BlockWeights EmbedWeights FeedForwardWeights HeadTable MeanPool ModeWeights NormWeights
        Output RecurrentWeights SentenceEncoder StateSpaceWeights StepWeights Symmetry Weights
        check_given head_table identity sentence_encoder
    """,
    "solvers": """
        AbstractMethod capability_table loadable_plugins
    """,
    "solvers.convex": """
        AbstractConvexProblem Ball Difference PricedAtoms PrimalDual polish
    """,
}
ELSEWHERE = {f"{room}.{name}" for room, names in _NAMES.items() for name in names.split()}

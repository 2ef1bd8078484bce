"""Hamilton-Jacobi theory of deep learning as a tool: training as optimal control, checked two ways.

Everything is reached lazily: `import hjcontrol as hj` costs almost nothing.
"""

from hjcontrol._ground.lazy import lazily

__version__ = "0.1.0"

_HOMES = {
    # Train as control.
    "ControlProblem": ".control",
    "solve": ".solvers",
    "sweep": ".solvers",
    "select": ".solvers",
    "Solution": ".control",
    "RESULTS": "._ground.results",
    "Newton": ".solvers",
    "Gradient": ".solvers",
    "Riccati": ".solvers",
    "MSA": ".solvers",
    "Shooting": ".solvers",
    "Direct": ".solvers",
    "Dense": ".networks",
    "Residual": ".networks",
    "Flow": ".networks",
    "Tied": ".networks",
    "lift": ".networks",
    "readout": ".networks",
    "Ridge": ".control",
    "Smoothing": ".control",
    "Box": ".control",
    "softmax_cross_entropy": ".control",
    "least_squares": ".control",
    "report": ".reporting",
    # Verify a backward pass.
    "verify": ".verification",
    "verify_torch": ".verification.torch_witness",
    "deliberate": ".verification",
    "VerificationError": ".verification",
    "Certificate": ".verification",
    "adjoint_ladder": ".verification.ladder",
    "crosscheck": ".comparison",
    "Comparison": ".comparison",
    # Layers as programs.
    "LSE": ".layers",
    "Softmax": ".layers",
    "Sparsemax": ".layers",
    "SoftThreshold": ".layers",
    "ProgramLayer": ".layers",
    "ClassHead": ".layers",
    "certify": ".layers",
    "Optimality": ".layers",
    "compare_gradients": ".layers",
    "faces": ".layers",
    # Data.
    "load": ".data",
    "split": ".data",
}
_ROOMS = (  # `reproduction` is the command `claims`, no tool
    "analysis",
    "comparison",
    "control",
    "data",
    "deformation",
    "estimators",
    "hamilton_jacobi",
    "layers",
    "networks",
    "reporting",
    "reporting.plots",
    "solvers",
    "solvers.convex",
    "testing",
    "verification",
)
_RENAMED = {"ledger": ".reproduction"}

__getattr__, _names = lazily(__name__, _HOMES, _ROOMS, _RENAMED)
__all__ = sorted(["__version__", *_names()])


def __dir__() -> list[str]:
    return __all__

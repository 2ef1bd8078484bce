"""Hamilton-Jacobi theory of deep learning as a tool: training as optimal control, checked two ways.

Everything is reached lazily: `import hjcontrol as hj` costs almost nothing.
"""

from hjcontrol._ground.lazy import lazily

__version__ = "0.1.0"

_HOMES = {
    "ControlProblem": "hjcontrol.control",
    "Solution": "hjcontrol.control",
    "RESULTS": "hjcontrol._ground.results",
    "solve": "hjcontrol.solvers",
    "verify": "hjcontrol.verification",
    "verify_torch": "hjcontrol.verification.torch_witness",
    "deliberate": "hjcontrol.verification",
    "VerificationError": "hjcontrol.verification",
    "adjoint_ladder": "hjcontrol.verification.ladder",
    "Certificate": "hjcontrol.verification",
    "crosscheck": "hjcontrol.comparison",
    "Comparison": "hjcontrol.comparison",
    "report": "hjcontrol.reporting",
    "certify": "hjcontrol.layers",
    "compare_gradients": "hjcontrol.layers",
    "faces": "hjcontrol.layers",
}
_ROOMS = (
    "analysis",
    "comparison",
    "control",
    "data",
    "deformation",
    "hamilton_jacobi",
    "layers",
    "networks",
    "reporting",
    "solvers",
    "testing",
    "verification",
)

_RENAMED = {"ledger": "hjcontrol.reproduction"}

__all__ = sorted(
    [*_HOMES, *_ROOMS, "__version__"]
)  # `reproduction` is the command `claims`, no tool
__getattr__, _ = lazily(__name__, _HOMES, _ROOMS, _RENAMED)


def __dir__() -> list[str]:
    return __all__

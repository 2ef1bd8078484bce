"""Hamilton-Jacobi theory of deep learning as a tool: training as optimal control, checked two ways.

Everything is reached lazily: `import hjcontrol as hj` costs almost nothing.
"""

import importlib
from typing import Any

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
    "report": "hjcontrol.reporting",
    "certify": "hjcontrol.layers",
    "compare_gradients": "hjcontrol.layers",
    "faces": "hjcontrol.layers",
}
_ROOMS = (
    "analysis",
    "control",
    "crosscheck",
    "data",
    "deformation",
    "hamilton_jacobi",
    "layers",
    "ledger",
    "networks",
    "reporting",
    "solvers",
    "testing",
    "verification",
)

__all__ = sorted([*_HOMES, *_ROOMS, "__version__"])


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in _ROOMS:
        return importlib.import_module(f"hjcontrol.{name}")
    raise AttributeError(f"module 'hjcontrol' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__

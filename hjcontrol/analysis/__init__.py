"""Questions to a model, one file each, blind to each other. See the room's page for what each answers."""

import importlib
from typing import Any

_QUESTIONS = (
    "attribution",
    "bifurcation",
    "continual",
    "dimension",
    "double_descent",
    "extrapolation",
    "robustness",
    "scaling",
    "solitons",
    "temperature",
    "tree",
)

__all__ = sorted(_QUESTIONS)


def __getattr__(name: str) -> Any:
    if name in _QUESTIONS:
        return importlib.import_module(f"hjcontrol.analysis.{name}")
    raise AttributeError(f"module 'hjcontrol.analysis' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__

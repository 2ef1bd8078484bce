"""Algorithms, siblings blind to each other, all driven by one loop."""

import importlib
from typing import Any

_HOMES = {
    "solve": "driver",
    "Checkpoint": "checkpoint",
    "by_name": "names",
    "NAMES": "names",
    "AbstractMethod": "method",
    "capabilities": "capabilities",
    "capability_table": "capabilities",
    "select": "capabilities",
    "Gradient": "gradient",
    "Newton": "newton",
    "Riccati": "riccati",
    "Direct": "direct",
    "MSA": "msa",
    "ExtendedMSA": "msa",
    "DiscreteMSA": "msa",
    "Shooting": "shooting",
    "as_nlp": "direct",
    "loadable_plugins": "direct",
}

__all__ = sorted([*_HOMES, "convex"])


def __getattr__(name: str) -> Any:  # lazily: each method brings its own third party
    if name == "convex":
        return importlib.import_module("hjcontrol.solvers.convex")
    if name in _HOMES:
        return getattr(importlib.import_module(f"hjcontrol.solvers.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'hjcontrol.solvers' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__

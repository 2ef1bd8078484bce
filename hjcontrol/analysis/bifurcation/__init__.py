"""The entropy landscape of a layer: all its critical points, and how they vanish as eps grows."""

from typing import TYPE_CHECKING

from hjcontrol._ground.lazy import lazily
from hjcontrol.analysis.bifurcation.critical import CriticalPoints, critical_points, on_plane
from hjcontrol.analysis.bifurcation.diagram import Bifurcation, Branch, Fold, bifurcation_diagram
from hjcontrol.analysis.bifurcation.landscape import Landscape, entropy_landscape, hot_centre
from hjcontrol.analysis.bifurcation.merging import Merge

__all__ = [
    "Bifurcation",
    "Branch",
    "CriticalPoints",
    "Fold",
    "Landscape",
    "Merge",
    "bifurcation_diagram",
    "critical_points",
    "entropy_landscape",
    "hot_centre",
    "on_plane",
]

if not TYPE_CHECKING:  # old names, for one release; a type checker reports them
    _RENAMED = {"bifurcation": ":bifurcation_diagram"}
    __getattr__, _ = lazily(__name__, renamed=_RENAMED)

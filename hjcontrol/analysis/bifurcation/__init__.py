"""The entropy landscape of a layer: all its critical points, and how they vanish as eps grows."""

from hjcontrol.analysis.bifurcation.critical import CriticalPoints, critical_points, on_plane
from hjcontrol.analysis.bifurcation.diagram import Bifurcation, Branch, Fold, bifurcation
from hjcontrol.analysis.bifurcation.landscape import Landscape, entropy_landscape, hot_centre
from hjcontrol.analysis.bifurcation.merging import Merge

__all__ = [
    "Bifurcation",
    "Branch",
    "CriticalPoints",
    "Fold",
    "Landscape",
    "Merge",
    "bifurcation",
    "critical_points",
    "entropy_landscape",
    "hot_centre",
    "on_plane",
]

"""The jury: brings the solutions of several solvers before the witness."""

from hjcontrol.comparison.solutions import Comparison, crosscheck
from hjcontrol.comparison.symmetry import match, relabel

__all__ = ["Comparison", "crosscheck", "match", "relabel"]

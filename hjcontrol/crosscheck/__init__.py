"""The jury: brings the solutions of several solvers before the witness."""

from hjcontrol.crosscheck.comparison import Comparison, crosscheck
from hjcontrol.crosscheck.symmetry import match, relabel

__all__ = ["Comparison", "crosscheck", "match", "relabel"]

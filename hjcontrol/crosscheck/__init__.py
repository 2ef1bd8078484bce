"""The jury: brings the solutions of several solvers before the witness.

The room and its verb share one name: `hj.crosscheck(problem, a, b)` calls the room.
"""

import sys
import types
from typing import Any

from hjcontrol.crosscheck.comparison import Comparison, crosscheck
from hjcontrol.crosscheck.symmetry import match, relabel

__all__ = ["Comparison", "crosscheck", "match", "relabel"]


class _Room(types.ModuleType):
    """A module that is called like its verb, whether or not it was imported before."""

    def __call__(self, *args: Any, **options: Any) -> Comparison:
        return crosscheck(*args, **options)


sys.modules[__name__].__class__ = _Room

"""The jury: brings the solutions of several solvers before the witness."""

from typing import TYPE_CHECKING

from hjcontrol._ground.lazy import lazily
from hjcontrol.comparison.solutions import Comparison, crosscheck

__all__ = ["Comparison", "crosscheck"]

if not TYPE_CHECKING:  # old names, for one release; a type checker reports them
    _RENAMED = {"match": ".symmetry:match", "relabel": ".symmetry:relabel"}
    __getattr__, _ = lazily(__name__, renamed=_RENAMED)

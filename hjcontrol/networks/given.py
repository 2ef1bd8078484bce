"""What is given at a stage and has no costate: what the stage reads, and what costs read beside it.

    x_{k+1} = F_k(x_k, theta_k, read_k)          l_k = l(x_k, theta_k, reference_k)

A problem whose costs read nothing gives its stages what they read, bare. With references the two come as
one `Given`, which goes wherever the bare one went: `advance` hands the stage its own part.
"""

from typing import Any

from hjcontrol._ground.shown import Shown
from hjcontrol._ground.trees import AnyTree


class Given(Shown):
    """`read`: a forcing's entry, a context or `None`; `reference`: what costs and constraints read."""

    read: AnyTree
    reference: AnyTree


def read_of(given: Any) -> Any:
    """What the stage reads."""
    return given.read if isinstance(given, Given) else given


def reference_of(given: Any) -> Any:
    """What costs read; `None` if they read nothing."""
    return given.reference if isinstance(given, Given) else None


def mapped(given: Any, read: Any, reference: Any) -> Any:
    """The same with `read` applied to what stages read, `reference` to what costs read."""
    if not isinstance(given, Given):
        return read(given)
    return Given(read(given.read), reference(given.reference))

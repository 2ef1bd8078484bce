"""The witness: routes to the costate, their agreement, and certificates. Never imports solvers."""

from typing import TYPE_CHECKING

from hjcontrol._ground.lazy import lazily
from hjcontrol.verification.certificate import Certificate, Finding, Pair, Row, VerificationError
from hjcontrol.verification.chained import ROUTES
from hjcontrol.verification.curvature import lanczos, smallest_curvature
from hjcontrol.verification.declaring import deliberate
from hjcontrol.verification.directional import derivative
from hjcontrol.verification.minimum import minimum_gap
from hjcontrol.verification.verifying import verify

__all__ = [
    "ROUTES",
    "Certificate",
    "Finding",
    "Pair",
    "Row",
    "VerificationError",
    "deliberate",
    "derivative",
    "lanczos",
    "minimum_gap",
    "smallest_curvature",
    "verify",
]

if not TYPE_CHECKING:  # old names, for one release; a type checker reports them
    _RENAMED = {
        "differences": ".directional:differences",
        "inlined": ".inlining:inlined",
        "measure": ".measuring:measure",
        "recurse": ".recursion:recurse",
    }
    __getattr__, _ = lazily(__name__, renamed=_RENAMED)

"""The witness: routes to the costate, their agreement, and certificates. Never imports solvers."""

from hjcontrol.verification.certificate import (
    Certificate,
    Finding,
    Pair,
    Row,
    VerificationError,
)
from hjcontrol.verification.chained import ROUTES
from hjcontrol.verification.curvature import lanczos, smallest_curvature
from hjcontrol.verification.directional import derivative, differences
from hjcontrol.verification.function import deliberate
from hjcontrol.verification.inlining import inlined
from hjcontrol.verification.measure import measure
from hjcontrol.verification.minimum import minimum_gap
from hjcontrol.verification.recursion import recurse
from hjcontrol.verification.verify import verify

__all__ = [
    "ROUTES",
    "Certificate",
    "Finding",
    "Pair",
    "Row",
    "VerificationError",
    "deliberate",
    "derivative",
    "differences",
    "inlined",
    "lanczos",
    "measure",
    "minimum_gap",
    "recurse",
    "smallest_curvature",
    "verify",
]

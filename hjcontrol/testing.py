"""For a test suite: a backward pass that is not shown to be right fails the test.

    def test_my_rule():
        hj.testing.assert_verified(loss, params, batch)

The message is the certificate's table: each rule that is wrong, by how much, and where it stands.
"""

import dataclasses
import math
from collections.abc import Collection
from typing import Any

from hjcontrol._ground.renamed import renamed
from hjcontrol.verification import Certificate, verify
from hjcontrol.verification.certificate import check_allowed

__all__ = ["assert_verified"]


@renamed(tolerance="tol")
def assert_verified(
    fn: Any, *args: Any, allow: Collection[str] = ("detached",), tol: float = 1e-6, **kwargs: Any
) -> Certificate:
    """Verify a backward pass and raise unless all of it was shown.

    **Arguments:**

    - `fn`, `args`, `kwargs`: as `hj.verify` takes them: a function with its arguments, a model with
      `inputs=` and `cost=`, a control problem with weights, a solution, a list of stages. Both costates
      are tried, the one that arrives and a random one, unless `costate=` says otherwise.
    - `allow`: verdicts that are accepted besides `exact` and `deliberate`. `stop_gradient` is one that
      people mean, so `detached` is accepted unless `allow=()`.
    - `tol`: the largest gap of a `consistent` place, or of a `consistent` pair of routes, that is
      accepted.

    **Returns:** the certificate.

    **Raises:** `VerificationError`, an `AssertionError`, with the table as its message; `ValueError` or
    `TypeError` for bad arguments, as `hj.verify`.
    """
    __tracebackhide__ = True  # pytest shows the caller's line
    check_allowed(allow)
    real = isinstance(tol, (int, float)) and not isinstance(tol, bool)
    if not (real and math.isfinite(tol) and tol > 0):
        raise ValueError(f"assert_verified: `tol` must be positive and finite; found {tol!r}.")
    # `verify` reads `tol` of a chain as what two routes may differ by: that stays the dtype's.
    certificate = dataclasses.replace(verify(fn, *args, **kwargs), accepted=float(tol))
    certificate.raise_for_verdict(allow)
    return certificate

"""Agreement of two numbers, arrays or pytrees, with the kind of agreement named.

exact        the same mathematics by two discrete routes: roundoff only
float32      the same, in 32 bits
differences  one route is a finite difference
"""

from typing import Any

import jax
import numpy as np

TOLERANCE = {"exact": 1e-12, "float32": 2e-5, "differences": 1e-7}


def disagreement(a: Any, b: Any) -> float:
    """Largest difference of two equally structured trees, relative to their largest entry (or 1)."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    worst = 0.0
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        x, y = np.asarray(x, float), np.asarray(y, float)
        assert x.shape == y.shape, f"shapes {x.shape} and {y.shape}"
        same = (x == y) | (np.isnan(x) & np.isnan(y))
        if same.all():
            continue
        scale = max(1.0, np.abs(x[np.isfinite(x)]).max(initial=0.0))
        with np.errstate(invalid="ignore"):
            apart = float(np.where(same, 0.0, np.abs(x - y)).max()) / scale
        assert not np.isnan(apart), f"NaN on one side only:\n{x}\n{y}"  # max() would drop it
        worst = max(worst, apart)
    return worst


def assert_agree(a: Any, b: Any, kind: str | float = "exact") -> None:
    """Fail, with the numbers, unless `a` and `b` agree to the kind's tolerance."""
    tol = TOLERANCE[kind] if isinstance(kind, str) else kind
    found = disagreement(a, b)
    assert found <= tol, f"disagreement {found:.2e} > {tol:.0e}\n{a}\n{b}"

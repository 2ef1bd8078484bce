"""What to tell the person whose flow did not reach its end.

found      which samples, at what time, after how many steps, the last of which length
usually    the flow grows too fast or is stiff; the tolerance is below what the dtype resolves;
           the limit of steps is too low for the interval
"""

from typing import Any

import jax
import numpy as np
from jaxtyping import Array, PyTree


def failure(
    report: dict[str, Any], t0: float, t1: float, numerics: Any, theta: PyTree[Array]
) -> str | None:
    """One paragraph, or `None` if every sample reached `t1`. `report`: `Numerics.trace` of each."""
    bad = np.flatnonzero(~np.asarray(report["succeeded"]))
    if not len(bad):
        return None
    i = int(bad[0])
    times = np.asarray(report["ts"][i], float)
    times = times[np.isfinite(times)]
    last = times[-1] - times[-2] if len(times) > 1 else float("nan")
    steps = int(report["steps"][i])
    why = (
        f"ran out of steps ({steps} of `max_steps={numerics.max_steps}`)"
        if bool(report["out of steps"][i])
        else f"was given up by {type(numerics.solver).__name__} after {steps} steps"
    )
    sizes = [float(np.max(np.abs(a), initial=0.0)) for a in jax.tree.leaves(theta)]
    size = max(sizes, default=0.0)
    return (
        f"the flow over t = {t0:g} .. {t1:g} failed for {len(bad)} of {len(report['succeeded'])} "
        f"samples; sample {i} {why} at t = {times[-1]:.6g}, last accepted step {last:.2g}, largest "
        f"weight {size:.3g}. Usual causes: the state blows up or the drift is stiff (smaller "
        "weights or steps of the optimiser, or an implicit solver such as diffrax.Kvaerno5()); "
        "tolerances finer than the dtype resolves (loosen them, or use float64); `max_steps` too "
        "low for the interval (raise it, or cut the flow into more pieces)."
    )

"""Two images of a costate compared where the program runs: one pass over each array."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hjcontrol.verification.arithmetic import is_float

FAR = 64.0  # times the root of eps: an element this far off beside its own size is counted


def gathered(
    *parts: Any, total: tuple[int, ...] = (), floored: tuple[int, ...] = ()
) -> tuple[Any, ...]:
    """Maxima (sums at the positions `total`) of arrays of one shape, in one pass: one kernel to compile
    and run in place of one each. Maxima at the positions `floored` are no less than `tiny`."""
    real = jnp.finfo(jnp.result_type(*(a for a in parts if is_float(a)), jnp.float32))
    arrays = tuple(jnp.asarray(a).astype(real.dtype) for a in parts)

    def step(x: Any, y: Any) -> Any:
        pairs = enumerate(zip(x, y, strict=True))
        return tuple(a + b if k in total else jnp.maximum(a, b) for k, (a, b) in pairs)

    starts = [real.tiny if k in floored else 0.0 for k in range(len(arrays))]
    zeros = tuple(np.asarray(start, real.dtype) for start in starts)
    return tuple(jax.lax.reduce(arrays, zeros, step, tuple(range(arrays[0].ndim))))


def relative(gap: Any, size: Any) -> Any:
    """`gap / size`, zero where there is no gap."""
    return jnp.where(gap == 0, 0.0, gap / jnp.maximum(size, jnp.finfo(size.dtype).tiny))


class Compared(NamedTuple):
    """Two images of one argument, in numbers from which `rule.finished` makes the gap."""

    worst: Any  # largest difference
    size: Any  # of the larger side
    bad: Any  # whether the rule's result for the costate that arrives is not finite
    entering: Any  # whether the input is not finite
    live: Any  # elements with a derivative
    far: Any  # elements that are far off beside their own size
    count: float  # elements


def compared(a: Any, b: Any, result: Any, at: Any) -> Compared:
    """`a`, the rule's image, and `b`; `result`: the rule's for the costate that arrives; `at`: the input.
    Elements of `a` and `b` that are not finite on both sides are left out."""
    if not a.size:
        return Compared(0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0)
    neither = ~jnp.isfinite(a) & ~jnp.isfinite(b)
    a, b = jnp.where(neither, 0, a), jnp.where(neither, 0, b)
    gap = jnp.where(a == b, 0, jnp.abs(a - b))
    own, other = (jnp.where(jnp.isfinite(c), jnp.abs(c), 0) for c in (a, b))
    height, kind = jnp.maximum(own, other), jnp.finfo(a.dtype)
    faint = float(kind.tiny) ** 0.5  # below it, what is multiplied may have been rounded to zero
    far = (gap > FAR * float(kind.eps) ** 0.5 * height) & (height > faint)
    found = gathered(
        jnp.where(jnp.isnan(gap), jnp.inf, gap),
        height,
        ~jnp.isfinite(result),
        ~jnp.isfinite(at),
        (a != 0) | (b != 0),
        far,
        total=(4, 5),
        floored=(1,),
    )
    worst, size, bad, entering, live, apart = found
    return Compared(worst, size, bad, entering, live, apart, a.size)


def paired(r: Any, pushed: Any, ours: Any, v: Any) -> tuple[Any, Any]:
    """Gap, and share of elements with a derivative, from `<r, J v>` and `<G r, v>`: no conjugation, the
    real part."""
    left = [(a * b).real for a, b in zip(r, pushed, strict=True) if is_float(a)]
    right = [(a * b).real for a, b in zip(ours, v, strict=True) if is_float(a)]
    left, right = ([jnp.where(jnp.isfinite(a), a, 0) for a in side] for side in (left, right))
    total = lambda side: sum((jnp.sum(a) for a in side), jnp.zeros(()))
    size = lambda side: sum((jnp.sum(jnp.abs(a)) for a in side), jnp.zeros(()))
    scale = jnp.maximum(size(left), size(right))
    gap = jnp.abs(total(left) - total(right))
    count = sum(a.size for a in left) or 1
    live = sum((jnp.sum(a != 0) for a in left), jnp.zeros((), int)) / count
    return relative(gap, scale), live

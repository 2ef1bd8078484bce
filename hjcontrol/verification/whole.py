"""A program's whole gradient against differences of its values, along one random direction.

    <gradient, v> = d/dt J(x + t v)        v = +-1

It is all that can be said of a program without rules, and a guard where JAX's own reverse mode is in
doubt: mutable arrays.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hjcontrol.verification.arithmetic import eps_of
from hjcontrol.verification.directional import differences
from hjcontrol.verification.program import Call
from hjcontrol.verification.references import holds_refs
from hjcontrol.verification.slots import looking


def told_without_rules(call: Call, gradient: Sequence[Any]) -> str:
    """What is said of a program without rules."""
    return f"no custom rule: every derivative is JAX's own{_compared(call, gradient)[1]}"


def told_of_refs(call: Call, gradient: Sequence[Any]) -> str:
    """What is wrong with the gradient of a program with mutable arrays; "" if nothing is."""
    if not holds_refs(call.program.closed.jaxpr):
        return ""
    agrees, words = _compared(call, gradient)
    return "" if agrees else f"JAX may lose what is written into a ref{words}"


def _compared(call: Call, gradient: Sequence[Any]) -> tuple[bool, str]:
    """Whether the gradient was shown to agree with differences of the values, and the end of a
    sentence about it."""
    program = call.program
    at = [k for k, a in enumerate(program.active) if a]
    x = [call.leaves[k] for k in at]
    if any(jnp.iscomplexobj(a) for a in x):
        return False, "; nothing else was checked"
    signs = lambda k, a: np.random.default_rng(k).choice([-1.0, 1.0], a.shape)
    v = [jnp.asarray(signs(k, a), a.dtype) for k, a in enumerate(x)]

    def run(x: list[Any], v: list[Any], gradient: list[Any], leaves: list[Any]) -> Any:
        def cost(moved: list[Any]) -> Any:
            slots = dict.fromkeys(program.maps)
            visit = looking(program.maps, {})
            return program.cost(program.merged(leaves, at, moved), slots, visit, None)

        slope, error = differences(cost, x, v)
        parts = [g * d for g, d in zip(gradient, v, strict=True)]
        total = sum((jnp.sum(a) for a in parts), jnp.zeros(()))
        size = sum((jnp.sum(jnp.abs(a)) for a in parts), jnp.zeros(()))
        return jnp.abs(slope - total), error, size

    ask = program.compiled("whole", lambda: run)
    try:
        gap, error, size = (float(a) for a in ask(x, v, list(gradient), call.leaves))
    except jax.errors.JaxRuntimeError:  # a guard of the program's own
        return False, "; at arguments nearby the program raises, so nothing else was checked"
    eps, size = max(eps_of(a.dtype) for a in x), size or 1.0
    if not np.isfinite(gap) or error > 1e-2 * size:
        return False, "; differences of the values resolve nothing here"
    if gap <= (1e-6 if eps < 1e-12 else 1e-2) * size + 10 * error:
        return True, (
            ". The gradient agrees with differences of the values along a random direction to "
            f"{gap / size:.0e} (their error {error / size:.0e})"
        )
    return False, (
        f". The gradient and differences of the values differ by {gap / size:.0e} along a random "
        "direction: a kink, or values that jump"
    )

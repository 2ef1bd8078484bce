"""Which derivatives of a flow an adjoint offers, so that what is lacking is refused before a solve.

| adjoint | reverse | forward | forward-over-reverse | agrees with the discrete costate |
|---|---|---|---|---|
| RecursiveCheckpointAdjoint | yes | no | no | exactly |
| DirectAdjoint | yes | yes | yes | exactly |
| BacksolveAdjoint | yes | no | no | to solver tolerance |
| ForwardMode | no | yes | no | exactly |
| ImplicitAdjoint | yes | yes | yes | never: it differentiates a steady state |

The table is the same for explicit and implicit solvers; a test asks diffrax itself. Any other adjoint
is asked, by tracing.
"""

from typing import Any

import jax
import jax.numpy as jnp

DERIVATIVES = ("reverse", "forward", "forward-over-reverse")
CAPABILITIES = {
    "RecursiveCheckpointAdjoint": ("reverse",),
    "DirectAdjoint": DERIVATIVES,
    "BacksolveAdjoint": ("reverse",),
    "ForwardMode": ("forward",),
    "ImplicitAdjoint": DERIVATIVES,
}


def capable(numerics: Any, derivative: str) -> bool:
    """Whether the adjoint offers a derivative of the kind, one of `DERIVATIVES`."""
    known = CAPABILITIES.get(type(numerics.adjoint).__name__)
    return probe(numerics, derivative) if known is None else derivative in known


def probe(numerics: Any, derivative: str) -> bool:
    """The same, asked of diffrax: x' = -theta x, traced and not run."""
    velocity = lambda t, x, theta: -theta * x
    zero, one = jnp.zeros(()), jnp.ones(())
    solve = lambda theta: numerics.solve(velocity, zero, one, one, theta).ys[-1]
    ask = {
        "reverse": jax.grad(solve),
        "forward": lambda a: jax.jvp(solve, (a,), (a,)),
        "forward-over-reverse": lambda a: jax.jvp(jax.grad(solve), (a,), (a,)),
    }[derivative]
    try:
        jax.eval_shape(ask, one)
    except (TypeError, ValueError, NotImplementedError, RuntimeError):
        return False
    return True

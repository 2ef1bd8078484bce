"""Which derivatives of a flow an adjoint supports, checked before a solve starts.

| adjoint | reverse | forward | forward-over-reverse | agrees with the discrete costate |
|---|---|---|---|---|
| RecursiveCheckpointAdjoint | yes | no | no; yes for a solver of one stage, Euler | exactly |
| DirectAdjoint | yes | yes | yes | exactly |
| BacksolveAdjoint | yes | no | no | to solver tolerance |
| ForwardMode | no | yes | no | exactly |
| ImplicitAdjoint | yes | yes | yes | never: it differentiates a steady state |

The second derivative through the default adjoint fails in the inner loop over Runge-Kutta stages
(diffrax #332). A test asks diffrax itself whether the table is true; an adjoint outside it is asked
by lowering a small solve.
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
    import diffrax

    known = CAPABILITIES.get(type(numerics.adjoint).__name__)
    stages = isinstance(numerics.solver, (diffrax.AbstractRungeKutta, diffrax.AbstractSRK))
    if isinstance(numerics.adjoint, diffrax.RecursiveCheckpointAdjoint) and not stages:
        return derivative == "reverse" or probe(numerics, derivative)
    return probe(numerics, derivative) if known is None else derivative in known


def probe(numerics: Any, derivative: str) -> bool:
    """The same, asked of diffrax: x' = -theta x, lowered and not run."""
    velocity = lambda t, x, theta: -theta * x
    zero, one = jnp.zeros(()), jnp.ones(())
    solve = lambda theta: numerics.solve(velocity, zero, one, one, theta).ys[-1]
    ask = {
        "reverse": jax.grad(solve),
        "forward": lambda a: jax.jvp(solve, (a,), (a,)),
        "forward-over-reverse": lambda a: jax.jvp(jax.grad(solve), (a,), (a,)),
    }[derivative]
    try:
        jax.jit(ask).lower(one)  # tracing is not enough: forward mode of a custom_vjp fails here
    except (TypeError, ValueError, NotImplementedError, RuntimeError):
        return False
    return True

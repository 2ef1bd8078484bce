r"""One program, several engines, one answer.

    closed   the formula, in JAX: jit, vmap, jvp, grad, hessian
    newton   Newton on the dual, in log variables where multipliers are positive, in JAX: jit, vmap
    cvxpy    `layer.as_cvxpy(z)` by any installed solver: on the host, one sample
    jaxopt   a referee: projections, mirror descent, on the host's terms

An engine that a layer does not have is refused by name, with the reason, never replaced by another:
see `lacks`. (Under a trace, where `eps = 0` cannot be seen, `newton` gives the closed answer there.)
"""

from typing import Any

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Real

from hjcontrol._ground.arguments import admits
from hjcontrol._ground.concrete import known_to_fail
from hjcontrol.layers.layer import AbstractConvexLayer, checked

ENGINES = ("closed", "newton", "cvxpy", "jaxopt")
HARD = (
    "at `eps = 0` the dual is piecewise linear, where Newton has no step. Use `closed` or `cvxpy`, or "
    "`eps > 0`."
)
FACTORIAL = "at `eps = 0` it is a linear program of n! vertices. Use `closed` or `cvxpy`."
UNBOUNDED = "at `eps = 0` the value is 0 or +inf, and nothing is left to iterate on. Use `closed`."


@admits()
def argmax(
    layer: AbstractConvexLayer,
    z: Real[ArrayLike, "*shape"],
    engine: str = "closed",
    **options: Any,
) -> Float[Array, "*shape"]:
    """The argmax of `layer` at `z` by the engine named.

    **Arguments:** `options` go to the engine: for `cvxpy` to `Problem.solve` (`solver="SCS"`, ...).

    **Raises:** `ValueError` for an engine that does not exist or that the layer does not have (`lacks`);
    `RuntimeError` if cvxpy's solver did not reach an optimum, with its status.
    """
    if engine == "closed":
        return layer(z, **options)
    why = lacks(layer, engine)
    if why is not None:
        raise ValueError(f"argmax: {type(layer).__name__} has no engine `{engine}`: {why}")
    if engine == "newton":
        from hjcontrol.layers.routes import unrolled

        return unrolled(layer, checked(type(layer).__name__, z), **options)
    if engine == "cvxpy":
        return by_cvxpy(layer, z, **options)
    if engine == "jaxopt":
        from hjcontrol.layers.referee import referee

        return referee(layer, z, **options)
    raise ValueError(f"argmax: engines are {', '.join(ENGINES)}; found {engine!r}.")


def lacks(layer: AbstractConvexLayer, engine: str) -> str | None:
    """Why `layer`, at its temperature, has no such engine; `None` if it has, or for a traced `eps`."""
    from hjcontrol.layers.permutahedron import Permutahedron
    from hjcontrol.layers.prox import BallProjection, GroupSoftThreshold, SoftThreshold

    if not known_to_fail(layer.eps > 0):
        return None
    if engine == "newton" and not isinstance(layer, BallProjection):
        return HARD
    if engine == "jaxopt" and isinstance(layer, (SoftThreshold, GroupSoftThreshold)):
        return UNBOUNDED
    return FACTORIAL if engine == "jaxopt" and isinstance(layer, Permutahedron) else None


def by_cvxpy(
    layer: AbstractConvexLayer, z: Real[ArrayLike, "*shape"], **options: Any
) -> Float[Array, "*shape"]:
    """The argmax by cvxpy, with Clarabel unless `solver` says otherwise."""
    import jax.numpy as jnp

    problem = layer.as_cvxpy(z)
    problem.solve(**{"solver": "CLARABEL", **options})
    if problem.status not in ("optimal", "optimal_inaccurate"):
        raise RuntimeError(
            f"argmax: cvxpy ended with status {problem.status!r} for {type(layer).__name__}. "
            "Scale the logits, or try another `solver`."
        )
    (p,) = (v for v in problem.variables() if v.name() == "p")
    dtype = checked(type(layer).__name__, z).dtype
    return jnp.asarray(np.asarray(p.value).reshape(np.shape(z)), dtype)

r"""One program, several engines, one answer.

    closed   the formula, in JAX: jit, vmap, jvp, grad, hessian
    newton   Newton on the dual in log variables, or a first-order method, in JAX: jit, vmap
    cvxpy    `layer.as_cvxpy(z)` by any installed solver: on the host, one sample
    jaxopt   a referee: projections, mirror descent, on the host's terms

An engine that a family does not have is refused by name, never replaced by another.
"""

from typing import Any

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Real

from hjcontrol.layers.layer import AbstractConvexLayer, checked

ENGINES = ("closed", "newton", "cvxpy", "jaxopt")


def solve(
    layer: AbstractConvexLayer,
    z: Real[ArrayLike, "*shape"],
    engine: str = "closed",
    **options: Any,
) -> Float[Array, "*shape"]:
    """The argmax of `layer` at `z` by the engine named.

    **Arguments:** `options` go to the engine: for `cvxpy` to `Problem.solve` (`solver="SCS"`, ...).

    **Raises:** `ValueError` for an engine that does not exist or that the layer does not have;
    `RuntimeError` if cvxpy's solver did not reach an optimum, with its status.
    """
    if engine == "closed":
        return layer(z, **options)
    if engine == "newton":
        from hjcontrol.layers.routes import unrolled

        return unrolled(layer, checked(type(layer).__name__, z), **options)
    if engine == "cvxpy":
        return by_cvxpy(layer, z, **options)
    if engine == "jaxopt":
        from hjcontrol.layers.referee import referee

        return referee(layer, z, **options)
    raise ValueError(f"solve: engines are {', '.join(ENGINES)}; found {engine!r}.")


def by_cvxpy(
    layer: AbstractConvexLayer, z: Real[ArrayLike, "*shape"], **options: Any
) -> Float[Array, "*shape"]:
    """The argmax by cvxpy, with Clarabel unless `solver` says otherwise."""
    import jax.numpy as jnp

    problem = layer.as_cvxpy(z)
    problem.solve(**{"solver": "CLARABEL", **options})
    if problem.status not in ("optimal", "optimal_inaccurate"):
        raise RuntimeError(
            f"solve: cvxpy ended with status {problem.status!r} for {type(layer).__name__}. "
            "Scale the logits, or try another `solver`."
        )
    (p,) = (v for v in problem.variables() if v.name() == "p")
    dtype = checked(type(layer).__name__, z).dtype
    return jnp.asarray(np.asarray(p.value).reshape(np.shape(z)), dtype)

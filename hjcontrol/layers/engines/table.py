r"""One program, several engines, one answer: which of them a kind of program has.

    closed   the formula, in JAX: jit, vmap, jvp, grad, hessian
    newton   Newton on the dual, in log variables where multipliers are positive, in JAX: jit, vmap
    cvxpy    `layer.as_cvxpy(z)` by any installed solver: on the host, one sample
    jaxopt   a referee: projections, mirror descent, on the host's terms

Every layer has `closed` and `cvxpy`. A layer names its kind of program (`layer.kind`), and the row of
`KINDS` with that name has the other two engines and the implicit derivative. A new layer of a kind that
exists adds nothing here; a new kind is one row.

An engine that a layer does not have is refused by name, with the reason, never replaced by another:
see `lacks`. (Under a trace, where `eps = 0` cannot be seen, `newton` gives the closed answer there.)
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Real

from hjcontrol._ground.arguments import admits
from hjcontrol._ground.concrete import known_to_fail
from hjcontrol.deformation.soft_maximum import checked
from hjcontrol.layers.engines.by_kind import (
    ball_implicit,
    ball_newton,
    box_implicit,
    box_newton,
    hull_implicit,
    hull_newton,
    rows_implicit,
    rows_newton,
    section_implicit,
    share_implicit,
    sum_implicit,
    sum_newton,
    threshold_implicit,
    threshold_newton,
)
from hjcontrol.layers.engines.jaxopt import (
    by_rows,
    capped,
    descended_on_simplex,
    isotonic,
    mirrored,
    projected_on_ball,
    projected_on_box,
    projected_on_simplex,
    shared,
    thresholded,
    thresholded_by_group,
)
from hjcontrol.layers.layer import AbstractConvexLayer

ENGINES = ("closed", "newton", "cvxpy", "jaxopt")
PIECEWISE = {
    "newton": "at `eps = 0` the dual is piecewise linear, where Newton has no step. Use `closed` or "
    "`cvxpy`, or `eps > 0`."
}
UNBOUNDED = PIECEWISE | {
    "jaxopt": "at `eps = 0` the value is 0 or +inf, and nothing is left to iterate on. Use `closed`."
}
FACTORIAL = PIECEWISE | {
    "jaxopt": "at `eps = 0` it is a linear program of n! vertices. Use `closed` or `cvxpy`."
}


class Kind(NamedTuple):
    """What a kind of program has beside its closed form and its cvxpy twin; `None`: it has not.

    - `newton`: `(layer, z, **options)` to the argmax, by a fixed number of steps that can be
      differentiated as they stand (the route `unrolled`).
    - `implicit`: `(layer, z, g)` to `g` pulled back through the KKT system at the solution.
    - `jaxopt`: `(layer, z, **options)` to the argmax, by the referee.
    - `hard`: why an engine has no meaning at `eps = 0`, by engine.
    """

    newton: Callable[..., Array] | None = None
    implicit: Callable[[Any, Array, Array], Array] | None = None
    jaxopt: Callable[..., Array] | None = None
    hard: Mapping[str, str] = PIECEWISE


_SUM = (sum_newton, sum_implicit)
_THRESHOLD = (threshold_newton, threshold_implicit)
KINDS: dict[str, Kind] = {
    "simplex, entropy": Kind(*_SUM, mirrored),
    "simplex, quadratic": Kind(*_SUM, projected_on_simplex),
    "simplex, power": Kind(*_SUM, descended_on_simplex),
    "capped simplex": Kind(*_SUM, capped),
    "box, entropy": Kind(box_newton, share_implicit, shared),
    "box, quadratic": Kind(box_newton, box_implicit, projected_on_box),
    "section": Kind(None, section_implicit),
    "rows": Kind(rows_newton, rows_implicit, by_rows),
    "ball": Kind(ball_newton, ball_implicit, projected_on_ball, {}),
    "threshold": Kind(*_THRESHOLD, thresholded, UNBOUNDED),
    "group threshold": Kind(*_THRESHOLD, thresholded_by_group, UNBOUNDED),
    "permutahedron": Kind(hull_newton, hull_implicit, isotonic, FACTORIAL),
}


def kind_of(layer: Any) -> Kind:
    """The row of `layer`'s kind; one without engines for a layer that names none.

    **Raises:** `ValueError` for a kind that has no row.
    """
    name = getattr(layer, "kind", None)
    if name is not None and name not in KINDS:
        raise ValueError(
            f"{type(layer).__name__}: its kind must be one of {', '.join(KINDS)}; found {name!r}. "
            "Add a row to `hjcontrol.layers.engines.KINDS`."
        )
    return Kind() if name is None else KINDS[name]


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
    if engine not in ENGINES:
        raise ValueError(f"argmax: engines are {', '.join(ENGINES)}; found {engine!r}.")
    why = lacks(layer, engine)
    if why is not None:
        raise ValueError(f"argmax: {type(layer).__name__} has no engine `{engine}`: {why}")
    if engine == "cvxpy":
        return _by_cvxpy(layer, z, **options)
    return getattr(kind_of(layer), engine)(layer, checked(type(layer).__name__, z), **options)


def lacks(layer: AbstractConvexLayer, engine: str) -> str | None:
    """Why `layer`, at its temperature, has no such engine; `None` if it has, or for a traced `eps`."""
    if engine in ("closed", "cvxpy"):
        return None
    kind = kind_of(layer)
    if getattr(kind, engine, None) is None:
        return "its kind of program has none. Use `closed` or `cvxpy`."
    return kind.hard.get(engine) if known_to_fail(layer.eps > 0) else None


def _by_cvxpy(
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

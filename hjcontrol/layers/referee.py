r"""jaxopt as a referee: the same programs by somebody else's code.

    projections   simplex, box, l2 ball, soft threshold        eps > 0, Euclidean regulariser
    mirror        mirror descent on the simplex                Shannon
    osqp          BoxOSQP on the quadratic or linear program   any of the above, and eps = 0

jaxopt is no longer developed and says so on import; it is met here, when asked for, and nowhere else.
"""

import functools
import warnings
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Real

from hjcontrol.layers.box import AbstractBoxLayer
from hjcontrol.layers.entmax import Sparsemax
from hjcontrol.layers.layer import AbstractConvexLayer, checked
from hjcontrol.layers.prox import GroupSoftThreshold, L2Ball, SoftThreshold
from hjcontrol.layers.regulariser import Quadratic
from hjcontrol.layers.simplex import AbstractSimplexLayer
from hjcontrol.layers.softmax import Softmax


def referee(
    layer: AbstractConvexLayer, z: Real[ArrayLike, "*shape"], **options: Any
) -> Float[Array, "*shape"]:
    """The argmax of `layer` at `z` by jaxopt; `options` go to jaxopt's solver, if one is used.

    **Raises:** `ValueError` for a layer that jaxopt has no program for.
    """
    return _answer(layer, checked(type(layer).__name__, z), **options)


@functools.singledispatch
def _answer(layer: Any, z: Array, **options: Any) -> Array:
    raise ValueError(
        f"solve: jaxopt has no program for {type(layer).__name__}. Engines `closed` and `cvxpy` do."
    )


def _jaxopt() -> Any:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="JAXopt is no longer maintained")
        warnings.filterwarnings("ignore", category=DeprecationWarning, module="jaxopt")
        import jaxopt
    return jaxopt


def _warm(layer: Any) -> Array:
    eps = float(layer.eps)
    if eps <= 0:
        raise ValueError(
            f"solve: jaxopt projects for `eps > 0` only; found 0 in {type(layer).__name__}."
        )
    return layer.eps


@_answer.register(Sparsemax)
def _(layer: Sparsemax, z: Array) -> Array:
    return _jaxopt().projection.projection_simplex(z / _warm(layer))


@_answer.register(L2Ball)
def _(layer: L2Ball, z: Array) -> Array:
    return _jaxopt().projection.projection_l2_ball(z / _warm(layer), layer.radius)


@_answer.register(SoftThreshold)
def _(layer: SoftThreshold, z: Array) -> Array:
    return _jaxopt().prox.prox_lasso(z, layer.lam) / _warm(layer)


@_answer.register(GroupSoftThreshold)
def _(layer: GroupSoftThreshold, z: Array) -> Array:
    one = lambda row: _jaxopt().prox.prox_group_lasso(row, layer.lam)
    return jnp.stack([one(row) for row in z]) / _warm(layer)


@_answer.register(AbstractBoxLayer)
def _(layer: AbstractBoxLayer, z: Array) -> Array:
    if not isinstance(layer.phi, Quadratic):
        raise ValueError(f"solve: jaxopt has no program for {type(layer).__name__}.")
    bounds = layer.phi.lo, layer.phi.hi
    return _jaxopt().projection.projection_box(z / _warm(layer), bounds)


@_answer.register(AbstractSimplexLayer)
def _(layer: AbstractSimplexLayer, z: Array, **options: Any) -> Array:
    if not isinstance(layer.phi, Quadratic):
        raise ValueError(f"solve: jaxopt has no program for {type(layer).__name__}.")
    n = z.shape[0]
    A = jnp.concatenate([jnp.ones((1, n)), jnp.eye(n)])
    lower = jnp.concatenate([jnp.array([float(layer.total)]), jnp.zeros(n)])
    upper = jnp.concatenate([jnp.array([float(layer.total)]), jnp.full(n, layer.cap)])
    solver = _jaxopt().BoxOSQP(**{"tol": 1e-10, "maxiter": 20000, **options})
    Q = jnp.eye(n) * layer.eps
    found = solver.run(params_obj=(Q, -z), params_eq=A, params_ineq=(lower, upper))
    return found.params.primal[0]


@_answer.register(Softmax)
def _(layer: Softmax, z: Array, **options: Any) -> Array:
    eps = _warm(layer)
    cost = lambda p: -jnp.sum(p * z) + eps * jnp.sum(p * jnp.log(p))
    # Entropic mirror map at step 1/(2 eps): each iteration halves the distance in log variables.
    solver = _jaxopt().MirrorDescent(
        fun=cost,
        projection_grad=_entropic,
        **{"stepsize": 0.5 / eps, "maxiter": 200, "tol": 1e-14, **options},
    )
    return solver.run(jnp.full(z.shape, 1.0 / z.size), None).params


def _entropic(p: Array, gradient: Array, step: Array, _: Any) -> Array:
    return jax.nn.softmax(jnp.log(p) - step * gradient)

r"""jaxopt as a referee: the same programs by somebody else's code.

    projections         simplex, box, l2 ball and sphere, soft thresholds      Euclidean regulariser
    isotonic            permutahedron, by pool adjacent violators on the host
    mirror descent      simplex, rows of it, a share and its complement        entropies
    projected gradient  simplex                                                Tsallis
    osqp                capped simplex; at eps = 0 the linear program of a simplex or a box

At `eps = 0` a linear program's answer is unique only without ties. jaxopt is no longer developed and
says so on import; it is met here, when asked for, and nowhere else.
"""

import functools
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Real

from hjcontrol.layers.box import AbstractBoxLayer
from hjcontrol.layers.capped import CappedSimplex
from hjcontrol.layers.entmax import Entmax, Sparsemax
from hjcontrol.layers.layer import AbstractConvexLayer, checked
from hjcontrol.layers.permutahedron import Permutahedron
from hjcontrol.layers.prox import BallProjection, GroupSoftThreshold, SoftThreshold
from hjcontrol.layers.regulariser import BinaryEntropy
from hjcontrol.layers.rows import RowSoftmax
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
        f"argmax: jaxopt has no program for {type(layer).__name__}. Engines `closed` and `cvxpy` do."
    )


def _jaxopt() -> Any:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="JAXopt is no longer maintained")
        warnings.filterwarnings("ignore", category=DeprecationWarning, module="jaxopt")
        import jaxopt
    return jaxopt


def _quadratic(Q: Array, z: Array, A: Array, bounds: tuple[Array, Array], **options: Any) -> Array:
    """`argmax z.p - p.Q p/2` over `lower <= A p <= upper`."""
    solver = _jaxopt().BoxOSQP(**{"tol": 1e-10, "maxiter": 20000, **options})
    return solver.run(params_obj=(Q, -z), params_eq=A, params_ineq=bounds).params.primal[0]


def _section(z: Array, eps: Any, total: float | int, cap: float, **options: Any) -> Array:
    """Over `0 <= p <= cap, sum p = total`."""
    n = z.shape[0]
    A = jnp.concatenate([jnp.ones((1, n)), jnp.eye(n)])
    ends = jnp.array([float(total)])
    bounds = jnp.concatenate([ends, jnp.zeros(n)]), jnp.concatenate([ends, jnp.full(n, cap)])
    return _quadratic(eps * jnp.eye(n), z, A, bounds, **options)


def _mirror(z: Array, eps: Array, **options: Any) -> Array:
    """Shannon's entropy on the simplex."""
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


@_answer.register(Sparsemax)
def _(layer: Sparsemax, z: Array, **options: Any) -> Array:
    if not layer.eps > 0:
        return _section(z, 0.0, 1.0, 1.0, **options)
    return _jaxopt().projection.projection_simplex(z / layer.eps)


@_answer.register(CappedSimplex)
def _(layer: CappedSimplex, z: Array, **options: Any) -> Array:
    return _section(z, layer.eps, layer.total, layer.cap, **options)


@_answer.register(Entmax)
def _(layer: Entmax, z: Array, **options: Any) -> Array:
    if not layer.eps > 0:
        return _section(z, 0.0, 1.0, 1.0, **options)
    jaxopt = _jaxopt()
    cost = lambda p: -jnp.sum(p * z) + layer.eps * jnp.sum(layer.phi.value(p))
    solver = jaxopt.ProjectedGradient(
        fun=cost,
        projection=jaxopt.projection.projection_simplex,
        **{"maxiter": 5000, "tol": 1e-13, **options},
    )
    return solver.run(jnp.full(z.shape, 1.0 / z.size)).params


@_answer.register(Softmax)
def _(layer: Softmax, z: Array, **options: Any) -> Array:
    if not layer.eps > 0:
        return _section(z, 0.0, 1.0, 1.0, **options)
    return _mirror(z, layer.eps, **options)


@_answer.register(RowSoftmax)
def _(layer: RowSoftmax, z: Array, **options: Any) -> Array:
    return jnp.stack([_answer(Softmax(layer.eps), row, **options) for row in z])


@_answer.register(AbstractBoxLayer)
def _(layer: AbstractBoxLayer, z: Array, **options: Any) -> Array:
    lo, hi = layer.phi.lo, layer.phi.hi
    if not layer.eps > 0:
        n, flat = z.size, z.ravel()
        ends = jnp.full(n, lo), jnp.full(n, hi)
        return _quadratic(jnp.zeros((n, n)), flat, jnp.eye(n), ends, **options).reshape(z.shape)
    if isinstance(layer.phi, BinaryEntropy):
        pairs = (hi - lo) * jnp.stack([z.ravel(), 0.0 * z.ravel()], axis=1)
        share = jnp.stack([_mirror(pair, layer.eps, **options)[0] for pair in pairs])
        return (lo + (hi - lo) * share).reshape(z.shape)
    return _jaxopt().projection.projection_box(z / layer.eps, (lo, hi))


@_answer.register(BallProjection)
def _(layer: BallProjection, z: Array) -> Array:
    projection = _jaxopt().projection
    if not layer.eps > 0:
        return projection.projection_l2_sphere(z, layer.radius)
    return projection.projection_l2_ball(z / layer.eps, layer.radius)


@_answer.register(SoftThreshold)
def _(layer: SoftThreshold, z: Array) -> Array:
    return _jaxopt().prox.prox_lasso(z, layer.lam) / layer.eps


@_answer.register(GroupSoftThreshold)
def _(layer: GroupSoftThreshold, z: Array) -> Array:
    one = lambda row: _jaxopt().prox.prox_group_lasso(row, layer.lam)
    return jnp.stack([one(row) for row in z]) / layer.eps


@_answer.register(Permutahedron)
def _(layer: Permutahedron, z: Array) -> Array:
    from scipy.optimize import isotonic_regression  # jaxopt's own fails where numba is installed

    order, w = np.argsort(-np.asarray(z)), -np.sort(-np.asarray(layer.anchors))
    y = np.asarray(z / layer.eps)[order]
    p = np.empty_like(y)
    p[order] = y - isotonic_regression(y - w, increasing=False).x
    return jnp.asarray(p)

r"""jaxopt as a referee: the same programs by somebody else's code.

    projections         simplex, box, l2 ball and sphere, soft thresholds      Euclidean regulariser
    isotonic            permutahedron, by pool adjacent violators on the host
    mirror descent      simplex, rows of it, a share and its complement        entropies
    projected gradient  simplex                                                Tsallis
    osqp                capped simplex; at eps = 0 the linear program of a simplex or a box

At `eps = 0` a linear program's answer is unique only without ties. jaxopt is no longer developed and
says so on import; it is met here, when asked for, and nowhere else.
"""

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from hjcontrol._ground.third_party import needs


def _jaxopt() -> Any:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="JAXopt is no longer maintained")
        warnings.filterwarnings("ignore", category=DeprecationWarning, module="jaxopt")
        needs("The engine `jaxopt`", "jaxopt")
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


def _hard_or(soft: Any, layer: Any, z: Array, **options: Any) -> Array:
    """The linear program of a simplex at `eps = 0`, else `soft()`."""
    return soft() if layer.eps > 0 else _section(z, 0.0, 1.0, 1.0, **options)


def projected_on_simplex(layer: Any, z: Array, **options: Any) -> Array:
    """The Euclidean projection of `z/eps`."""
    soft = lambda: _jaxopt().projection.projection_simplex(z / layer.eps)
    return _hard_or(soft, layer, z, **options)


def capped(layer: Any, z: Array, **options: Any) -> Array:
    """A quadratic program over `0 <= p <= cap, sum p = total`."""
    return _section(z, layer.eps, layer.total, layer.cap, **options)


def descended_on_simplex(layer: Any, z: Array, **options: Any) -> Array:
    """Projected gradient steps on the simplex, for any regulariser."""
    return _hard_or(lambda: _descended(layer, z, **options), layer, z, **options)


def _descended(layer: Any, z: Array, **options: Any) -> Array:
    jaxopt = _jaxopt()
    cost = lambda p: -jnp.sum(p * z) + layer.eps * jnp.sum(layer.phi.value(p))
    solver = jaxopt.ProjectedGradient(
        fun=cost,
        projection=jaxopt.projection.projection_simplex,
        **{"maxiter": 5000, "tol": 1e-13, **options},
    )
    return solver.run(jnp.full(z.shape, 1.0 / z.size)).params


def mirrored(layer: Any, z: Array, **options: Any) -> Array:
    """Mirror descent on the simplex."""
    return _hard_or(lambda: _mirror(z, layer.eps, **options), layer, z, **options)


def by_rows(layer: Any, z: Array, **options: Any) -> Array:
    """Mirror descent on each row's simplex."""
    return jnp.stack([mirrored(layer.row, row, **options) for row in z])


def _corner(layer: Any, z: Array, **options: Any) -> Array:
    """The linear program of a box."""
    n, flat = z.size, z.ravel()
    ends = jnp.full(n, layer.phi.lo), jnp.full(n, layer.phi.hi)
    return _quadratic(jnp.zeros((n, n)), flat, jnp.eye(n), ends, **options).reshape(z.shape)


def shared(layer: Any, z: Array, **options: Any) -> Array:
    """Mirror descent on a share and its complement, entry by entry."""
    lo, hi = layer.phi.lo, layer.phi.hi
    if not layer.eps > 0:
        return _corner(layer, z, **options)
    pairs = (hi - lo) * jnp.stack([z.ravel(), 0.0 * z.ravel()], axis=1)
    share = jnp.stack([_mirror(pair, layer.eps, **options)[0] for pair in pairs])
    return (lo + (hi - lo) * share).reshape(z.shape)


def projected_on_box(layer: Any, z: Array, **options: Any) -> Array:
    """The projection of `z/eps` on a box."""
    if not layer.eps > 0:
        return _corner(layer, z, **options)
    return _jaxopt().projection.projection_box(z / layer.eps, (layer.phi.lo, layer.phi.hi))


def projected_on_ball(layer: Any, z: Array) -> Array:
    """The projection of `z/eps` on a ball; on the sphere at `eps = 0`."""
    projection = _jaxopt().projection
    if not layer.eps > 0:
        return projection.projection_l2_sphere(z, layer.radius)
    return projection.projection_l2_ball(z / layer.eps, layer.radius)


def thresholded(layer: Any, z: Array) -> Array:
    """The prox of the 1-norm."""
    return _jaxopt().prox.prox_lasso(z, layer.lam) / layer.eps


def thresholded_by_group(layer: Any, z: Array) -> Array:
    """The prox of a sum of norms of rows."""
    one = lambda row: _jaxopt().prox.prox_group_lasso(row, layer.lam)
    return jnp.stack([one(row) for row in z]) / layer.eps


def isotonic(layer: Any, z: Array) -> Array:
    """The projection on the permutahedron by SciPy's isotonic regression."""
    from scipy.optimize import isotonic_regression  # jaxopt's own fails where numba is installed

    order, w = np.argsort(-np.asarray(z)), -np.sort(-np.asarray(layer.anchors))
    y = np.asarray(z / layer.eps)[order]
    p = np.empty_like(y)
    p[order] = y - isotonic_regression(y - w, increasing=False).x
    return jnp.asarray(p)

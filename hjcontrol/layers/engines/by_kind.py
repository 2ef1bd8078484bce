r"""Newton's answer and the implicit derivative, one pair of functions per kind of program.

    newton      the argmax by an iteration with a fixed number of steps, to be differentiated as it stands
    implicit    `g` pulled back through the KKT system at the solution, a linear solve

Neither looks at the layer's own rule: curvatures come from differentiating phi', active sets from
multipliers and slacks.

At `eps = 0` a layer is piecewise constant (a ball and the thresholds apart): its dual is piecewise
linear, Newton has no step there, and under a trace `newton` gives the closed answer as a constant.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from hjcontrol.layers.engines.active_set import onto_hull, pulled_onto_hull
from hjcontrol.layers.engines.newton import bordered, bounded, constrained, free, softness
from hjcontrol.layers.engines.radial import onto_ball, past_ball, pulled_onto
from hjcontrol.layers.softmax import Softmax


def _warm(layer: Any, z: Array) -> tuple[Array, Array]:
    """`eps`, and the same with 1 in place of 0."""
    eps = layer.eps.astype(z.dtype)
    return eps, jnp.where(eps > 0, eps, 1.0)


# ------------------------------------------------------------------------------------ one sum, or none


def sum_newton(layer: Any, z: Array, **options: Any) -> Array:
    """Entries that share a sum: the multiplier of `layer.total`."""
    eps, warm = _warm(layer, z)
    soft = constrained(layer.phi, layer.total, z, warm, **options)
    return jnp.where(eps > 0, soft, jax.lax.stop_gradient(layer(z)))


def sum_implicit(layer: Any, z: Array, g: Array) -> Array:
    """Entries that share a sum."""
    eps, warm = _warm(layer, z)
    w = softness(layer.phi, constrained(layer.phi, layer.total, z, warm))
    return jnp.where(eps > 0, bordered(w, g, warm), 0.0)


def box_newton(layer: Any, z: Array, **options: Any) -> Array:
    """Entries that are free of each other."""
    eps, warm = _warm(layer, z)
    soft = free(layer.phi, z, warm, **options)
    return jnp.where(eps > 0, soft, jax.lax.stop_gradient(layer(z)))


def box_implicit(layer: Any, z: Array, g: Array) -> Array:
    """Entries that are free of each other, with bounds that may be active."""
    eps, warm = _warm(layer, z)
    pulled = bounded(layer.phi, z.ravel() / warm, g.ravel() / warm)
    return jnp.where(eps > 0, pulled.reshape(z.shape), 0.0)


def share_implicit(layer: Any, z: Array, g: Array) -> Array:
    """The binary entropy: a share and its complement form a simplex of two."""
    eps, warm = _warm(layer, z)
    width = layer.phi.hi - layer.phi.lo
    pair = lambda v, c: (
        width
        * sum_implicit(Softmax(warm), jnp.stack([width * v, 0.0 * v]), jnp.stack([c, 0.0 * c]))
    )
    pulled = jax.vmap(lambda v, c: width * pair(v, c)[0])(z.ravel(), g.ravel())
    return jnp.where(eps > 0, pulled.reshape(z.shape), 0.0)


def section_implicit(layer: Any, z: Array, g: Array) -> Array:
    """Entries in a box that share a weighted sum, or none: one dense KKT system. Its curvatures are
    phi'' where an entry is strictly inside; elsewhere the entry is held."""
    eps, warm = _warm(layer, z)
    n, p = z.shape[0], layer(z)
    a = jnp.broadcast_to(layer.a.astype(z.dtype), z.shape)
    inside = (p > layer.lo) & (p < layer.hi)
    bent = jax.vmap(jax.grad(layer.phi.slope))(jnp.where(inside, p, 0.5))
    stiff = jnp.where(inside, warm * bent, 1.0)
    if layer.total is None:
        return jnp.where(inside & (eps > 0), g / stiff, 0.0)
    border = jnp.where(inside, a, 0.0)
    best = jnp.argmax(border**2 / stiff)
    top = border[best]
    some = top != 0
    # x: the change of p; the row of the sum in units of its largest entry; lambda from that entry.
    pull = jnp.where(inside, g - a * (g[best] / a[best]), 0.0)
    pull = jnp.where(jnp.arange(n) == best, 0.0, pull)
    scale = jnp.sqrt(jnp.where(inside, 1.0 / stiff, 0.0))
    row = border * scale
    whole = jnp.sum(row**2)
    corner = jnp.where(some, 0.0, 1.0).astype(z.dtype)
    row = row / jnp.where(some, jnp.sqrt(whole), 1.0)
    matrix = jnp.block([[jnp.eye(n, dtype=z.dtype), row[:, None]], [row[None], corner[None, None]]])
    right = jnp.concatenate([pull * scale, jnp.zeros(1, z.dtype)])
    x = jnp.linalg.solve(matrix, right)[:n] * scale
    return jnp.where(eps > 0, x, 0.0)


def rows_newton(layer: Any, z: Array, **options: Any) -> Array:
    """A simplex per row."""
    return _by_rows(lambda row: sum_newton(layer.row, row, **options), z)


def rows_implicit(layer: Any, z: Array, g: Array) -> Array:
    """A simplex per row."""
    return _by_rows(lambda row, c: sum_implicit(layer.row, row, c), z, g)


def _by_rows(rule: Any, z: Array, *others: Array) -> Array:
    """`rule` of each row; 0 in a row that is masked altogether."""
    some = jnp.any(~jnp.isneginf(z), axis=-1, keepdims=True)
    return jnp.where(some, jax.vmap(rule)(jnp.where(some, z, 0.0), *others), 0.0)


# ------------------------------------------------------------------------------------ gauges


def ball_newton(layer: Any, z: Array, **options: Any) -> Array:
    """The projection of `z/eps` on a Euclidean ball."""
    rho = layer.radius.astype(z.dtype)
    return onto_ball(z.ravel(), rho, layer.eps.astype(z.dtype), **options).reshape(z.shape)


def ball_implicit(layer: Any, z: Array, g: Array) -> Array:
    """The projection of `z/eps` on a Euclidean ball."""
    eps, rho = layer.eps.astype(z.dtype), layer.radius.astype(z.dtype)
    return pulled_onto(z.ravel(), rho, eps, g.ravel()).reshape(z.shape)


def _groups(layer: Any, z: Array) -> Array:
    """One norm per row: each entry is a group, unless the gauge takes norms of rows."""
    return z if layer.gauge.rows else z.reshape(-1, 1)


def threshold_newton(layer: Any, z: Array, **options: Any) -> Array:
    """The prox of a sum of norms, one per group."""
    eps, warm = _warm(layer, z)
    lam = layer.lam.astype(z.dtype)
    past = jax.vmap(lambda row: past_ball(row, lam, **options))(_groups(layer, z))
    return jnp.where(eps > 0, past.reshape(z.shape) / warm, jax.lax.stop_gradient(layer(z)))


def threshold_implicit(layer: Any, z: Array, g: Array) -> Array:
    """The prox of a sum of norms, one per group."""
    eps, warm = _warm(layer, z)
    lam, one = layer.lam.astype(z.dtype), jnp.ones((), z.dtype)
    left = jax.vmap(lambda row, c: c - pulled_onto(row, lam, one, c))
    pulled = left(_groups(layer, z), _groups(layer, g)).reshape(z.shape)
    return jnp.where(eps > 0, pulled / warm, 0.0)


def hull_newton(layer: Any, z: Array, **options: Any) -> Array:
    """The projection of `z/eps` on the permutahedron of `layer.anchors`."""
    eps, warm = _warm(layer, z)
    soft = onto_hull(z / warm, layer.anchors.astype(z.dtype), **options)
    return jnp.where(eps > 0, soft, jax.lax.stop_gradient(layer(z)))


def hull_implicit(layer: Any, z: Array, g: Array) -> Array:
    """The projection of `z/eps` on the permutahedron of `layer.anchors`."""
    eps, warm = _warm(layer, z)
    pulled = pulled_onto_hull(z / warm, layer.anchors.astype(z.dtype), g) / warm
    return jnp.where(eps > 0, pulled, 0.0)

r"""Routes to the derivative of an argmax. Each takes a layer, logits `z` and a cotangent `g`.

    closed      Danskin: the layer's own rule
    implicit    the KKT system at the solution, differentiated and solved by lineax
    unrolled    plain differentiation through the iterations of an algorithm
    differences central, with an estimate of their own error

`implicit` and `unrolled` are declared family by family with `register`. Neither looks at the rule that
`closed` uses: curvatures come from differentiating phi', active sets from multipliers and slacks.

At `eps = 0` a layer is piecewise constant (`BallProjection` and the thresholds apart): its dual is
piecewise linear, Newton has no step there, and under a trace `unrolled` gives the closed answer as a
constant.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from hjcontrol.layers.active_set import onto_hull, pulled_onto_hull
from hjcontrol.layers.box import AbstractBoxLayer
from hjcontrol.layers.layer import AbstractConvexLayer
from hjcontrol.layers.newton import bordered, bounded, constrained, free, softness
from hjcontrol.layers.permutahedron import Permutahedron
from hjcontrol.layers.prox import BallProjection, GroupSoftThreshold, SoftThreshold
from hjcontrol.layers.radial import onto_ball, past_ball, pulled_onto
from hjcontrol.layers.regulariser import BinaryEntropy
from hjcontrol.layers.rows import RowSoftmax
from hjcontrol.layers.simplex import AbstractSimplexLayer
from hjcontrol.layers.softmax import Softmax


def closed(layer: AbstractConvexLayer, z: Array, g: Array) -> Array:
    """By the layer's own differentiation rule, in reverse mode."""
    return jax.vjp(layer, z)[1](g)[0]


@functools.singledispatch
def unrolled(layer: Any, z: Array, **options: Any) -> Array:
    """The argmax by an iteration with a fixed number of steps, to be differentiated as it stands."""
    raise ValueError(f"{type(layer).__name__} has no engine `newton`.")


@functools.singledispatch
def implicit(layer: Any, z: Array, g: Array) -> Array:
    """`g` pulled back through the KKT system at the solution."""
    raise ValueError(f"{type(layer).__name__} has no implicit route.")


# ------------------------------------------------------------------------------------ one sum, or none


def _warm(layer: AbstractConvexLayer, z: Array) -> tuple[Array, Array]:
    """`eps`, and the same with 1 in place of 0."""
    eps = layer.eps.astype(z.dtype)
    return eps, jnp.where(eps > 0, eps, 1.0)


@unrolled.register(Softmax)
@unrolled.register(AbstractSimplexLayer)
def _(layer: Any, z: Array, **options: Any) -> Array:
    eps, warm = _warm(layer, z)
    soft = constrained(layer.phi, layer.total, z, warm, **options)
    return jnp.where(eps > 0, soft, jax.lax.stop_gradient(layer(z)))


@implicit.register(Softmax)
@implicit.register(AbstractSimplexLayer)
def _(layer: Any, z: Array, g: Array) -> Array:
    eps, warm = _warm(layer, z)
    w = softness(layer.phi, constrained(layer.phi, layer.total, z, warm))
    return jnp.where(eps > 0, bordered(w, g, warm), 0.0)


@unrolled.register(AbstractBoxLayer)
def _(layer: AbstractBoxLayer, z: Array, **options: Any) -> Array:
    eps, warm = _warm(layer, z)
    soft = free(layer.phi, z, warm, **options)
    return jnp.where(eps > 0, soft, jax.lax.stop_gradient(layer(z)))


@implicit.register(AbstractBoxLayer)
def _(layer: AbstractBoxLayer, z: Array, g: Array) -> Array:
    eps, warm = _warm(layer, z)
    width = layer.phi.hi - layer.phi.lo
    if isinstance(layer.phi, BinaryEntropy):  # a share and its complement: a simplex of two
        pair = lambda v, c: (
            width
            * implicit(Softmax(warm), jnp.stack([width * v, 0.0 * v]), jnp.stack([c, 0.0 * c]))
        )
        pulled = jax.vmap(lambda v, c: width * pair(v, c)[0])(z.ravel(), g.ravel())
    else:
        pulled = bounded(layer.phi, z.ravel() / warm, g.ravel() / warm)
    return jnp.where(eps > 0, pulled.reshape(z.shape), 0.0)


@unrolled.register(RowSoftmax)
def _(layer: RowSoftmax, z: Array, **options: Any) -> Array:
    return _by_rows(lambda row: unrolled(Softmax(layer.eps), row, **options), z)


@implicit.register(RowSoftmax)
def _(layer: RowSoftmax, z: Array, g: Array) -> Array:
    return _by_rows(lambda row, c: implicit(Softmax(layer.eps), row, c), z, g)


def _by_rows(rule: Any, z: Array, *others: Array) -> Array:
    """`rule` of each row; 0 in a row that is masked altogether."""
    some = jnp.any(~jnp.isneginf(z), axis=-1, keepdims=True)
    return jnp.where(some, jax.vmap(rule)(jnp.where(some, z, 0.0), *others), 0.0)


# ------------------------------------------------------------------------------------ gauges


@unrolled.register(BallProjection)
def _(layer: BallProjection, z: Array, **options: Any) -> Array:
    rho = layer.radius.astype(z.dtype)
    return onto_ball(z.ravel(), rho, layer.eps.astype(z.dtype), **options).reshape(z.shape)


@implicit.register(BallProjection)
def _(layer: BallProjection, z: Array, g: Array) -> Array:
    eps, rho = layer.eps.astype(z.dtype), layer.radius.astype(z.dtype)
    return pulled_onto(z.ravel(), rho, eps, g.ravel()).reshape(z.shape)


def _groups(layer: SoftThreshold | GroupSoftThreshold, z: Array) -> Array:
    return z.reshape(-1, 1) if isinstance(layer, SoftThreshold) else z


@unrolled.register(SoftThreshold)
@unrolled.register(GroupSoftThreshold)
def _(layer: SoftThreshold | GroupSoftThreshold, z: Array, **options: Any) -> Array:
    eps, warm = _warm(layer, z)
    lam = layer.lam.astype(z.dtype)
    past = jax.vmap(lambda row: past_ball(row, lam, **options))(_groups(layer, z))
    return jnp.where(eps > 0, past.reshape(z.shape) / warm, jax.lax.stop_gradient(layer(z)))


@implicit.register(SoftThreshold)
@implicit.register(GroupSoftThreshold)
def _(layer: SoftThreshold | GroupSoftThreshold, z: Array, g: Array) -> Array:
    eps, warm = _warm(layer, z)
    lam, one = layer.lam.astype(z.dtype), jnp.ones((), z.dtype)
    left = jax.vmap(lambda row, c: c - pulled_onto(row, lam, one, c))
    pulled = left(_groups(layer, z), _groups(layer, g)).reshape(z.shape)
    return jnp.where(eps > 0, pulled / warm, 0.0)


@unrolled.register(Permutahedron)
def _(layer: Permutahedron, z: Array, **options: Any) -> Array:
    eps, warm = _warm(layer, z)
    soft = onto_hull(z / warm, layer.anchors.astype(z.dtype), **options)
    return jnp.where(eps > 0, soft, jax.lax.stop_gradient(layer(z)))


@implicit.register(Permutahedron)
def _(layer: Permutahedron, z: Array, g: Array) -> Array:
    eps, warm = _warm(layer, z)
    pulled = pulled_onto_hull(z / warm, layer.anchors.astype(z.dtype), g) / warm
    return jnp.where(eps > 0, pulled, 0.0)


# ------------------------------------------------------------------------------------ differences


def differences(
    layer: AbstractConvexLayer, z: Float[Array, "*shape"], g: Float[Array, "*shape"], rungs: int = 8
) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
    """Central differences of `g.layer(z)`, extrapolated, at the step whose estimated error is least;
    and that estimate. Steps fall by fours from a tenth of the temperature."""
    eps = jnp.asarray(layer.eps, z.dtype).ravel()
    scale = jnp.where(eps[0] > 0, eps[0], 1.0)
    unit = jnp.finfo(z.dtype).eps
    flat, weight = z.ravel(), g.ravel()

    def along(j: Array, h: Array) -> tuple[Array, Array]:
        bump = jnp.where(jnp.arange(flat.size) == j, h, 0.0)
        up, down = flat + bump, flat - bump
        width = up[j] - down[j]  # as represented
        there, here = layer(up.reshape(z.shape)).ravel(), layer(down.reshape(z.shape)).ravel()
        slope = jnp.sum(jnp.where(weight == 0, 0.0, weight * (there - here))) / width
        size = jnp.sum(jnp.abs(weight) * (jnp.abs(there) + jnp.abs(here)))
        # The answers inherit the roundoff of their argument, magnified by the layer's own slope.
        noise = unit * size * (4.0 + 4.0 * jnp.abs(flat[j]) / scale) / width
        return slope, noise

    steps = 0.1 * scale * 4.0 ** -jnp.arange(rungs, dtype=z.dtype)
    whole = jax.vmap(lambda j: jax.vmap(lambda h: along(j, h))(steps))(jnp.arange(flat.size))
    half = jax.vmap(lambda j: jax.vmap(lambda h: along(j, 0.5 * h))(steps))(jnp.arange(flat.size))
    best = (4.0 * half[0] - whole[0]) / 3.0
    error = jnp.abs(half[0] - whole[0]) + 3.0 * (whole[1] + half[1])
    k = jnp.argmin(error, axis=1)
    pick = lambda table: jnp.take_along_axis(table, k[:, None], axis=1)[:, 0].reshape(z.shape)
    return pick(best), pick(error)

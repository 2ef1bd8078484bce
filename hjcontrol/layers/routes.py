r"""Routes to the derivative of an argmax. Each takes a layer, logits `z` and a cotangent `g`.

    closed      Danskin: the layer's own rule
    implicit    the KKT system at the solution, differentiated and solved by lineax
    unrolled    plain differentiation through the iterations of an algorithm
    differences central, with an estimate of their own error

`implicit` and `unrolled` are declared family by family with `register`; a family may lack them.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from hjcontrol.layers.box import AbstractBoxLayer
from hjcontrol.layers.layer import AbstractConvexLayer
from hjcontrol.layers.newton import bordered, constrained, free
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


@unrolled.register(Softmax)
@unrolled.register(AbstractSimplexLayer)
def _(layer: Any, z: Array, **options: Any) -> Array:
    eps = layer.eps.astype(z.dtype)
    warm = jnp.where(eps > 0, eps, 1.0)
    soft = constrained(layer.phi, layer.total, z, warm, **options)
    return jnp.where(eps > 0, soft, jax.lax.stop_gradient(layer(z)))


@unrolled.register(AbstractBoxLayer)
def _(layer: AbstractBoxLayer, z: Array, **options: Any) -> Array:
    eps = layer.eps.astype(z.dtype)
    warm = jnp.where(eps > 0, eps, 1.0)
    soft = free(layer.phi, z, warm, **options)
    return jnp.where(eps > 0, soft, jax.lax.stop_gradient(layer(z)))


@implicit.register(Softmax)
@implicit.register(AbstractSimplexLayer)
def _(layer: Any, z: Array, g: Array) -> Array:
    eps = layer.eps.astype(z.dtype)
    warm = jnp.where(eps > 0, eps, 1.0)
    p = unrolled(layer, z)
    w = layer.phi.weight(jnp.zeros_like(p), p)
    return jnp.where(eps > 0, bordered(w, g, warm), 0.0)


@implicit.register(AbstractBoxLayer)
def _(layer: AbstractBoxLayer, z: Array, g: Array) -> Array:
    import lineax as lx

    eps = layer.eps.astype(z.dtype)
    warm = jnp.where(eps > 0, eps, 1.0)
    w = layer.phi.weight(z / warm, unrolled(layer, z))  # phi'' dp = dz/eps, in p = w x
    x = lx.linear_solve(lx.DiagonalLinearOperator(jnp.full(g.size, warm)), g.ravel()).value
    return jnp.where(eps > 0, w * x.reshape(g.shape), 0.0)


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

r"""HJ-prox: the proximal map as a velocity of the viscous flow, by Monte-Carlo, from values of f only.

    prox_{t f}(x) = argmin_y f(y) + |y - x|^2/(2t)
    approximately  E[y e^{-f(y)/delta}] / E[e^{-f(y)/delta}],    y ~ N(x, delta t I)
                =  x - t grad u(x, t),    u_t + |grad u|^2/2 = (delta/2) lap u,    u(., 0) = f

So the Hamiltonian is the half-quadratic one and the viscosity is delta/2: the house's pair (t, eps) for
H = |p|^2 is (t/2, delta). Two errors: the bias of delta > 0, O(delta) at a smooth point, and the noise of
self-normalised importance sampling, which grows exponentially with dimension as the weights degenerate:
the effective sample size 1/sum w^2 says when, the standard error by how much; neither sees the bias.

Exact: `prox_separable` (bisection), `prox_max_affine` (quadratic program with a gap).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from hjcontrol._ground.arguments import admits
from hjcontrol._ground.concrete import known_to_fail
from hjcontrol._ground.shown import Shown
from hjcontrol.hamilton_jacobi.dictionary import Scalar
from hjcontrol.hamilton_jacobi.max_affine import Bracket, MaxAffine, hopf_lax_max_affine
from hjcontrol.hamilton_jacobi.pairs import HalfQuadratic

CHUNK = 4096


class HJProx(Shown):
    """Estimate `point` of the smoothed prox; `standard_error` of each coordinate; how to trust them.

    `envelope` estimates `u(x, t)`. `effective_samples` lies in [1, samples]: below a few tens the
    standard error is itself unreliable.
    """

    point: Float[Array, " d"]
    standard_error: Float[Array, " d"]
    effective_samples: Float[Array, ""]
    envelope: Float[Array, ""]


@admits(t="> 0", delta="> 0", samples=">= 1")
def hj_prox(
    f: Callable[[Array], Array],
    x: Float[Array, " d"],
    t: Scalar,
    delta: Scalar,
    *,
    key: Key[Array, ""],
    samples: int,
) -> HJProx:
    """Monte-Carlo estimate of the prox of any `f`, from `samples` values, in bounded memory.

    **Raises:** `ValueError` for `t <= 0`, `delta <= 0` or `samples < 2`.
    """
    for name, a in (("t", t), ("delta", delta)):
        if jnp.ndim(a) != 0 or known_to_fail(jnp.asarray(a) > 0):
            raise ValueError(f"hj_prox: a scalar {name} > 0 is needed; found {a}.")
    if samples < 2:
        raise ValueError(f"hj_prox: at least 2 samples are needed; found {samples}.")
    t, delta = jnp.asarray(t, x.dtype), jnp.asarray(delta, x.dtype)
    size = min(CHUNK, samples)
    chunks = -(-samples // size)

    def chunk(
        carry: tuple[Array, ...], part: tuple[Array, Array]
    ) -> tuple[tuple[Array, ...], None]:
        """Running sums of w, w^2, w z, w^2 z, w^2 z^2 with the largest log-weight taken out."""
        top, sums = carry
        seed, first = part
        z = jax.random.normal(seed, (size, x.shape[0]), x.dtype)
        score = -jax.vmap(f)(x[None, :] + jnp.sqrt(delta * t) * z) / delta
        alive = (first + jnp.arange(size) < samples) & ~jnp.isnan(score)
        score = jnp.where(alive, score, -jnp.inf)
        higher = jnp.maximum(top, jnp.max(score))
        shift = jnp.where(jnp.isfinite(higher), higher, 0.0)
        fade, w = jnp.exp(top - shift), jnp.exp(score - shift)
        first_order = jnp.concatenate([jnp.ones_like(z[:, :1]), z], axis=1)
        second_order = jnp.concatenate([first_order, z**2], axis=1)
        fresh = jnp.concatenate([w @ first_order, w**2 @ second_order])
        d = z.shape[1]
        fades = jnp.concatenate([jnp.full(1 + d, fade), jnp.full(1 + 2 * d, fade**2)])
        return (higher, sums * fades + fresh), None

    d = x.shape[0]
    start = jnp.asarray(-jnp.inf, x.dtype), jnp.zeros(2 + 3 * d, x.dtype)
    parts = jax.random.split(key, chunks), size * jnp.arange(chunks)
    (top, sums), _ = jax.lax.scan(chunk, start, parts)
    return _summary(x, t, delta, samples, top, sums)


def _summary(x: Array, t: Array, delta: Array, samples: int, top: Array, sums: Array) -> HJProx:
    d = x.shape[0]
    s1, sz, s2, s2z, s2zz = jnp.split(sums, [1, 1 + d, 2 + d, 2 + 2 * d])
    s1, s2 = s1[0], s2[0]
    mean = sz / s1
    # Delta method: Var(mean) = sum w^2 (z - mean)^2 / (sum w)^2.
    variance = jnp.maximum(s2zz - 2 * mean * s2z + mean**2 * s2, 0.0) / s1**2
    width = jnp.sqrt(delta * t)
    envelope = -delta * (top + jnp.log(s1 / samples))
    return HJProx(x + width * mean, width * jnp.sqrt(variance), s1**2 / s2, envelope)


@admits(x="finite", t="> 0")
def prox_max_affine(f: MaxAffine, x: Float[Array, " d"], t: Scalar, **options: object) -> Bracket:
    """Exact prox of a max-affine function: `minimiser`, with the gap of its quadratic program.

    The distance to the true prox is at most `sqrt(2 t gap)`. Not traceable.

    **Raises:** `ValueError` as `hopf_lax_max_affine`.
    """
    return hopf_lax_max_affine(f, x, t, H=HalfQuadratic(), **options)

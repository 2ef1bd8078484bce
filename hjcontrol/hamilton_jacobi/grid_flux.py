r"""Numerical Hamiltonians: what becomes of `H(p)` where the slopes from left and right differ.

    global    h = H((p- + p+)/2) - sum_i a_i (p+_i - p-_i)/2     Lax and Friedrichs, for any H;
              a_i >= |dH/dp_i| over the box of all slopes of the data, the same at every point and time
    local     the same with a_i over the box between the two slopes at the point
    upwind    h = H(q),   q_i = max(p-_i, -p+_i, 0)              Godunov, for H even and nondecreasing
              in each |p_i|: quadratic, norms, powers, sqrt(1 + |p|^2)

All are consistent, `h(p, p) = H(p)`. `global` and `upwind` are monotone: nondecreasing in p-,
nonincreasing in p+. `local` is so for sums of convex functions of one coordinate; for others its speed
varies with the slopes and it may miss by a little. In return it dissipates less than `global`. `upwind`
dissipates least, and is refused where it does not apply.

The speed of `global`, and of the stability condition, is the largest |dH/dp_i| over sampled momenta: the
ends of the box, the coordinate nearest to zero, points between, and more around the fastest of these; for
`local`, the ends and the coordinate nearest to zero. That is the maximum itself where dH/dp_i is monotone
in every coordinate, or peaks where another coordinate vanishes: quadratics, powers, norms.
"""

import itertools
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

FLUXES = ("local", "global", "upwind")
NODES = 17  # sampled momenta an axis, beside the one nearest to zero

Hamiltonian = Callable[[Float[Array, " d"]], Float[Array, ""]]


def everywhere(f: Callable, p: Float[Array, "*shape d"]) -> Array:
    """`f`, a function of one momentum, at every point."""
    flat = jax.vmap(f)(p.reshape(-1, p.shape[-1]))
    return flat.reshape(p.shape[:-1] + flat.shape[1:])


def momenta(lower: Float[Array, " d"], upper: Float[Array, " d"]) -> Float[Array, "m d"]:
    """Sampled momenta of the box from `lower` to `upper`."""
    axes = jnp.concatenate(
        [jnp.linspace(lower, upper, NODES), jnp.clip(0.0, lower, upper)[None]], axis=0
    )
    grid = jnp.meshgrid(*[axes[:, i] for i in range(axes.shape[1])], indexing="ij")
    return jnp.stack([g.reshape(-1) for g in grid], axis=-1)


def box_of_slopes(left: Array, right: Array) -> tuple[Float[Array, " d"], Float[Array, " d"]]:
    """Least and greatest slope along every axis."""
    both = jnp.stack([left, right])
    axes = tuple(range(both.ndim - 1))
    return jnp.min(both, axis=axes), jnp.max(both, axis=axes)


def speeds(H: Hamiltonian, left: Array, right: Array) -> Float[Array, " d"]:
    """Largest `|dH/dp_i|` over samples of the box of all slopes; NaN or infinite if H is so there."""
    p = momenta(*box_of_slopes(left, right))
    return jnp.max(jnp.abs(jax.vmap(jax.grad(H))(p)), axis=0)


def refined_speeds(H: Hamiltonian, left: Array, right: Array) -> Float[Array, " d"]:
    """The same, sampled again around the sample that attains it: a peak between samples is found too.

    Never less than `speeds`. A smooth peak is missed by a share of order `NODES**-4`.
    """
    lower, upper = box_of_slopes(left, right)
    p = momenta(lower, upper)
    size = jnp.abs(jax.vmap(jax.grad(H))(p))
    cell = (upper - lower) / (NODES - 1)
    found = []
    for i in range(p.shape[1]):
        centre = p[jnp.argmax(size[:, i])]
        near = momenta(jnp.maximum(centre - cell, lower), jnp.minimum(centre + cell, upper))
        again = jnp.abs(jax.vmap(jax.grad(H))(near))[:, i]
        found.append(jnp.maximum(jnp.max(size[:, i]), jnp.max(again)))
    return jnp.stack(found)


def numerical_hamiltonian(
    H: Hamiltonian, left: Array, right: Array, flux: str, speed: Float[Array, " d"]
) -> Array:
    """`h(p-, p+)` at every point; `speed` is what `global` takes for `a`."""
    if flux == "upwind":
        return everywhere(H, jnp.maximum(jnp.maximum(left, -right), 0.0))
    local = flux == "local"
    a = _local_speeds(H, left, right) if local else jnp.broadcast_to(speed, left.shape)
    return everywhere(H, (left + right) / 2) - jnp.sum(a * (right - left), axis=-1) / 2


def admits_upwind(H: Hamiltonian, p: Float[Array, "m d"]) -> bool:
    """Whether H is even in each coordinate and nondecreasing in its size, at sampled momenta."""
    value, rising, mirrored = (np.asarray(a) for a in _evenness(H, p))
    slack = 64 * float(jnp.finfo(p.dtype).eps) * np.max(np.abs(value), initial=1.0)
    return np.allclose(mirrored, value, 0.0, slack) and bool((rising >= -slack).all())


@eqx.filter_jit
def _evenness(H, p):
    signs = itertools.product((1.0, -1.0), repeat=p.shape[1])
    mirrors = p[None] * jnp.asarray(list(signs), p.dtype)[:, None]
    return jax.vmap(H)(p), p * jax.vmap(jax.grad(H))(p), jax.vmap(jax.vmap(H))(mirrors)


def _local_speeds(H: Hamiltonian, left: Array, right: Array) -> Float[Array, "*shape d"]:
    """Largest `|dH/dp_i|` over corners of the box between the slopes and the point nearest to zero.

    Differentiated at the one momentum that attains it: a kink of H elsewhere in the box is not seen.
    """
    lower, upper = jnp.minimum(left, right), jnp.maximum(left, right)
    ends = (lower, upper, jnp.clip(0.0, lower, upper))
    d = left.shape[-1]
    size = lambda p: jnp.abs(everywhere(jax.grad(H), p))
    corner = lambda ends, k: jnp.stack([ends[k[i]][..., i] for i in range(d)], axis=-1)
    still = jax.lax.stop_gradient(ends)
    most, best = jnp.full_like(left, -1.0), [jnp.zeros(left.shape, int)] * d
    for k in itertools.product(range(3), repeat=d):  # nine momenta, unrolled
        found = size(corner(still, k))
        better = jax.lax.stop_gradient(found > most)
        best = [jnp.where(better, k[i], old) for i, old in enumerate(best)]
        most = jnp.where(better, found, most)
    # best[j][..., i]: which end of coordinate j is fastest along i. Only that momentum is differentiated.
    speeds = []
    for i in range(d):
        at = [_one_of(ends, best[j][..., i], j) for j in range(d)]
        speeds.append(size(jnp.stack(at, axis=-1))[..., i])
    return jnp.stack(speeds, axis=-1)


def _one_of(ends: tuple[Array, Array, Array], which: Array, axis: int) -> Array:
    low, high, near = (end[..., axis] for end in ends)
    return jnp.where(which == 0, low, jnp.where(which == 1, high, near))

r"""Newton on the dual of a separable program, in log variables; and what is differentiated through it.

    find lambda:   log( sum_j p_j(lambda) / s ) = 0,    p_j = respond((z_j - lambda)/eps)
    lambda <- lambda + log(S/s) S/W,    S = sum p,  W = sum w          kept in a bracket

Logits are measured from the s-th largest, whose own coordinate is then 0 by construction and not by
subtraction: plain forward and reverse mode through the iteration keep full relative accuracy.

    implicit:   x_j + mu = y_j,   sum_j w_j x_j = 0,   dp_j = w_j x_j      KKT, x = change of log p
    w = 1/phi''(p) strictly inside the bounds, phi'' by differentiating phi'; 0 on them
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from hjcontrol.layers.regulariser import AbstractRegulariser, BinaryEntropy, Shannon

STEPS = 60  # bracketed Newton needs about ten; bisection alone would need 50


def constrained(
    phi: AbstractRegulariser,
    total: int,
    z: Float[Array, " n"],
    eps: Float[Array, ""],
    steps: int = STEPS,
) -> Float[Array, " n"]:
    """The argmax by `steps` steps of the iteration, differentiable as it stands. `eps > 0`."""
    n = z.shape[0]
    fixed = jax.lax.stop_gradient
    pivot = jnp.argsort(-fixed(z))[total - 1]
    u = jnp.where(jnp.arange(n) == pivot, 0.0, (z - z[pivot]) / eps)
    one = jnp.ones((), z.dtype)
    low = -phi.slope(one)
    high = -phi.slope(one / n) if total == 1 else -phi.slope(0 * one)

    def step(state: tuple[Array, ...], _: None) -> tuple[tuple[Array, ...], None]:
        lam, low, high, moved = state
        p = phi.respond(u - lam)
        S, W = jnp.sum(p), jnp.sum(phi.weight(u - lam, p))
        held = fixed(lam)
        low = jnp.where(fixed(S) >= total, held, low)
        high = jnp.where(fixed(S) <= total, held, high)
        some = (fixed(S) > 0) & (fixed(W) > 0)
        safe = jnp.where(some, S, 1.0)
        new = lam + jnp.log(safe / total) * safe / jnp.where(some, W, 1.0)
        # Steps must halve, or Newton may go to and fro between two pieces for ever; once they are
        # small they may not, and roundoff may place them a bit or two outside of the bracket.
        size = jnp.abs(fixed(new) - held)
        inside = (fixed(new) > low) & (fixed(new) < high) & (size <= 0.5 * moved)
        good = some & (inside | (size <= 1e-8))
        new = jnp.where(good, new, 0.5 * (low + high))
        return (new, low, high, jnp.abs(fixed(new) - held)), None

    start = 0.5 * (low + high) if total > 1 else low
    first = (start, low, high, jnp.full((), jnp.inf, z.dtype))
    (lam, _, _, _), _ = jax.lax.scan(step, first, None, length=steps)
    return phi.respond(u - lam)


def free(
    phi: AbstractRegulariser, z: Float[Array, "*shape"], eps: Float[Array, ""], steps: int = STEPS
) -> Float[Array, "*shape"]:
    """The same for a box, which has no multiplier: a share and its complement form a simplex."""
    width = phi.hi - phi.lo
    if isinstance(phi, BinaryEntropy):
        pair = lambda v: constrained(Shannon(), 1, jnp.stack([width * v, 0 * v]), eps, steps)
        q = jax.vmap(pair)(z.ravel()).reshape(*z.shape, 2)
        if phi.lo == -phi.hi:
            return phi.hi * (q[..., 0] - q[..., 1])
        return phi.lo + width * q[..., 0]

    def step(p: Array, _: None) -> tuple[Array, None]:
        return jnp.clip(p - (phi.slope(p) - z / eps), phi.lo, phi.hi), None  # phi'' = 1

    middle = jnp.full(z.shape, 0.5 * (phi.lo + phi.hi), z.dtype)
    return jax.lax.scan(step, middle, None, length=2)[0]


def softness(phi: AbstractRegulariser, p: Float[Array, " n"]) -> Float[Array, " n"]:
    """`1/phi''(p)` where `p` lies strictly inside its bounds, 0 on them."""
    inside = (p > phi.lo) & (p < phi.hi)
    curvature = jax.vmap(jax.grad(phi.slope))(jnp.where(inside, p, 0.5))
    return jnp.where(inside, 1.0 / curvature, 0.0)


def bounded(
    phi: AbstractRegulariser, u: Float[Array, " n"], g: Float[Array, " n"]
) -> Float[Array, " n"]:
    """`g` pulled back through the KKT systems of `n` free coordinates at `u = z/eps`.

    `phi''(p) dp + dmu = du`, and `dp = 0` where the multiplier `mu = u - phi'(p)` exceeds the slack of
    its bound, `dmu = 0` elsewhere."""
    p = free(phi, u, jnp.ones((), u.dtype))
    mu = u - phi.slope(p)
    slack = jnp.where(mu > 0, phi.hi - p, p - phi.lo)

    def one(p: Array, held: Array, g: Array) -> Array:
        first = jnp.stack([jax.grad(phi.slope)(p), jnp.ones((), p.dtype)])
        last = jnp.stack([held, 1.0 - held])
        right = jnp.stack([g, jnp.zeros((), g.dtype)])
        return jnp.linalg.solve(jnp.stack([first, last]), right)[0]

    return jax.vmap(one)(p, (jnp.abs(mu) > slack).astype(p.dtype), g)


def bordered(
    w: Float[Array, " n"], g: Float[Array, " n"], eps: Float[Array, ""]
) -> Float[Array, " n"]:
    """The cotangent `g` pulled back through the KKT system of a program with one sum.

    The Jacobian of an argmax is the Hessian of a value, hence symmetric: the same system serves
    forward and reverse mode.
    """
    n = w.shape[0]
    best = jnp.argmax(w)
    top = w[best]
    y = jnp.where(jnp.arange(n) == best, 0.0, (g - g[best]) / eps)
    scaled = w / jnp.where(top > 0, top, 1.0)
    last = jnp.concatenate([scaled, jnp.where(top > 0, 0.0, 1.0)[None]])
    matrix = jnp.block([[jnp.eye(n), jnp.ones((n, 1))]])
    matrix = jnp.concatenate([matrix, last[None]]).astype(w.dtype)
    right = jnp.concatenate([y, jnp.zeros(1, w.dtype)])
    x = jnp.linalg.solve(matrix, right)
    return w * x[:n]

r"""One stage's quadratic within bounds, by projected Newton: box-DDP.

    minimise over k   1/2 k'H k + g.k      low <= k <= high

    clamped   k at a bound that the slope g + H k presses on; the others are free
    step      Newton's on the free ones, projected, halved until the quadratic falls (Armijo)
    K         feedback of the free ones, -H_ff^{-1} S_f; a clamped weight answers no state

`V_xx = Qxx + S'K` and `V_x = Qx + S'k` hold as without bounds: the free slope vanishes, and K is zero
elsewhere. A matrix that is not positive definite on the free ones gives NaN, which the damping answers.

Source: Tassa, Mansard & Todorov, "Control-limited differential dynamic programming", ICRA 2014.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from hjcontrol.solvers.riccati.lqr import Stage
from hjcontrol.solvers.riccati.small import positive_solve

MOST = 50  # projected Newton steps
HALVINGS = 40
ARMIJO = 0.1


def within(
    low: Array, high: Array, stage: Stage, P: Array, p: Array
) -> tuple[Array, Array, Array, Array, Array]:
    """Bellman's step with bounds: `P`, `p`, `K`, `k`, and `k'H k`."""
    H = stage.R + stage.B.T @ P @ stage.B
    g = stage.r + stage.B.T @ (P @ stage.c + p)
    cross = stage.S + stage.A.T @ P @ stage.B
    k, free = minimised(H, g, low, high)
    K = -_solve(H, cross.T, free)
    ahead = stage.Q + stage.A.T @ P @ stage.A + cross @ K
    slope = stage.q + stage.A.T @ (P @ stage.c + p) + cross @ k
    return 0.5 * (ahead + ahead.T), slope, K, k, k @ (H @ k)


def minimised(
    H: Float[Array, "m m"], g: Float[Array, " m"], low: Float[Array, " m"], high: Float[Array, " m"]
) -> tuple[Float[Array, " m"], Bool[Array, " m"]]:
    """The minimiser within the bounds, and which entries are free there."""
    value = lambda k: 0.5 * k @ (H @ k) + g @ k
    clip = lambda k: jnp.clip(k, low, high)
    tiny = 4 * jnp.finfo(g.dtype).eps

    def newton(carry: Any) -> Any:
        count, k, _, _ = carry
        slope = g + H @ k
        free = _free(k, slope, low, high)
        step = -_solve(H, slope[:, None], free)[:, 0]

        def short(trial: Any) -> Array:
            tries, _, end = trial
            wanted = value(k) + ARMIJO * slope @ (end - k)
            return (tries < HALVINGS) & (value(end) > wanted)

        def halve(trial: Any) -> Any:
            tries, alpha, _ = trial
            return tries + 1, 0.5 * alpha, clip(k + 0.5 * alpha * step)

        one = jnp.ones((), g.dtype)
        tries, _, end = jax.lax.while_loop(short, halve, (jnp.asarray(0), one, clip(k + step)))
        end = jnp.where(tries < HALVINGS, end, k)
        moved = jnp.max(jnp.abs(end - k)) > tiny * (jnp.max(jnp.abs(k)) + tiny)
        return count + 1, end, free, moved

    start = clip(-_solve(H, g[:, None], jnp.ones(g.shape, bool))[:, 0])
    start = jnp.where(jnp.all(jnp.isfinite(start)), start, clip(jnp.zeros_like(g)))
    carry = (jnp.asarray(0), start, jnp.ones(g.shape, bool), jnp.asarray(True))
    going = lambda carry: (carry[0] < MOST) & carry[3]
    _, k, _, _ = jax.lax.while_loop(going, newton, carry)
    return k, _free(k, g + H @ k, low, high)


def _free(k: Array, slope: Array, low: Array, high: Array) -> Bool[Array, " m"]:
    return ~(((k <= low) & (slope > 0)) | ((k >= high) & (slope < 0)))


def _solve(H: Array, right: Float[Array, "m j"], free: Bool[Array, " m"]) -> Float[Array, "m j"]:
    """`H_ff^{-1} right_f`, zero elsewhere."""
    both = free[:, None] & free[None, :]
    reduced = jnp.where(both, H, jnp.eye(len(free), dtype=H.dtype))
    return positive_solve(reduced, jnp.where(free[:, None], right, 0))

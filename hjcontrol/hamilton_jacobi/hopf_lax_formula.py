r"""Hopf-Lax: the inviscid equation for convex H, from any initial data.

    u_t + H(grad u) = 0        u(x, t) = min_y g(y) + t L((x - y)/t),        L = H*

atoms        a minimum over them: exact            `hopf_lax`
max-affine   a convex program with its dual        `hopf_lax_max_affine`
convex g     certified descent on a ball           `hopf_lax_convex`
any g        many starts, and no certificate       `hopf_lax_search`: an upper bound, and says so

The gradient in x is the momentum `grad L((x - y)/t)` of the characteristic that arrives; at a shock,
where several arrive, that of one of them or (atoms) their mean.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from hjcontrol._ground.arguments import admits
from hjcontrol._ground.results import RESULTS
from hjcontrol._ground.shown import Shown
from hjcontrol.hamilton_jacobi.dictionary import Scalar
from hjcontrol.hamilton_jacobi.hamiltonian import AbstractHamiltonian, require_convex
from hjcontrol.hamilton_jacobi.initial_data import InitialData
from hjcontrol.hamilton_jacobi.pairs import Quadratic
from hjcontrol.hamilton_jacobi.transforms import Minimum, minimum

DESCENT_STEPS = 200


class Searched(Shown):
    """An upper bound `value` on `u`, attained at `minimiser`; `agreeing` starts ended there."""

    value: Float[Array, ""]
    minimiser: Float[Array, " d"]
    agreeing: Int[Array, ""]
    result: RESULTS


@admits(x="finite", t="> 0")
def hopf_lax(
    data: InitialData,
    x: Float[Array, " d"],
    t: Scalar,
    *,
    H: AbstractHamiltonian = Quadratic(),  # noqa: B008
) -> Float[Array, ""]:
    """`min_j g_j + t L((x - y_j)/t)`, exact; `+inf` where no atom is within reach of x.

    At one point. Batch with `jax.vmap`, or many in bounded memory with
    `jax.lax.map(..., batch_size=...)`; quadratic H streams through `hopf_cole_batch` at `eps = 0`.

    **Raises:** `ValueError` for `t <= 0`, a point of wrong length, `H` not convex.
    """
    require_convex(H, "hopf_lax")
    if x.shape != (data.dimension,):
        raise ValueError(
            f"hopf_lax: the atoms lie in dimension {data.dimension}; found a point of shape {x.shape}."
        )
    t = jnp.asarray(t, x.dtype)
    rates = jax.vmap(H.lagrangian)((x[None, :] - data.atoms) / t)
    near = jnp.isfinite(rates)  # out of reach: no 0 * inf in a derivative
    costs = jnp.where(
        near, t * jnp.where(near, rates, 0.0), jnp.where(jnp.isnan(rates), rates, jnp.inf)
    )
    return jnp.min(data.energies(0.0) + costs)


@admits(x="finite", t="> 0", radius="> 0")
def hopf_lax_convex(
    g: Callable[[Array], Array],
    x: Float[Array, " d"],
    t: Scalar,
    radius: Scalar,
    *,
    H: AbstractHamiltonian = Quadratic(),  # noqa: B008
) -> Minimum:
    """`u(x, t)` from a convex `g`, as a bracket; the minimiser is sought within `radius` of `x`.

    The bracket closes where `g + t L` is differentiable at the minimiser; at a kink it stays open, and
    says so. That `g` is convex is the caller's word.

    **Raises:** `ValueError` for `t <= 0`, `radius <= 0`, `H` not convex.
    """
    require_convex(H, "hopf_lax_convex")
    t = jnp.asarray(t, x.dtype)
    return minimum(lambda y: g(y) + t * H.lagrangian((x - y) / t), x, radius)


@admits(x="finite", t="> 0", radius="> 0", starts=">= 1")
def hopf_lax_search(
    g: Callable[[Array], Array],
    x: Float[Array, " d"],
    t: Scalar,
    radius: Scalar,
    *,
    key: Key[Array, ""],
    starts: int = 64,
    H: AbstractHamiltonian = Quadratic(),  # noqa: B008
) -> Searched:
    """An upper bound on `u(x, t)` from any `g`: descent from `starts` points of a ball about `x`.

    **Raises:** `ValueError` for `t <= 0`, `radius <= 0`, `starts < 2`, `H` not convex.
    """
    require_convex(H, "hopf_lax_search")
    t = jnp.asarray(t, x.dtype)
    return search(lambda y: g(y) + t * H.lagrangian((x - y) / t), x, radius, key=key, starts=starts)


def search(
    fn: Callable[[Array], Array],
    centre: Float[Array, " d"],
    radius: Scalar,
    *,
    key: Key[Array, ""],
    starts: int,
) -> Searched:
    """Best of `starts` descents of `fn`, begun uniformly in a ball (one at its centre).

    **Raises:** `ValueError` for `radius <= 0` or `starts < 2`.
    """
    if starts < 2:
        raise ValueError(f"search: at least 2 starts are needed; found {starts}.")
    radius = jnp.asarray(radius, centre.dtype)
    ball = jax.random.ball(key, centre.shape[0], 2.0, (starts - 1,), centre.dtype)
    begin = jnp.concatenate([centre[None, :], centre[None, :] + radius * ball])
    ends, values = jax.vmap(lambda y: _descend(fn, y, radius))(begin)
    values = jnp.where(jnp.isnan(values), jnp.inf, values)
    best = jnp.argmin(values)
    value = values[best]
    near = jnp.sqrt(jnp.asarray(jnp.finfo(value.dtype).eps)) * jnp.maximum(1.0, jnp.abs(value))
    agreeing = jnp.sum(values <= value + near)
    result = RESULTS.where(agreeing > 1, RESULTS.agreed, RESULTS.lonely)
    result = RESULTS.where(jnp.isfinite(value), result, RESULTS.nonfinite)
    return Searched(value, ends[best], agreeing, result)


def _descend(
    fn: Callable[[Array], Array], start: Float[Array, " d"], radius: Float[Array, ""]
) -> tuple[Float[Array, " d"], Float[Array, ""]]:
    """Steps along Newton's direction or the gradient, whichever length of either goes lowest."""
    halves = 2.0 ** -jnp.arange(30, dtype=start.dtype)
    tiny = jnp.finfo(start.dtype).tiny

    def step(carry: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
        y, value = carry
        slope, curve = jax.grad(fn)(y), jax.hessian(fn)(y)
        slope, curve = jnp.nan_to_num(slope), jnp.nan_to_num(curve)
        size, axes = jnp.linalg.eigh(curve)
        size = jnp.abs(size)
        flat = size <= jnp.max(size) * 1e-12
        newton = -(axes * jnp.where(flat, 0.0, 1 / jnp.where(flat, 1.0, size))[None, :]) @ (
            axes.T @ slope
        )
        downhill = -slope * radius / jnp.sqrt(jnp.sum(slope**2) + tiny)
        trials = jnp.concatenate(
            [y[None, :] + halves[:, None] * v[None, :] for v in (newton, downhill)]
        )
        values = jax.vmap(fn)(trials)
        values = jnp.where(jnp.isnan(values), jnp.inf, values)
        best = jnp.argmin(values)
        better = values[best] < value
        return (jnp.where(better, trials[best], y), jnp.where(better, values[best], value)), None

    (y, value), _ = jax.lax.scan(step, (start, fn(start)), None, length=DESCENT_STEPS)
    return y, value

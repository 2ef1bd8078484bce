r"""Stage objectives that are quadratic in the weights: minimised in closed form.

    G(theta) = G(theta_0) + g.s + 1/2 s.A s,     s = theta - theta_0

    Theta free           s = -A^+ g          (no minimum if g has a part where A has no curvature)
    Theta a product      coordinate by coordinate, each exactly: one pass if A is diagonal, as it is for
                         biases that are the controls, and for the plain Hamiltonian of any affine stage

A stage that is affine in its weights, with quadratic weight cost, has such a G: H is linear and the
penalties are quadratic. The program of `v -> A v` is read to recognise such a stage: theta
must not occur in it.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr
from jaxtyping import Array, Bool, Float

from hjcontrol._ground.jaxprs import called_jaxpr, replay

Flat = Callable[[Float[Array, " weights"]], Float[Array, ""]]
Candidates = Callable[[Float[Array, ""], Any], Float[Array, " candidates"]]

LARGEST = 512  # weights a stage: beyond, a dense A costs more than an inner solver
PASSES = 200


def is_quadratic(objective: Flat, theta: Float[Array, " weights"]) -> bool:
    """Whether the second derivative of `objective` does not use `theta`, as its program is written."""
    program = jax.make_jaxpr(lambda t, v: _product(objective, t, v))(theta, theta)
    return not any(_used(program, [True, False]))


def curvature(
    objective: Flat, theta: Float[Array, " weights"]
) -> tuple[Float[Array, " weights"], Float[Array, "weights weights"]]:
    """`g` and `A` at `theta`."""
    columns = jax.vmap(lambda v: _product(objective, theta, v))
    return jax.grad(objective)(theta), columns(jnp.eye(theta.size, dtype=theta.dtype))


def free_minimum(
    g: Float[Array, " weights"], A: Float[Array, "weights weights"]
) -> Float[Array, " weights"]:
    """The shortest step to the minimum over all weights; not finite if there is none."""
    eps = jnp.finfo(g.dtype).eps
    sizes, basis = jnp.linalg.eigh(0.5 * (A + A.T))
    along = basis.T @ g
    curved = sizes > eps * g.size * jnp.max(jnp.abs(sizes))
    flat = jnp.abs(along) <= jnp.sqrt(eps) * jnp.max(jnp.abs(g))
    step = jnp.where(curved, -along / jnp.where(curved, sizes, 1.0), jnp.where(flat, 0.0, jnp.nan))
    return basis @ step


def product_minimum(
    theta: Float[Array, " weights"],
    g: Float[Array, " weights"],
    A: Float[Array, "weights weights"],
    candidates: Candidates,
) -> Float[Array, " weights"]:
    """Weights at which no single one can be bettered; `candidates(c, i)`: the values among which
    coordinate `i` finds its least, `c` being where it would go if it were free."""
    start = theta

    def coordinate(i: Any, theta: Array) -> Array:
        slope, bend = g[i] + A[i] @ (theta - start), A[i, i]
        bowl = bend > 0
        target = jnp.where(bowl, theta[i] - slope / jnp.where(bowl, bend, 1.0), theta[i])
        values = candidates(target, i)
        moves = values - theta[i]
        costs = slope * moves + 0.5 * bend * moves**2
        best = jnp.argmin(jnp.where(jnp.isnan(costs), jnp.inf, costs))
        return theta.at[i].set(jnp.where(costs[best] < 0, values[best], theta[i]))

    def proceed(carry: tuple[Any, Array, Bool[Array, ""]]) -> Array:
        return (carry[0] < PASSES) & carry[2]

    def again(carry: tuple[Any, Array, Bool[Array, ""]]) -> tuple[Any, Array, Array]:
        count, theta, _ = carry
        new = jax.lax.fori_loop(0, theta.size, coordinate, theta)
        moved = jnp.max(jnp.abs(new - theta), initial=0.0)
        tiny = 4 * jnp.finfo(theta.dtype).eps * jnp.max(jnp.abs(new), initial=0.0)
        return count + 1, new, moved > tiny

    return jax.lax.while_loop(proceed, again, (jnp.asarray(0), theta, jnp.asarray(True)))[1]


def _product(objective: Flat, theta: Array, v: Array) -> Array:
    return jax.jvp(jax.grad(objective), (theta,), (v,))[1]


_THETA = object()


def _used(program: ClosedJaxpr, depends: list[bool]) -> list[bool]:
    """Which outputs use an input that depends on theta; loops and branches count as using all theirs."""

    def rule(eqn: Any, inputs: list[Any]) -> list[Any]:
        marks = [value is _THETA for value in inputs]
        called = called_jaxpr(eqn)
        if called is None or len(called.jaxpr.invars) != len(marks):
            return [_THETA if any(marks) else None] * len(eqn.outvars)
        return [_THETA if mark else None for mark in _used(called, marks)]

    outputs = replay(program, [_THETA if mark else None for mark in depends], rule)
    return [value is _THETA for value in outputs]

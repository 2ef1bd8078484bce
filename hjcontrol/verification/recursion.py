r"""The whole costate, without reverse mode.

    p_K = dPhi/dx / n,     (p_k)_j = dl_k . e_j / n + p_{k+1} . (dF_k/dx e_j)

One forward derivative a coordinate, of the primal with custom rules inlined, so neither reverse mode
nor a user's rule has a say. The cost grows with the number of coordinates, hence in chunks: memory is
`CHUNK` tangents of one stage. Prefer `pairing` for wide states; this route returns the costate itself.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, PyTree

from hjcontrol.control import ControlProblem, Trajectory
from hjcontrol.networks import Weights
from hjcontrol.verification.directional import derivative, has_forward
from hjcontrol.verification.inlining import inlined
from hjcontrol.verification.pairing import per_sample, primal

CHUNK = 16


class Recursion(NamedTuple):
    """Costates, gradient, and the summands' size: `summands[k]` is the norm over coordinates of
    `sum_i |p_{k+1}^i . dF_k/dtheta_m|`, which stays away from zero where the gradient vanishes.
    `forward[k]`: forward mode, not differences (K: the terminal cost)."""

    costates: Trajectory
    gradient: Weights
    summands: Float[Array, " stages"]
    forward: Bool[Array, " depths"]


def recurse(problem: ControlProblem, weights: Weights, states: Trajectory) -> Recursion:
    """Costates from `p_K` down, and the gradient of every stage's weights."""
    n = problem.num_samples
    cost = lambda a: jax.vmap(inlined(problem.terminal_cost))(a, problem.targets)
    forward = has_forward(cost, states.final)
    p = jax.tree.map(lambda a: a / n, _slopes(cost, states.final, forward))
    final, runs, gradient, sizes = p, [], [], []
    by_forward = [jnp.asarray([forward])]
    for run, theta, xs in reversed(
        list(zip(problem.chain.runs, weights, states.runs, strict=True))
    ):

        def body(p_next: Any, stage: Any, slices: Any) -> tuple[Any, Any]:
            th, x = slices
            step = primal(problem, stage)

            def contracted(a: PyTree, c: PyTree) -> Float[Array, " n"]:
                running, x_next = step(a, c)
                return running + per_sample(p_next, x_next)

            of_state = lambda a: contracted(a, th)
            of_weights = lambda c: (contracted(x, c), inlined(problem.weight_cost)(c))
            forward = has_forward(of_state, x) and has_forward(of_weights, th)
            p = _slopes(of_state, x, forward)
            g, size = _totals(of_weights, th, forward)
            return p, (p, g, size, jnp.asarray(forward))

        depth_first = jax.tree.map(lambda a: jnp.moveaxis(a, 1, 0), xs)
        p, (ps, g, size, forward) = run.scan(body, p, (theta, depth_first), reverse=True)
        runs.append(jax.tree.map(lambda a: jnp.moveaxis(a, 0, 1), ps))
        gradient.append(g)
        sizes.append(size)
        by_forward.append(forward)
    return Recursion(
        Trajectory(tuple(reversed(runs)), final),
        tuple(reversed(gradient)),
        jnp.concatenate(sizes[::-1]),
        jnp.concatenate(by_forward[::-1]),
    )


def _slopes(function: Any, x: PyTree, forward: bool) -> PyTree[Array]:
    """`d function^i / d x^i`, leaves `(n, ...)`, one coordinate of every sample at a time."""
    one = jax.tree.map(lambda a: a[0], x)
    flat, unravel = ravel_pytree(one)

    def along(j: Array) -> Float[Array, " n"]:
        e = unravel(jnp.zeros_like(flat).at[j].set(1))
        e = jax.tree.map(lambda d, a: jnp.broadcast_to(d[None], a.shape), e, x)
        return derivative(function, x, e, forward)[0]

    rows = jax.lax.map(along, jnp.arange(flat.size), batch_size=CHUNK)
    return jax.vmap(unravel)(rows.T)


def _totals(function: Any, theta: PyTree, forward: bool) -> tuple[PyTree[Array], Float[Array, ""]]:
    """Gradient of `sum_i shares^i + r` for `function: theta -> (shares, r)`, and its summands' size."""
    flat, unravel = ravel_pytree(theta)
    if flat.size == 0:
        return theta, jnp.zeros(())

    def along(m: Array) -> tuple[Float[Array, ""], Float[Array, ""]]:
        e = unravel(jnp.zeros_like(flat).at[m].set(1))
        (shares, r), _ = derivative(function, theta, e, forward)
        return jnp.sum(shares) + r, jnp.sum(jnp.abs(shares)) + jnp.abs(r)

    g, size = jax.lax.map(along, jnp.arange(flat.size), batch_size=CHUNK)
    return unravel(g), jnp.linalg.norm(size)

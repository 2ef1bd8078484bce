r"""The ensemble as one linear system with shared controls: all samples' states stacked, n d of them.

    x = (x^1, .., x^n),   u = theta_k:      A = blockdiag(A^i),   B = (B^1; ..; B^n),   Q = blockdiag(Q^i)

The plain reading of Riccati on an ensemble, at `O((n d)^3)` a stage: small problems only. `factored`
gives the same steps without these matrices; this one shows that they are the same.

Exact curvature takes `d2(p.F)` at the costate of the current weights (stagewise Newton, Dunn and
Bertsekas 1989), which makes the open-loop step Newton's. Textbook DDP puts the slope of the new value
function in its place; then it is not.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float

from hjcontrol.control import ControlProblem, costate
from hjcontrol.control.hamiltonians import given_at
from hjcontrol.networks import Weights, advance
from hjcontrol.solvers.riccati.lqr import Stage, varying
from hjcontrol.solvers.riccati.stages import pack, unpack


def stacked(
    problem: ControlProblem, weights: Weights, exact: bool | Bool[Array, ""]
) -> tuple[list[Stage], Float[Array, "N N"], Float[Array, " N"]]:
    """Every stage's move about a rollout, and the terminal cost's `Q` and `q`."""
    n = problem.num_samples
    states = problem.rollout(weights)
    p, _ = costate(problem, weights, states)
    stages = []
    for k, theta in enumerate(problem.chain.unstack(weights)):
        stages.append(_stage(problem, k, theta, states[k], p[k + 1], exact))
    one = jax.tree.map(lambda a: a[0], states.final)
    unravel = ravel_pytree(one)[1]
    flat = jax.vmap(lambda a: ravel_pytree(a)[0])(states.final)
    cost = lambda x, y: problem.terminal_cost(unravel(x), y) / n
    Q, q = (jax.vmap(f(cost))(flat, problem.targets) for f in (jax.hessian, jax.grad))
    return stages, jax.scipy.linalg.block_diag(*Q), q.reshape(-1)


def _stage(problem: ControlProblem, k: int, theta: Any, x: Any, p: Any, exact: Any) -> Stage:
    n, stage = problem.num_samples, problem.chain[k]
    u = given_at(problem, k)
    unravel = ravel_pytree(jax.tree.map(lambda a: a[0], x))[1]
    flat, p = (jax.vmap(lambda a: ravel_pytree(a)[0])(tree) for tree in (x, p))
    packed = pack(stage, theta)

    def step(x: Array, t: Array, u: Any) -> Array:
        return ravel_pytree(advance(stage, unravel(x), unpack(stage, theta, t), u))[0]

    def cost(x: Array, t: Array, u: Any) -> Array:
        return jnp.asarray(problem.state_cost(unravel(x), unpack(stage, theta, t), u), x.dtype) / n

    def local(x: Array, t: Array, u: Any, p: Array) -> Array:
        return cost(x, t, u) + exact * (p @ step(x, t, u))

    A, B = jax.vmap(jax.jacrev(step, argnums=(0, 1)), (0, None, 0))(flat, packed, u)
    q, r = jax.vmap(jax.grad(cost, argnums=(0, 1)), (0, None, 0))(flat, packed, u)
    second = jax.vmap(jax.hessian(local, argnums=(0, 1)), (0, None, 0, 0))
    (Q, S), (_, R) = second(flat, packed, u, p)
    paid = lambda t: jnp.asarray(problem.weight_cost(unpack(stage, theta, t)), t.dtype)
    m = packed.size
    return Stage(
        jax.scipy.linalg.block_diag(*A),
        B.reshape(-1, m),
        jnp.zeros(B.shape[0] * B.shape[1], packed.dtype),
        jax.scipy.linalg.block_diag(*Q),
        S.reshape(-1, m),
        jnp.sum(R, axis=0) + jax.hessian(paid)(packed),
        q.reshape(-1),
        jnp.sum(r, axis=0) + jax.grad(paid)(packed),
    )


def step(
    problem: ControlProblem, weights: Weights, exact: bool | Bool[Array, ""]
) -> tuple[Float[Array, " M"], list[Array]]:
    """One dense sweep's open-loop step, packed in order of depth, and its matrices `P_k`."""
    stages, Q, q = stacked(problem, weights, exact)
    start = jnp.zeros(stages[0].A.shape[1], np.dtype(problem.dtype))
    controls, _, P = varying(stages, Q, q, start)
    return jnp.concatenate(controls), P

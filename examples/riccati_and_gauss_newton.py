"""One Riccati sweep is one Gauss-Newton step; what its feedback adds; the sweep in parallel over depth.

V_k(dx) = 1/2 dx'P_k dx + p_k.dx        theta_k <- theta_k + alpha k_k + K_k dx_k
"""

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

import hjcontrol as hj
from hjcontrol.solvers import riccati
from hjcontrol.solvers.riccati.ensemble import step
from hjcontrol.solvers.riccati.stages import flat_weights

jax.config.update("jax_enable_x64", True)

x = jax.random.normal(jax.random.key(0), (12, 2))
problem = hj.ControlProblem(
    [
        hj.lift(2, 3),
        *[hj.Residual(hj.Dense(3, 3), 0.5)] * 3,
        hj.readout(3, 2),
    ],
    x,
    (jnp.sum(x**2, axis=1) > 1.4).astype(int),
    terminal=hj.softmax_cross_entropy,
    running=hj.Ridge(0.02),
)
start = problem.init(jax.random.key(1))

# 1. The open loop of one sweep over the stacked states of all samples, and the step of Gauss-Newton,
#    from Hessian-vector products in weight space: no matrix, no recursion in common.
by_riccati, _ = jax.jit(lambda w: step(problem, w, exact=False))(start)
flat, unravel = ravel_pytree(start)


@jax.jit
def by_gauss_newton(w):
    product = hj.control.gauss_newton_curvature(problem, w)
    G = jax.vmap(lambda v: ravel_pytree(product(unravel(v)))[0])(jnp.eye(flat.size))
    g = ravel_pytree(jax.grad(problem.objective)(w))[0]
    return flat_weights(problem, unravel(-jnp.linalg.solve(G, g)))


gap = jnp.max(jnp.abs(by_riccati - by_gauss_newton(start)))
print(
    f"one sweep against one Gauss-Newton step: {gap:.1e} apart, of {jnp.abs(by_riccati).max():.1f}"
)

# 2. The closed loop, iterated: exact curvature (DDP) ends quadratically.
for feedback in (True, False):
    method = hj.Riccati(curvature="ddp", tol=1e-11, feedback=feedback)
    solution = hj.solve(problem, method, init=start)
    loop = "closed" if feedback else "open"
    print(
        f"DDP, {loop} loop: {solution.stats['num_steps']} sweeps to J = {solution.objective:.10f}, "
        f"|dH/dtheta| = {solution.stats['stationarity']:.0e}"
    )

# 3. A long linear-quadratic problem, stage after stage and in a logarithmic number of levels.
K = 512
eye = jnp.broadcast_to(jnp.eye(2), (K, 2, 2))
turn = jnp.broadcast_to(jnp.array([[1.0, 0.1], [-0.1, 1.0]]), (K, 2, 2))
push = jnp.broadcast_to(jnp.array([[0.0], [0.1]]), (K, 2, 1))
none = jnp.zeros((K, 2))
stages = riccati.Stage(turn, push, none, 0.1 * eye, 0 * push, eye[:, :1, :1], none, none[:, :1])
long = riccati.LQR(stages, jnp.eye(2), jnp.zeros(2))
one, other = jax.jit(riccati.sequential)(long), jax.jit(riccati.parallel)(long)
print(f"{K} stages in parallel: gains {jnp.max(jnp.abs(one.K - other.K)):.1e} apart")

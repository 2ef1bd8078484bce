"""Box-DDP: a stage's quadratic within bounds, and control problems whose controls are bounded."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import lsq_linear

import hjcontrol as hj
from hjcontrol.solvers.riccati.boxed import minimised
from tests.agreement import assert_agree

DRAW = np.random.default_rng(3)


@pytest.mark.parametrize("m", [1, 3, 7])
def test_the_minimiser_within_bounds_is_scipys(m):
    roots = DRAW.normal(size=(20, m, m))
    H = roots @ roots.transpose(0, 2, 1) + 0.1 * np.eye(m)
    g = DRAW.normal(size=(20, m))
    low, high = -DRAW.uniform(0, 0.5, (20, m)), DRAW.uniform(0, 0.5, (20, m))
    ours, free = jax.jit(jax.vmap(minimised))(*map(jnp.asarray, (H, g, low, high)))
    for i in range(20):
        factor = np.linalg.cholesky(H[i])
        right = -np.linalg.solve(factor, g[i])
        theirs = lsq_linear(factor.T, right, (low[i], high[i]), tol=1e-14, method="bvls").x
        assert np.max(np.abs(ours[i] - theirs)) < 1e-9
    clipped = np.clip(-np.linalg.solve(H, g[..., None])[..., 0], low, high)
    assert not bool(jnp.all(free))
    assert m == 1 or np.max(np.abs(clipped - ours)) > 1e-2  # the twin: clipping is no minimiser


def fishing(z, u):
    """RK4 of Lotka and Volterra's fish, 40 stages of 12 / 40, and the cost as third state."""
    h = 12 / 40

    def rate(z):
        a, b = z[0], z[1]
        caught = jnp.stack([0.4 * a * u[0], 0.2 * b * u[0]])
        grown = jnp.stack([a - a * b, a * b - b])
        return jnp.concatenate([grown - caught, (a - 1)[None] ** 2 + (b - 1)[None] ** 2])

    k1 = rate(z)
    k2 = rate(z + h / 2 * k1)
    k3 = rate(z + h / 2 * k2)
    k4 = rate(z + h * k3)
    return z + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)


def test_fishing_ends_where_ipopt_does():
    problem = hj.ControlProblem(
        [(fishing, jnp.full(1, 0.3))] * 40,
        jnp.asarray([[0.5, 0.7, 0.0]]),
        terminal=lambda z: z[2],
        control_set=hj.control.Box(0.0, 1.0),
    )
    start = problem.init(jax.random.key(0))
    solution = hj.solve(problem, "ddp", init=start)
    assert solution.result == hj.RESULTS.successful
    assert abs(float(solution.objective) - 1.344779688) < 1e-7  # CasADi and IPOPT by hand
    u = solution.weights[0]
    assert bool(jnp.all((u >= 0) & (u <= 1)))
    assert 0 < int(jnp.sum(u == 0)) < 40  # some rest on a bound, and not all
    gains = solution.feedback.gains[0]
    assert_agree(gains[u[:, 0] == 0], jnp.zeros_like(gains[u[:, 0] == 0]))
    free = hj.solve(
        hj.ControlProblem(problem.chain, problem.inputs, terminal=lambda z: z[2]), "ddp", init=start
    )
    assert float(free.objective) < float(solution.objective) - 1e-4  # the bounds were what held it

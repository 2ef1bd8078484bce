"""Successive approximations: the plain method fails and says how, the extended one descends.

The published toy: a sine by 20 residual tanh layers of width 5.
"""

import jax
import jax.numpy as jnp
import numpy as np

import hjcontrol as hj
from hjcontrol.networks import Dense, Residual

jax.config.update("jax_enable_x64", True)

x = np.linspace(-np.pi, np.pi, 50)
problem = hj.ControlProblem(
    [Residual(Dense(5, 5), 0.25)] * 20,
    np.repeat(x[:, None], 5, axis=1),
    np.sin(x),
    terminal=lambda state, y: (jnp.sum(state) - y) ** 2,
    running=hj.Ridge(1e-3),
)
start = problem.init(jax.random.key(0))

for solver in (hj.MSA(), hj.solvers.ExtendedMSA(rho=1.0)):
    solution = hj.solve(problem, solver, init=start, max_steps=60)
    objective = solution.history.objective
    print(solution)
    print(f"  J             {objective[0]:.3g} at the start, {objective[-1]:.3g} at the end")
    print(f"  largest rise  {np.diff(objective).max():.3g} in one sweep\n")

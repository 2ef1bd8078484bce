"""A bounded problem, its certificate of optimality, and that of a twin which is slightly wrong.

dJ/dtheta + lambda = 0,  lambda normal to the box,  p_K = (1/n) dPhi/dx,  d2J/dtheta2 > 0 on the free face
"""

import equinox as eqx
import jax
import jax.numpy as jnp

import hjcontrol as hj

jax.config.update("jax_enable_x64", True)
networks, control = hj.networks, hj.control

x = jax.random.normal(jax.random.key(0), (20, 2))
y = jnp.sin(2 * x[:, :1])
problem = hj.ControlProblem(
    [
        networks.lift(2, 3),
        *[networks.Residual(networks.Dense(3, 3), 0.5)] * 3,
        networks.readout(3, 1),
    ],
    x,
    y,
    terminal=control.least_squares,
    running=control.Ridge(1e-2),
    control_set=control.Box(jnp.asarray(-0.5), jnp.asarray(0.5)),
)
solution = hj.solve(problem, hj.Newton(tol=1e-10), key=jax.random.key(1))
print(hj.verify(solution, optimality=True), "\n")

off_its_bound = eqx.tree_at(
    lambda s: s.weights[1].W, solution, replace_fn=lambda W: W.at[1].multiply(0.99)
)
print("One stage's weights, 1 % smaller:")
print(hj.verify(off_its_bound, optimality=True).optimality, "\n")

turned = eqx.tree_at(lambda s: s.costate.final, solution, replace_fn=jnp.negative)
print("The last costate with the other sign (a maximum principle's):")
print(hj.verify(turned, optimality=True).optimality)

"""A physics-informed network trained to the last digits: where machine precision matters.

    -u'' = pi^2 sin(pi x) on (0, 1),  u(0) = u(1) = 0        u = sin(pi x)

The states of the network carry `u, u_x, u_xx` through its layers, so the equation is a cost of the final
state and nothing is differentiated twice by hand. Newton with the whole Hessian (61 weights) against
Adam followed by L-BFGS, from the same start, for the same time.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import hjcontrol as hj

jax.config.update("jax_enable_x64", True)
WIDTH = 6
x = np.concatenate([[0.0, 1.0], (np.arange(24) + 0.5) / 24])
edge = np.concatenate([np.ones(2), np.zeros(24)])


def affine(state, theta):
    W, b = theta
    return {"u": W @ state["u"] + b, "x": W @ state["x"], "xx": W @ state["xx"]}


def layer(state, theta):
    """tanh of an affine map, with its first two derivatives in x."""
    a = affine(state, theta)
    u = jnp.tanh(a["u"])
    slope = 1 - u**2
    bend = slope * a["xx"] - 2 * u * slope * a["x"] ** 2
    return {"u": u, "x": slope * a["x"], "xx": bend}


def equation(state, target):
    """The residual inside, the boundary value at the edge."""
    at, on_edge = target
    inside = state["xx"][0] / jnp.pi**2 + jnp.sin(jnp.pi * at)
    return 0.5 * jnp.where(on_edge > 0, 10 * state["u"][0], inside) ** 2


def weights(inside, outside, seed):
    rng = np.random.default_rng(seed)
    W = rng.normal(size=(outside, inside)) * np.sqrt(2 / (inside + outside))
    return jnp.asarray(W), jnp.asarray(rng.normal(size=outside))


one = np.ones((len(x), 1))
problem = hj.ControlProblem(
    [
        (layer, weights(1, WIDTH, 0)),
        (layer, weights(WIDTH, WIDTH, 1)),
        (affine, weights(WIDTH, 1, 2)),
    ],
    {"u": x[:, None], "x": one, "xx": 0 * one},
    (x, edge),
    terminal=equation,
    running=hj.Ridge(1e-12),
)
start = problem.init(jax.random.key(0))


def error(trained):
    """Largest distance to the closed form on a finer grid."""
    at = jnp.linspace(0, 1, 501)[:, None]
    state = {"u": at, "x": jnp.ones_like(at), "xx": jnp.zeros_like(at)}
    u = jax.vmap(lambda s: problem.chain(trained, s))(state)["u"]
    return float(jnp.max(jnp.abs(u - jnp.sin(jnp.pi * at))))


newton = hj.solve(problem, hj.Newton(tol=1e-13), init=start, max_steps=400)
seconds = newton.stats["solve_seconds"]
first = hj.solve(problem, hj.Gradient(optax.adam(1e-3), tol=0.0), init=start, max_steps=1000)
spent, other = first.stats["solve_seconds"], first
while spent < seconds:
    other = hj.solve(problem, hj.Gradient(optax.lbfgs(), tol=0.0), init=other, max_steps=300)
    spent += other.stats["solve_seconds"]
for name, solution, took in (("newton", newton, seconds), ("adam + l-bfgs", other, spent)):
    found = (
        f"J {solution.stats['objective']:.2e}, stationarity {solution.stats['stationarity']:.1e}"
    )
    print(f"{name:14} {took:6.2f} s   {found}, largest error {error(solution.weights):.1e}")

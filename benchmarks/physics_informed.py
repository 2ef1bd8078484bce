"""A physics-informed network trained to the last digits: where machine precision matters.

    -u'' = pi^2 sin(pi x) on (0, 1),  u(0) = u(1) = 0        u = sin(pi x)

The states of the network carry `u, u_x, u_xx` through its layers, so the equation is a cost of the final
state and nothing is differentiated twice by hand. Newton with the whole Hessian (61 weights) against
Adam followed by L-BFGS, from the same start, for the same time; three starts.

python benchmarks/physics_informed.py
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from harness import header, row

import hjcontrol as hj

jax.config.update("jax_enable_x64", True)
WIDTH = 6
SHAPES = (1, WIDTH), (WIDTH, WIDTH), (WIDTH, 1)
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


def state():
    one = np.ones((len(x), 1))
    return hj.ControlProblem(
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


def error(problem, trained):
    """Largest distance to the closed form on a finer grid."""
    at = jnp.linspace(0, 1, 501)[:, None]
    points = {"u": at, "x": jnp.ones_like(at), "xx": jnp.zeros_like(at)}
    u = jax.vmap(lambda s: problem.chain(trained, s))(points)["u"]
    return float(jnp.max(jnp.abs(u - jnp.sin(jnp.pi * at))))


def main() -> None:
    header("A physics-informed network: Newton, and Adam + L-BFGS for the same time")
    problem = state()
    adam, lbfgs = hj.Gradient(optax.adam(1e-3), tol=0.0), hj.Gradient(optax.lbfgs(), tol=0.0)
    for seed in range(3):
        drawn = [weights(*shape, 3 * seed + k) for k, shape in enumerate(SHAPES)]
        start = problem.chain.stack(drawn)
        newton = hj.solve(problem, hj.Newton(tol=1e-13), init=start, max_steps=10_000)
        seconds = newton.stats["solve_seconds"]
        other = hj.solve(problem, adam, init=start, max_steps=1000)
        spent = other.stats["solve_seconds"]
        while spent < seconds:
            other = hj.solve(problem, lbfgs, init=other, max_steps=2000)
            spent += other.stats["solve_seconds"]
        for name, solution, took in (("newton", newton, seconds), ("adam + l-bfgs", other, spent)):
            row(
                what=name,
                seed=seed,
                seconds=took,
                objective=solution.stats["objective"],
                stationarity=solution.stats["stationarity"],
                error=error(problem, solution.weights),
            )


if __name__ == "__main__":
    main()

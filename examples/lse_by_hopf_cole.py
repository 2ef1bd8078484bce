"""A log-sum-exp layer trained twice: by Hopf-Cole, which is convex, and by Adam.

    f(x) = eps log sum_j exp((w_j x + b_j)/eps)          exp(f/eps) is linear in exp(b/eps)

The convex fit comes with a bound over every layer with slopes in a ball, whatever its width. Writes
the picture to lse_by_hopf_cole.png.
"""

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import optax

import hjcontrol as hj
from hjcontrol.networks import soft_maximum
from hjcontrol.solvers.convex import fit_lse, polish

matplotlib.use("Agg")
import matplotlib.pyplot as plt

jax.config.update("jax_enable_x64", True)

ATOMS, EPS = 20, 0.05
x = np.random.default_rng(0).uniform(-2, 2, (600, 1))
y = np.abs(x[:, 0]) + 0.5 * np.maximum(x[:, 0] - 1.0, 0.0)

fit = fit_lse(x, y, EPS, max_atoms=ATOMS)
found = fit.native
ball = found.ball()
rest = float(fit.objective) - found.below(ball)
print(fit)
print(f"  over the ball {rest:.2e} at most is left, proved by {ball.cubes} cubes\n")
polished = polish(x, y, found.problem.layer(found.candidate), EPS)
print(polished, "\n")

problem = hj.ControlProblem([soft_maximum(1, ATOMS, EPS)], x, y[:, None], terminal=hj.least_squares)
adam = hj.solve(
    problem,
    hj.Gradient(optax.adam(0.006), label="adam"),
    key=jax.random.key(0),
    max_steps=3000,
)
print(adam)

grid = jnp.linspace(-2, 2, 801)[:, None]
truth = jnp.abs(grid[:, 0]) + 0.5 * jnp.maximum(grid[:, 0] - 1.0, 0.0)
first = fit.stats["solve_seconds"]
curves = {
    f"Hopf-Cole, {first:.2g} s": (found.chain, found.weights),
    f"polished, {first + polished.stats['solve_seconds']:.2g} s": (
        polished.problem.chain,
        polished.weights,
    ),
    f"Adam, {adam.stats['solve_seconds']:.2g} s": (problem.chain, adam.weights),
}
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
left.plot(grid, truth, "k", lw=3, alpha=0.3, label="target")
for (name, (net, theta)), style in zip(curves.items(), ("-", "--", ":"), strict=True):
    values = jax.vmap(lambda z, net=net, theta=theta: net(theta, z)[0])(grid)
    rmse = float(jnp.sqrt(jnp.mean((values - truth) ** 2)))
    left.plot(grid, values, style, label=name)
    right.semilogy(grid, jnp.abs(values - truth) + 1e-8, style, label=f"{name}: RMSE {rmse:.1e}")
left.set(xlabel="x", ylabel="f(x)", title=f"{ATOMS} atoms at most, eps = {EPS}")
right.set(xlabel="x", ylabel="|f - target|", title="Error")
left.legend()
right.legend()
figure.savefig("lse_by_hopf_cole.png", dpi=120)

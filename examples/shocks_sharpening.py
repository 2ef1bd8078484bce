"""Shocks sharpen as eps falls: the gradient of `u_t + u_x^2 = eps u_xx` from a cosine.

Solid: the formula, a sum over atoms (Hopf-Cole; at eps = 0 Hopf-Lax). Dots: the grid, which knows nothing
of sums. Where two minimisers tie, the gradient jumps at eps = 0 and turns within a width ~ eps before.

Writes shocks_sharpening.png.
"""

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np

import hjcontrol as hj
from hjcontrol.hamilton_jacobi.grid import Grid
from hjcontrol.hamilton_jacobi.grid_solver import grid_solve

matplotlib.use("Agg")
import matplotlib.pyplot as plt

jax.config.update("jax_enable_x64", True)

T = 1.0
room = hj.hamilton_jacobi
g = lambda x: jnp.cos(x[0]) + 0.3 * jnp.sin(2 * x[0])
grid = Grid(2.0, 2.0 + 2 * np.pi, 256, periodic=True)
x = grid.points
data = room.density(g, jnp.asarray([-12.0]), jnp.asarray([23.0]), 6000)


@jax.jit
def formula(eps):
    """Value and slope from the atoms, at every point of the grid."""
    u = lambda a: room.hopf_cole(data, a, T, eps)
    return jax.vmap(jax.value_and_grad(u))(x)


figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
epsilons = [0.5, 0.2, 0.05, 0.01, 0.0]
shades = plt.get_cmap("viridis")(np.linspace(0.05, 0.85, len(epsilons)))
widths, gaps = [], []
for eps, shade in zip(epsilons, shades, strict=True):
    u, p = formula(eps)
    seen = grid_solve(jax.vmap(g)(x), T, room.Quadratic(), eps, grid)
    slope = (jnp.roll(seen.u, -1) - jnp.roll(seen.u, 1)) / (2 * grid.spacing[0])
    left.plot(x[:, 0], p[:, 0], color=shade, label=f"eps = {eps:g}")
    left.plot(x[::4, 0], slope[::4], ".", color=shade, markersize=4)
    steepest = float(jnp.max(-jnp.gradient(p[:, 0], grid.spacing[0])))
    jump = float(jnp.max(p) - jnp.min(p))
    widths.append(jump / steepest)
    gaps.append(float(jnp.max(jnp.abs(seen.u - u))))
    print(
        f"eps {eps:5.2f}: {seen.steps} steps, grid against formula {gaps[-1]:.1e}, "
        f"the steepest fall of the slope takes a width {widths[-1]:.3f}"
    )
left.set(xlabel="x", ylabel="u_x(x, 1)", title="solid: formula; dots: grid of 256")
left.legend(fontsize=8)

right.loglog(epsilons[:-1], widths[:-1], "o-", label="width of the shock")
right.loglog(epsilons[:-1], gaps[:-1], "s-", label="grid against formula, largest difference in u")
right.axhline(gaps[-1], color="grey", linestyle=":", label="the same at eps = 0")
right.axhline(grid.spacing[0], color="grey", linestyle="--", label="spacing of the grid")
right.set(xlabel="eps", title="below the spacing, no grid resolves it")
right.legend(fontsize=8)
figure.savefig("shocks_sharpening.png", dpi=120)

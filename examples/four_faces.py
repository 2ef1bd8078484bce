"""One layer in four faces: network, max-plus map, viscous PDE, convex program. Writes four_faces.png.

f(x) = eps log sum exp((W x + b)/eps) = |x|^2/(4t) - u(x, t)
"""

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np

import hjcontrol as hj

matplotlib.use("Agg")
import matplotlib.pyplot as plt

jax.config.update("jax_enable_x64", True)

T, EPS = 1.0, 0.15
slopes = jnp.array([[-1.4], [-0.5], [0.2], [1.1]])
biases = jnp.array([-0.6, 0.1, 0.2, -0.5])
faces = hj.faces((slopes, biases), T, EPS)
print(faces, "\n")

x = jnp.linspace(-3, 3, 401)[:, None]
values = jax.jit(jax.vmap(faces.values))(x)
print(f"network against equation {jnp.max(jnp.abs(values.network - values.equation)):.1e}")
print(f"network against program  {jnp.max(jnp.abs(values.network - values.program)):.1e}")
print(f"above max-plus by at most {jnp.max(values.network - values.max_plus):.4f}, "
      f"bound eps log 4 = {EPS * np.log(4):.4f}\n")  # fmt: skip

square = hj.layers.commuting_square(
    lambda y: jnp.abs(y[0]),
    jnp.linspace(-3.0, 3.0, 61)[:, None],
    T,
    eps=[0.5, 0.1, 0.02, 0.004],
    nodes=[8, 64, 512],
    radius=2.0,
    lipschitz=1.0,
    limit=lambda x: jnp.maximum(jnp.abs(x[0]) - 2, 0.0) ** 2 / 4,
)
print(square)

figure, axes = plt.subplots(2, 2, figsize=(10, 7), layout="constrained")
pi = jax.vmap(faces.network.weights)(x)
data = faces.data()
axes[0, 0].plot(x, values.network, label=f"f, eps = {EPS}")
axes[0, 0].plot(x, values.max_plus, "--", label="max-plus, eps = 0")
axes[0, 0].set(title="network and max-plus map", xlabel="x")
for t, shade in ((0.1, 0.35), (0.3, 0.55), (T, 1.0)):
    u = jax.vmap(lambda a, t=t: faces.solution(a, t))(x)
    axes[0, 1].plot(x, u, color="C0", alpha=shade, label=f"t = {t}")
axes[0, 1].plot(data.atoms[:, 0], data.values, "ko", label="atoms (y, g)")
axes[0, 1].set(title="viscous equation, from its atoms", xlabel="x", ylabel="u(x, t)")
axes[1, 0].stackplot(x[:, 0], pi.T, labels=[f"atom {j}" for j in range(4)], alpha=0.8)
axes[1, 0].set(title="program: the maximiser pi(x)", xlabel="x", ylim=(0, 1))
for k, n in enumerate(square.width):
    axes[1, 1].loglog(square.eps, square.normalised[:, k], "o-", label=f"N = {int(n)}, normalised")
axes[1, 1].loglog(square.eps, square.raw[:, -1], "k:", label=f"N = {int(square.width[-1])}, raw")
axes[1, 1].set(title="the square of limits: sup error", xlabel="eps")
for ax in axes.flat:
    ax.legend(fontsize=8)
figure.savefig("four_faces.png", dpi=120)

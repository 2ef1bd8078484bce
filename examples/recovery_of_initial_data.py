"""Initial data from a solution: what comes back, and what does not.

    eps = 0   g_cc(y) = max_x u(x) - |x - y|^2/(4t): the convex part of g + y^2/(4t), and no more
    eps > 0   a nonnegative fit; its condition number says how many digits of u one digit of g costs

Writes recovery_of_initial_data.png.
"""

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np

import hjcontrol as hj

matplotlib.use("Agg")
import matplotlib.pyplot as plt

jax.config.update("jax_enable_x64", True)

T = 1.0
room = hj.hamilton_jacobi
y = jnp.linspace(-2.0, 2.0, 33)[:, None]
g = jnp.cos(3 * y[:, 0])
data = room.InitialData(y, g)
x = jnp.linspace(-9.0, 9.0, 900)[:, None]
noise = 1e-6 * jax.random.normal(jax.random.key(0), (900,))

figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.8), layout="constrained")
cold = room.hopf_cole_batch(data, x, T, 0.0)
seen = room.envelope(data, T)
left.plot(y[:, 0], g, "k.-", label="g")
left.plot(y[:, 0], room.c_transform(x, cold, T, y), "C1-", label="c-transform of u(., 1)")
left.plot(y[seen.active, 0], g[seen.active], "C1o", label="identifiable atoms")
left.set(
    xlabel="y",
    title=f"eps = 0: {int(seen.active.sum())} of {len(g)} atoms are seen",
    ylim=(-1.1, 2.1),
)
left.legend(loc="upper center")
print(f"eps 0: {int(seen.active.sum())} of {len(g)} atoms have a power cell")

epsilons, conditions, errors = [0.003, 0.01, 0.03, 0.1, 0.3, 1.0], [], []
for eps in epsilons:
    u = room.hopf_cole_batch(data, x, T, eps) + noise
    found = room.recover(x, u, T, eps, y, ridge=1e-10)
    given = np.asarray(jnp.isfinite(found.data.values))
    off = np.asarray(jnp.abs(found.data.values - g))
    seen_off = off[given & np.asarray(seen.active)]
    conditions.append(float(found.condition))
    errors.append(float(np.median(seen_off)) if len(seen_off) else np.nan)
    print(
        f"eps {eps:5.3f}: condition {conditions[-1]:.1e}, rank {int(found.rank)} of {len(g)}, "
        f"u reproduced to {float(found.misfit):.0e}, g to {errors[-1]:.0e}"
    )

right.loglog(epsilons, conditions, "o-", label="condition number")
right.loglog(epsilons, errors, "s-", label="error of g, identifiable atoms (median)")
right.set(xlabel="eps", title="eps > 0, noise 1e-6: the heat equation backwards")
right.legend()
figure.savefig("recovery_of_initial_data.png", dpi=120)

W, b = room.layer_of_data(data, T)
print(
    "from the weights: a read-off, to",
    float(jnp.max(jnp.abs(room.data_of_layer(W, b, T).values - g))),
)

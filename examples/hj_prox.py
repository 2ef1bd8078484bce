"""HJ-prox against the exact prox: what samples buy, and when they stop buying.

    prox of |y|_1 by E[y e^{-f/delta}] / E[e^{-f/delta}],  y ~ N(x, delta t)     exact: soft thresholding

The effective number of samples says what the error bar cannot: in 100 dimensions a handful of samples
carries all the weight, and more of them do not help. Writes hj_prox.png.
"""

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np

import hjcontrol as hj

matplotlib.use("Agg")
import matplotlib.pyplot as plt

jax.config.update("jax_enable_x64", True)

T, DELTA = 0.1, 0.1
SAMPLES = [100, 1_000, 10_000]
l1 = lambda y: jnp.sum(jnp.abs(y))
room = hj.hamilton_jacobi

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
for d in (1, 10, 100):
    x = jax.random.normal(jax.random.key(d), (d,))
    exact = room.prox_separable(jnp.abs, x, T, 10.0)
    errors, effective = [], []
    for n in SAMPLES:
        once = lambda key, x=x, n=n: room.hj_prox(l1, x, T, DELTA, key=key, samples=n)
        keys = jax.random.split(jax.random.key(7), 10)
        estimate = jax.jit(lambda keys, once=once: jax.lax.map(once, keys))(keys)
        gaps = np.linalg.norm(estimate.point - exact[None, :], axis=1)
        errors.append(np.median(gaps) / np.linalg.norm(exact))
        effective.append(np.median(estimate.effective_samples))
        print(
            f"d {d:3d}  samples {n:6d}  effective {effective[-1]:9.1f}  relative error {errors[-1]:.3f}"
        )
    left.loglog(SAMPLES, errors, "o-", label=f"d = {d}")
    right.loglog(SAMPLES, effective, "o-", label=f"d = {d}")

right.loglog(SAMPLES, SAMPLES, "k:", label="all of them")
left.set(xlabel="samples", ylabel="relative error", title="distance from the exact prox")
right.set(xlabel="samples", ylabel="effective samples", title="how many carry the weight")
left.legend()
right.legend()
figure.savefig("hj_prox.png", dpi=120)

corners = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])  # |y|_1 as four planes
program = room.prox_max_affine(room.MaxAffine(corners, np.zeros(4)), jnp.array([0.9, -0.2]), 0.3)
print(f"as a quadratic program: {np.round(program.minimiser, 6)}, gap {float(program.gap):.1e}")

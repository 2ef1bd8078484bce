"""How far may a digit be changed before a layer reads it as another? Writes certified_digits.png.

score_c(x) = lse over the atoms of class c;  a radius within which no attack can succeed, and an attack
"""

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np

import hjcontrol as hj

matplotlib.use("Agg")
import matplotlib.pyplot as plt

jax.config.update("jax_enable_x64", True)
robustness = hj.analysis.robustness

EPS, EACH, SHOWN = 0.15, 12, 200
digits = hj.load("digits")
X, y = digits.features / 16.0, digits.targets
chosen = np.concatenate([np.flatnonzero(y == c)[:EACH] for c in range(10)])
held = np.setdiff1d(np.arange(len(y)), chosen)[:SHOWN]
x, label = jnp.asarray(X[held]), jnp.asarray(y[held])

# Atoms are digits: W = y/(2t), b = -|y|^2/(4t) at t = 1/2, so that pi weighs the squared distances.
layer = hj.LSE(X[chosen], -np.sum(X[chosen] ** 2, axis=1) / 2, EPS)
model = hj.ClassHead(layer, y[chosen])
found = jax.jit(jax.vmap(lambda a, c: robustness.certified_radius(model, a, c)))(x, label)
right = np.asarray(found.margin) > 0
print(f"{right.mean():.3f} of {SHOWN} digits are read correctly, from {layer.b.size} atoms")
print(jax.tree.map(lambda a: a[0], found))
for name in ("radius", "by_curvature", "by_atoms", "published"):
    print(f"  median radius, {name:13s} {np.median(np.asarray(getattr(found, name))[right]):.4f}")


@jax.jit
def broken(r):
    """For each digit the step of length r that lowers the margin most, and whether it succeeds."""

    def one(a, c, key):
        def against(x):
            scores = model.scores(x)
            return jnp.max(jnp.where(jnp.arange(10) == c, -jnp.inf, scores)) - scores[c]

        best = robustness.attack(against, a, r, key=key, steps=25, starts=2)
        return best.step, best.value > 0

    return jax.vmap(one)(x, label, jax.random.split(jax.random.key(0), SHOWN))


radii = np.linspace(0.0, 2.0, 9)
steps, hit = map(np.stack, zip(*[broken(r) for r in radii], strict=True))
certified = [(right & (np.asarray(found.radius) > r)).mean() for r in radii]
older = [(right & (np.asarray(found.published) > r)).mean() for r in radii]
stands = 1 - hit.mean(axis=1)
for row in zip(radii, certified, stands, strict=True):
    print("radius {:.2f}: certified {:.3f}, stands under attack {:.3f}".format(*row))
assert all(c <= s for c, s in zip(certified, stands, strict=True)), "a certificate was broken"

figure, axes = plt.subplot_mosaic("AAB;AAC", figsize=(9, 4.5), layout="constrained")
axes["A"].plot(radii, stands, "o-", label="not broken by the attack (upper bound)")
axes["A"].plot(radii, certified, "s-", label="certified (lower bound)")
axes["A"].plot(radii, older, ":", label="certified by max|W|²/ε")
axes["A"].set(xlabel="radius, in units of full pixels", ylabel="share of digits", ylim=(0, 1.02))
axes["A"].legend()
k = int(np.flatnonzero(right & hit[4])[0])
for panel, image in (("B", x[k]), ("C", x[k] + steps[4][k])):
    read = int(model.predict(image))
    axes[panel].imshow(np.reshape(image, (8, 8)), cmap="gray_r", vmin=0, vmax=1)
    axes[panel].set(title=f"read as {read}", xticks=[], yticks=[])
axes["C"].set_xlabel(f"moved by {radii[4]:.2f}")
figure.savefig("certified_digits.png", dpi=120)

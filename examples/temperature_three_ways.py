"""One layer, its temperature chosen three ways. Writes temperature_three_ways.png.

validation: least held-out loss    bound: least certified loss under moves of length R    jointly: trained
"""

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import optax

import hjcontrol as hj

matplotlib.use("Agg")
import matplotlib.pyplot as plt

jax.config.update("jax_enable_x64", True)
temperature, robustness = hj.analysis.temperature, hj.analysis.robustness

N, R, NOISE = 6, 0.15, 0.05
target = lambda x: np.sqrt(x**2 + 0.05)  # convex, as a layer is
draw = np.random.default_rng(0)
x, held = draw.uniform(-2, 2, 40), draw.uniform(-2, 2, 400)
y, held_y = (target(a) + NOISE * draw.normal(size=len(a)) for a in (x, held))

print(temperature.window(N, 1, side=4.0, t=1.0), "\n")


def tangents(eps):
    """N tangents of the target, the soft maximum's excess taken off on average."""
    at = np.linspace(-2, 2, N)
    slope = at / target(at)
    raw = hj.LSE(slope[:, None], target(at) - slope * at, eps)
    return hj.LSE(raw.W, raw.b - jnp.mean(jax.vmap(raw)(x[:, None]) - y), eps)


@jax.jit
def losses(eps):
    return (jax.vmap(tangents(eps))(held[:, None]) - held_y) ** 2


@jax.jit
def bounds(eps):
    layer = tangents(eps)

    def worst(a, b):
        moved, miss = robustness.change(layer, a, R), layer(a) - b
        return jnp.maximum((miss + moved.upper) ** 2, (miss + moved.lower) ** 2)

    return jax.vmap(worst)(jnp.asarray(held)[:, None], jnp.asarray(held_y))


grid, s = np.geomspace(0.003, 1.0, 25), np.linspace(-2, 2, 400)
validated = temperature.by_validation(losses, grid)
bounded = temperature.by_bound(bounds, grid)
trained = temperature.jointly(
    tangents(0.3), x[:, None], y, hj.Gradient(optax.lbfgs(), tol=1e-7), max_steps=400
)
for choice in (validated, bounded, trained):
    print(choice, "\n")
ours = jax.vmap(trained.layer)(held[:, None])
square = np.mean((ours - held_y) ** 2), 2 * float(trained.objective), NOISE**2
print("jointly trained: mean square held out, in training, of noise", np.round(square, 5))

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
left.loglog(grid, validated.values, "o-", markersize=3, label="held-out loss (measured)")
left.loglog(grid, bounded.values, "s-", markersize=3, label=f"loss under moves of {R} (bound)")
for choice, colour in ((validated, "C0"), (bounded, "C1"), (trained, "C2")):
    label = f"{choice.by}: {choice.eps:.3g}"
    left.axvline(float(choice.eps), color=colour, linestyle=":", label=label)
left.set(xlabel="ε (length²/time)", ylabel="mean squared error", title="what each minimises")
right.plot(x, y, "k.", alpha=0.5, label="training data")
for choice in (validated, bounded, trained):
    layer = tangents(choice.eps) if choice.layer is None else choice.layer
    right.plot(s, jax.vmap(layer)(s[:, None]), label=f"{choice.by}, ε = {choice.eps:.3g}")
for ax in (left, right):
    ax.legend(fontsize=8)
figure.savefig("temperature_three_ways.png", dpi=120)

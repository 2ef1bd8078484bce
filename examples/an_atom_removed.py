"""Why this digit? The atoms behind a prediction, and what happens once they are gone.

f without the atoms S = f + eps log(1 - sum over S of pi_j), exactly.    Writes an_atom_removed.png.
"""

import jax
import matplotlib
import numpy as np

import hjcontrol as hj

matplotlib.use("Agg")
import matplotlib.pyplot as plt

jax.config.update("jax_enable_x64", True)
attribution = hj.analysis.attribution

EPS, EACH = 0.3, 15
digits = hj.load("digits")
X, y = digits.features / 16.0, digits.targets
chosen = np.concatenate([np.flatnonzero(y == c)[:EACH] for c in range(10)])
held = np.setdiff1d(np.arange(len(y)), chosen)
layer = hj.LSE(X[chosen], -np.sum(X[chosen] ** 2, axis=1) / 2, EPS)
model = hj.ClassHead(layer, y[chosen])

# Of the first hundred held-out digits, the one read with a share nearest to seven in ten.
shares = jax.jit(jax.vmap(model.shares))(X[held[:100]])
x = X[held[int(np.argmin(np.abs(shares.max(axis=1) - 0.7)))]]
explained = attribution.attribute(model, x)
print(explained)

# One atom after another really taken out, always the one with the largest weight of those left.
gone, heads, rows = [], [model], [explained]
while heads[-1].predict(x) == model.predict(x):
    left = np.setdiff1d(np.arange(len(chosen)), gone)
    gone.append(int(left[np.argmax(rows[-1].weights)]))
    kept = np.setdiff1d(np.arange(len(chosen)), gone)
    smaller = attribution.pruned(layer, gone)
    heads.append(hj.ClassHead(smaller, y[chosen][kept]))
    rows.append(attribution.attribute(heads[-1], x))
mask = np.isin(np.arange(len(chosen)), gone)
formula, real = attribution.without(layer, x, mask), heads[-1].head(x)
print(f"\nafter {len(gone)} atoms are gone, class {int(model.predict(x))} becomes "
      f"{int(heads[-1].predict(x))}")  # fmt: skip
print(f"f without them: formula {float(formula):.15g}, evaluated {float(real):.15g}, "
      f"apart {abs(float(formula - real)):.1e}")  # fmt: skip
print(
    f"first order would have said {float(explained.value - EPS * explained.weights[mask].sum()):.6g}"
)

top = explained.top(6)
figure, axes = plt.subplot_mosaic("X012;X345;SSSS", figsize=(8, 6.5), layout="constrained")
axes["X"].imshow(x.reshape(8, 8), cmap="gray_r")
axes["X"].set_title(f"read as {int(model.predict(x))}")
for i, j in enumerate(top):
    axes[str(i)].imshow(X[chosen[j]].reshape(8, 8), cmap="gray_r")
    axes[str(i)].set_title(
        f"a {y[chosen[j]]}, weight {float(explained.weights[j]):.3f}", fontsize=9
    )
for name in "X012345":
    axes[name].set(xticks=[], yticks=[])
track = np.array([np.asarray(r.shares) for r in rows])
for c in np.argsort(-track.max(axis=0))[:3]:
    axes["S"].plot(track[:, c], "o-", label=f"share of class {c}")
axes["S"].set(xlabel="atoms taken out", ylabel="share", ylim=(0, 1), xticks=range(len(rows)))
axes["S"].legend()
figure.savefig("an_atom_removed.png", dpi=120)

"""Basins of an entropy landscape merge as eps grows: every fold, located by continuation.

Two clouds of eight atoms in the plane, u_t + |grad u|^2 = eps lap u at t = 1. Writes
folds.png and folds.gif.
"""

import jax
import matplotlib
import numpy as np

import hjcontrol as hj
from hjcontrol.reporting.landscapes import animate, diagram, landscape

matplotlib.use("Agg")
import matplotlib.pyplot as plt

jax.config.update("jax_enable_x64", True)

rng = np.random.RandomState(42)  # the published data are drawn by this generator
atoms = np.concatenate([0.4 * rng.randn(8, 2) - 1, 0.4 * rng.randn(8, 2) + 1])
values = np.repeat([0.0, 1.0], 8)
data = hj.hamilton_jacobi.InitialData(atoms, values)
W, b = hj.hamilton_jacobi.layer_of_data(data, 1.0)
layer = hj.LSE(W, b, 0.25)

room = hj.analysis.bifurcation
here = room.entropy_landscape(layer, np.array([0.3, -0.2]))
print(f"H(0.3, -0.2) = {here.entropy:.6f}, gradient {here.gradient}")
print(f"where the last critical point goes as eps -> infinity: {room.hot_centre(layer)}\n")
print(room.critical_points(layer, [[-9.0, -9.0], [9.0, 9.0]]), "\n")

found = room.bifurcation_diagram(layer, (0.15, 1.0), [[-12.0, -12.0], [12.0, 12.0]])
print(found, "\n")
print("who inherits whose basin:")
print(found.merge_tree())

figure, axes = plt.subplots(1, 3, figsize=(14, 4.2), layout="constrained")
diagram(found, axes[0], coordinate=0)
axes[0].set_title("critical points over eps; rings: folds")
window = np.array([[-3.0, -3.0], [3.0, 3.0]])
for ax, eps in zip(axes[1:], (0.2, 0.41), strict=True):
    landscape(found, eps, ax, window=window)
    ax.plot(*atoms.T, ".", color="white", markersize=4)
figure.savefig("folds.png", dpi=110)

path = animate(found, "folds.gif", frames=36, window=window)
print(f"\n{path}: {path.stat().st_size / 1e3:.0f} kB")

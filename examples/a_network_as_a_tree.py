"""A ReLU network becomes a decision tree, exactly; a log-sum-exp layer, a soft one.

A classifier of two moons is trained, then turned into the tree of its own affine pieces: not fitted to
the network, equal to it. Writes a_network_as_a_tree.png and a_network_as_a_tree.dot.
"""

import pathlib

import jax
import matplotlib
import numpy as np

import hjcontrol as hj

matplotlib.use("Agg")
import matplotlib.pyplot as plt

jax.config.update("jax_enable_x64", True)

rng = np.random.default_rng(0)
label = np.repeat([0, 1], 150)
angle, side = rng.uniform(0, np.pi, 300), 1 - 2 * label
points = np.column_stack([side * np.cos(angle) + label, side * np.sin(angle) + 0.4 * label])
points += 0.12 * rng.standard_normal(points.shape)
problem = hj.ControlProblem(
    [hj.Dense(2, 6, jax.nn.relu), hj.readout(6, 2)],
    points,
    label,
    terminal=hj.softmax_cross_entropy,
    running=hj.Ridge(1e-3),
)
solution = hj.solve(problem, hj.Newton(), key=jax.random.key(3), max_steps=200, throw=False)

room = hj.analysis.tree
net = room.piecewise_affine(problem.chain, solution.weights)
tree = room.model_tree(net)
print(tree)
everywhere = rng.uniform(-3, 4, (100_000, 2))
network = np.asarray(jax.vmap(lambda x: problem.chain(solution.weights, x))(everywhere))
apart = np.abs(tree.predict(everywhere) - network).max()
print(f"  largest difference from the network at 100,000 points {apart:.1e}")

decision = room.model_tree(net, decide=True, box=[[-2.0, -1.5], [3.0, 2.0]])
right = np.mean(decision.decide(points) == label)
print(f"\nas a classifier: {decision}\n  right on {100 * right:.1f} % of the data. Its rules:\n")
print(decision.rules(["across", "up"], digits=3))
A, b = decision.region(int(decision.apply(points[:1])[0]))
print(
    f"\nthe first point's leaf has {len(b)} faces; within it: {bool(np.all(A @ points[0] + b >= 0))}"
)
pathlib.Path("a_network_as_a_tree.dot").write_text(decision.to_dot(["across", "up"]))

atoms = hj.LSE(rng.normal(size=(5, 2)), 0.3 * rng.normal(size=5), 0.2)
soft = room.soft_tree(atoms)
x = jax.numpy.asarray(points[0])
print(f"\n{soft}\n{soft.rules()}")
print(
    f"product of gates against Gibbs weights {np.abs(soft.weights(x) - atoms.weights(x)).max():.1e}"
)
print(room.agreement(atoms, points))

figure, axes = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
across, up = np.meshgrid(np.linspace(-2, 3, 500), np.linspace(-1.5, 2, 350))
grid = np.column_stack([across.ravel(), up.ravel()])
colours = np.random.default_rng(1).permutation(len(tree.left)) % 20
leaf = colours[tree.apply(grid)].reshape(across.shape)
axes[0].pcolormesh(across, up, leaf, cmap="tab20", alpha=0.6)
axes[0].set_title(f"{len(tree.leaves)} leaves, on each the network is affine")
axes[1].contourf(across, up, decision.decide(grid).reshape(across.shape), levels=1, cmap="Blues")
axes[1].scatter(*points.T, c=label, cmap="coolwarm", s=8)
axes[1].set_title("the tree's decision")
figure.savefig("a_network_as_a_tree.png", dpi=110)

"""An LSTM reads digits row by row; its costate says when, in the reading, the outcome was decided.

p_k = dJ/d(h_k, c_k) at every step, from the recursion p_k = dH_k/dx: the numbers that backpropagation
through time computes, verified against forward mode. Weights are tied: dJ/dtheta = sum_k dH_k/dtheta.
Writes lstm_costate.png.
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import hjcontrol as hj
from hjcontrol.networks import architecture

jax.config.update("jax_enable_x64", True)
digits = hj.split(hj.load("digits"), 400, key=jax.random.key(0)).train
network = architecture("lstm", 64, 10, width=12)
problem = hj.ControlProblem(
    **network.ensemble(digits.features),
    targets=digits.targets,
    terminal=hj.softmax_cross_entropy,
    running=hj.Ridge(1e-4),
)
solver = hj.Gradient(optax.adam(2e-2))
solution = hj.solve(problem, solver, key=jax.random.key(1), max_steps=300)
hits = jnp.argmax(solution.trajectory.final, axis=1) == jnp.asarray(digits.targets)
print(f"J = {solution.objective:.4f}, {100 * jnp.mean(hits):.1f} % of the training digits right")
certificate = hj.verify(solution, routes=("backprop", "pairing", "recursion"))
print(certificate)
assert certificate.verdict == "exact"

# Costates of the recurrence: (n, 9 steps, (h, c), width), times n for one sample's own share.
p = solution.problem.num_samples * np.asarray(
    jnp.stack([solution.costate[k] for k in range(9)], axis=1)
)
norms = np.linalg.norm(p, axis=-1)
by_class = np.stack([norms[digits.targets == c, :8, 1].mean(axis=0) for c in range(10)])

# What the memory alone would pass on: p' = f p, the forget gates' product from the end.
theta = jax.tree.map(lambda a: a[0], solution.weights[0])
states, inputs = solution.trajectory.runs[0], problem.forcing
gates = jax.jit(jax.vmap(jax.vmap(lambda x, u: network.cell.gates(x, theta, u)[1])))(states, inputs)
alone = np.cumprod(np.asarray(gates)[:, ::-1], axis=1)[:, ::-1].mean(axis=(0, 2))

figure = Figure(figsize=(9.5, 4.2), dpi=150, layout="constrained")
FigureCanvasAgg(figure)
left, right = figure.subplots(1, 2)
rows = range(9)  # the last cell has no costate: only its output is read
left.semilogy(rows, norms[:, :, 0].mean(axis=0), "o-", label="|p| of the output h")
left.semilogy(rows[:8], norms[:, :8, 1].mean(axis=0), "s-", label="|p| of the cell c")
scale = norms[:, 7, 1].mean() / alone[7]
left.semilogy(rows[:8], scale * alone, "k--", label="cell alone: p = f p', from row 7")
left.set_xlabel("rows read")
left.set_ylabel("mean norm of the costate")
left.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1))
image = right.imshow(by_class, aspect="auto", cmap="cividis")
right.set_xlabel("rows read")
right.set_ylabel("digit")
right.set_yticks(range(10))
figure.colorbar(image, ax=right, label="|p| of the cell c")
out = sys.argv[1] if len(sys.argv) > 1 else "lstm_costate.png"
figure.savefig(out)
print(out)

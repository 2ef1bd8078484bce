"""Constraints along depth: a cart below a ceiling, and a network whose hidden states stay in a box.

    p_k = dH_k/dx + mu_k dc/dx        the costate jumps where the constraint is met

Bryson and Denham's problem has a closed form, 4 for a ceiling of 1/9. The network is trained twice, free
and with every hidden state of every sample in a box. Writes constraints_along_depth.png.
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import hjcontrol as hj
from hjcontrol.control import PathConstraint, StateBox, TerminalConstraint

jax.config.update("jax_enable_x64", True)
K, ceiling = 50, 1 / 9
h = 1 / K
A, B = jnp.array([[1.0, h], [0.0, 1.0]]), jnp.array([h * h / 2, h])
cart = hj.ControlProblem(
    [(lambda x, u: A @ x + B * u[0], jnp.zeros(1))] * K,
    jnp.array([[0.0, 1.0]]),
    terminal=lambda x: 0.0 * x[0],
    running=lambda x, u: h * u[0] ** 2 / 2,
    terminal_constraint=TerminalConstraint(lambda x: x - jnp.array([0.0, -1.0])),
    path=PathConstraint(lambda x: x[0] - ceiling, name="ceiling"),
)
start = cart.init(jax.random.key(0))
direct = hj.solve(cart, "direct", init=start)
ddp = hj.solvers.Riccati(curvature="ddp")
other = hj.solve(cart, hj.solvers.AugmentedLagrangian(ddp), init=start)
mu = direct.path_multipliers["ceiling"][0, :, 0]
apart = jnp.max(jnp.abs(mu - other.path_multipliers["ceiling"][0, :, 0]))
print(f"cart: J = {direct.objective:.6f} (4 in continuous time), sum of mu {mu.sum():.4f} (36)")
print(
    f"  an augmented Lagrangian around DDP: J apart {abs(direct.objective - other.objective):.0e},"
)
print(f"  multipliers apart {apart:.0e}")
certificate = hj.verify(direct, optimality=True)
print(f"  verify: {certificate.verdict}, {certificate.optimality.verdict}")
assert certificate.verdict == "exact"
assert not certificate.optimality.violated

x = jax.random.uniform(jax.random.key(1), (12, 2), minval=-1.5, maxval=1.5)
y = jnp.sign(x[:, :1] * x[:, 1:])
stages = [
    hj.networks.lift(2, 3),
    *[hj.networks.Residual(hj.networks.Dense(3, 3), 0.5)] * 3,
    hj.networks.readout(3, 1),
]


def trained(path):
    problem = hj.ControlProblem(
        stages,
        x,
        y,
        terminal=hj.control.least_squares,
        running=hj.control.Ridge(1e-2),
        path=path,
    )
    return hj.solve(problem, "direct", key=jax.random.key(2))


free = trained(())
box = trained(StateBox(-1.0, 1.0, last=4, name="box"))
met = int(jnp.sum(box.path_multipliers["box"] > 1e-6))
largest = max(float(jnp.max(jnp.abs(run))) for run in box.trajectory.runs[1:])
print(f"network: J = {free.objective:.4f} free, {box.objective:.4f} with |x| <= 1 along depth")
print(f"  {met} multipliers, largest hidden state {largest:.6f}")
assert bool(box.result == hj.RESULTS.successful)
assert largest < 1 + 1e-8

figure = Figure(figsize=(10, 3.6), dpi=150, layout="constrained")
FigureCanvasAgg(figure)
one, two, three = figure.subplots(1, 3)
times = np.linspace(0, 1, K + 1)
states = np.stack([np.asarray(direct.trajectory[k][0]) for k in range(K + 1)])
costates = np.stack([np.asarray(direct.costate[k][0]) for k in range(K + 1)])
one.plot(times, states[:, 0], label="height")
one.axhline(ceiling, color="0.6", linestyle="--", label="ceiling")
one.set_xlabel("time")
one.legend(frameon=False)
two.step(times, costates[:, 0], where="mid", label="costate of the height")
two.vlines(times, 0, np.asarray(mu), color="C3", label="multiplier mu")
two.set_xlabel("time")
two.legend(frameon=False)
for solution, colour, name in ((free, "0.7", "free"), (box, "C0", "in the box")):
    hidden = np.stack([np.asarray(solution.trajectory[k]) for k in range(1, 5)], axis=1)
    for j in range(3):
        label = name if j == 0 else None
        three.plot(range(1, 5), hidden[:, :, j].T, color=colour, lw=0.5)
        three.plot([], [], color=colour, label=label)
three.axhline(1.0, color="k", linestyle="--")
three.axhline(-1.0, color="k", linestyle="--")
three.set_xlabel("depth")
three.set_title("hidden states of all samples", fontsize=9)
three.legend(frameon=False)
out = sys.argv[1] if len(sys.argv) > 1 else "constraints_along_depth.png"
figure.savefig(out)
print(out)

"""Classification in the plane by networks of 20 layers and 2 channels: gradient descent, Newton, DDP.

    benning.py [SEEDS] [NET ...]    donut, spiral, squares; 500 training and 500 test points (5 seeds)

The settings of Benning, Celledoni, Ehrhardt, Owren & Schonlieb, "Deep learning as optimal control
problems" (2019), as far as the paper gives them: least squares of a sigmoid readout, descent with
backtracking for 8000 steps; `Net` x <- tanh(Kx + b), `ResNet` x <- x + tanh(Kx + b), `ODENet` learns its
steps. The samplers are ours, after the paper's pictures. Ridge 1e-6 makes stationary points isolated.
Newton and DDP start where descent starts, and are asked for a lower training objective in less time:
`under_descent_after` are the seconds until theirs is at or under the one where descent ends.
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
from harness import header, row

import hjcontrol as hj
from hjcontrol.networks import Dense, FreeStep, Residual, readout

LAYERS, RIDGE, STEPS, POINTS = 20, 1e-6, 8000, 500


def donut(draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A disc within a ring, touching a little."""
    label = np.arange(POINTS) % 2
    radius = np.where(label, draw.normal(1.0, 0.12, POINTS), draw.normal(0.0, 0.3, POINTS))
    angle = draw.uniform(0, 2 * np.pi, POINTS)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1), label


def spiral(draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Two interleaved arms of one turn and a half."""
    label = np.arange(POINTS) % 2
    s = np.sqrt(draw.uniform(0.02, 1, POINTS))
    angle = 3 * np.pi * s + np.pi * label
    x = np.stack([s * np.cos(angle), s * np.sin(angle)], axis=1)
    return x + 0.02 * draw.normal(size=x.shape), label


def squares(draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A chessboard of two by two; labels are set before the noise."""
    x = draw.uniform(-1, 1, (POINTS, 2))
    label = (x[:, 0] * x[:, 1] > 0).astype(int)
    return x + 0.1 * draw.normal(size=x.shape), label


def square_loss(z, label):
    """Half the squared error of a sigmoid readout."""
    return 0.5 * (jax.nn.sigmoid(z[0]) - label) ** 2


def problem(kind: str, x: np.ndarray, label: np.ndarray) -> hj.ControlProblem:
    layer = Dense(2, 2)
    stage = {"Net": layer, "ResNet": Residual(layer, 1.0), "ODENet": FreeStep(layer)}[kind]
    return hj.ControlProblem(
        [*[stage] * LAYERS, readout(2, 1)],
        jnp.asarray(x),
        jnp.asarray(label, float),
        terminal=square_loss,
        running=hj.control.Ridge(RIDGE),
    )


def accuracy(p: hj.ControlProblem, weights) -> float:
    z = jax.vmap(lambda a: p.chain(weights, a))(p.inputs)[:, 0]
    return float(100 * jnp.mean((z > 0) == (p.targets > 0.5)))


def main() -> None:
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    header(f"20 layers x 2 channels, {POINTS} + {POINTS} points, {seeds} seeds")
    descent = hj.solvers.Gradient(
        optax.chain(optax.sgd(1.0), optax.scale_by_backtracking_linesearch(20)), tol=0.0
    )
    methods = {
        "gradient descent, 8000 steps": (descent, STEPS),
        "newton": (hj.solvers.Newton(tol=1e-7), 2000),
        "ddp": (hj.solvers.by_name("ddp", tol=1e-7), 60),
    }
    for data in (donut, spiral, squares):
        for kind in sys.argv[2:] or ("Net", "ResNet", "ODENet"):
            found, goal = {name: [] for name in methods}, {}
            for seed in range(seeds):
                draw = np.random.default_rng(seed)
                train, test = (problem(kind, *data(draw)) for _ in range(2))
                init = train.init(jax.random.key(seed))
                for name, (method, steps) in methods.items():
                    if name == "ddp" and kind != "ResNet":
                        continue
                    s = hj.solve(train, method, init=init, max_steps=steps)
                    score = accuracy(test, s.weights)
                    value = float(s.objective)
                    goal.setdefault(seed, value)  # descent is the first
                    met = np.flatnonzero(np.asarray(s.history.objective) <= goal[seed])
                    after = float(s.history.seconds[met[0]]) if met.size else np.nan
                    found[name].append((score, value, s.stats["solve_seconds"], after))
            for name, runs in found.items():
                if runs:
                    score, value, seconds, after = np.array(runs).T
                    row(
                        data=data.__name__,
                        net=kind,
                        method=name,
                        test=np.round(score, 1).tolist(),
                        objective=[float(f"{v:.3g}") for v in value],
                        seconds=np.round(seconds, 1).tolist(),
                        under_descent_after=[None if np.isnan(t) else round(t, 2) for t in after],
                    )


if __name__ == "__main__":
    main()

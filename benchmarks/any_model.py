"""An eqx.nn.MLP trained by hj.solve against a hand-written optax loop: peak memory, steps a second; and a
memory map of 2 GiB, one epoch. Each figure is taken in a process of its own.

    python any_model.py                 # all
    python any_model.py memory-loop     # one part, in this process
"""

import os
import resource
import subprocess
import sys
import tempfile
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from harness import header, row

import hjcontrol as hj

jax.config.update("jax_enable_x64", False)
SAMPLES, FEATURES, WIDTH, STAGES, BATCH = 60_000, 16, 128, 34, 32
ROWS, COLUMNS = 2**21, 256  # float32: 2 GiB


def ensemble(n=SAMPLES):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, FEATURES)).astype(np.float32)
    return jnp.asarray(x), jnp.asarray(np.sin(x[:, :1]))


def network():
    act = jax.nn.tanh
    return eqx.nn.MLP(FEATURES, 1, WIDTH, STAGES - 1, activation=act, key=jax.random.key(0))


def peak():
    """Largest resident memory of this process so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def loss(model, x, y):
    return jnp.mean(jax.vmap(lambda a, b: 0.5 * jnp.sum((model(a) - b) ** 2))(x, y))


def by_hand(model, x, y, batch, steps):
    """What a user writes: a jitted step, a loop in Python, batches without replacement."""
    optimiser = optax.adam(1e-3)
    state = optimiser.init(eqx.filter(model, eqx.is_inexact_array))

    @eqx.filter_jit
    def step(model, state, xb, yb):
        gradient = eqx.filter_grad(loss)(model, xb, yb)
        change, state = optimiser.update(gradient, state)
        return eqx.apply_updates(model, change), state

    rng, n, clock = np.random.default_rng(0), len(x), None
    for k in range(steps + 1):
        if batch is None:
            xb, yb = x, y
        else:
            place = k % (n // batch)
            order = rng.permutation(n) if place == 0 else order
            rows = order[place * batch : (place + 1) * batch]
            xb, yb = x[rows], y[rows]
        model, state = step(model, state, xb, yb)
        if k == 0:  # compiled
            jax.block_until_ready(state)
            clock = time.perf_counter()
    jax.block_until_ready(state)
    return model, steps / (time.perf_counter() - clock)


def ours(x, y, batch, steps):
    problem = hj.ControlProblem(network(), x, y, terminal=hj.least_squares)
    solver = hj.Gradient(optax.adam(1e-3), batch_size=batch, tol=1e-30)  # to the step limit
    solution = hj.solve(problem, solver, key=jax.random.key(0), max_steps=steps)
    return solution, solution.stats["num_steps"] / solution.stats["solve_seconds"]


def memory_loop(steps=2000):
    x, y = ensemble()
    model, speed = by_hand(network(), x, y, BATCH, steps)
    value = float(loss(model, x[:256], y[:256]))
    row(part="optax loop, batch 32", peak_mib=peak(), steps_a_second=speed, objective=value)


def memory_ours(steps=2000):
    x, y = ensemble()
    solution, speed = ours(x, y, BATCH, steps)
    value = float(loss(solution.model, x[:256], y[:256]))
    row(part="hj.solve, batch 32", peak_mib=peak(), steps_a_second=speed, objective=value)


def full(steps=60, n=2048):
    x, y = ensemble(n)
    for _ in range(2):
        model, loop = by_hand(network(), x, y, None, steps)
        solution, speed = ours(x, y, None, steps)
    apart = abs(float(loss(model, x, y)) - float(solution.objective))
    row(part="full batch, n=2048", loop=loop, ours=speed, ratio=speed / loop, apart=apart)


def memmap(path=None):
    with tempfile.TemporaryDirectory(dir=path) as folder:
        file = os.path.join(folder, "x.f32")
        rng = np.random.default_rng(0)
        with open(file, "wb") as out:
            for _ in range(64):
                rng.standard_normal((ROWS // 64, COLUMNS), np.float32).tofile(out)
        start = peak()
        x = np.memmap(file, np.float32, "r", shape=(ROWS, COLUMNS))
        y = np.zeros((ROWS, 1), np.float32)
        model = eqx.nn.MLP(COLUMNS, 1, 64, 2, activation=jax.nn.tanh, key=jax.random.key(0))
        problem = hj.ControlProblem(model, x, y, terminal=hj.least_squares)
        solver = hj.Gradient(optax.adam(1e-3), batch_size=256)
        solution = hj.solve(problem, solver, key=jax.random.key(0), max_steps=ROWS // 256)
        row(
            part="memory map of 2 GiB, one epoch, batch 256",
            peak_mib=peak(),
            before_mib=start,
            steps=solution.stats["num_steps"],
            seconds=solution.stats["solve_seconds"],
            last_pass=solution.stats["other_seconds"],
            objective=float(solution.objective),
        )


PARTS = {"memory-loop": memory_loop, "memory-ours": memory_ours, "full": full, "memmap": memmap}


def main() -> None:
    if len(sys.argv) > 1:
        PARTS[sys.argv[1]]()
        return
    header("Any model: 60,000 x 16 in 32 bits, width 128, 34 stages, Adam")
    for part in PARTS:
        subprocess.run([sys.executable, __file__, part], check=True)


if __name__ == "__main__":
    main()

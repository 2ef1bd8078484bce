"""A run in a process of its own, for tests that kill it: `python interrupted.py DIR METHOD STEPS RESULT`.

Syncing a checkpoint is slowed, so that half of a run's life is spent in the middle of a write. The result
is written at the end alone; a line says when the loop is entered, and how far it had come.
"""

import os
import pathlib
import sys
import time
from functools import partial

import jax
import numpy as np
import optax

import hjcontrol as hj
from tests.solvers.problems import rings

ADAM = optax.adam(1e-2)
METHODS = {
    "minibatches": lambda: hj.solvers.Gradient(ADAM, batch_size=8),
    "newton": lambda: hj.solvers.Newton(tol=1e-13, switch=1e-2),
}


def run(method, steps, **options):
    """The run that the tests interrupt."""
    return hj.solve(rings(), METHODS[method](), key=jax.random.key(0), max_steps=steps, **options)


def bits(solution):
    """Everything of a solution that must not depend on how often it was interrupted."""
    leaves = [*jax.tree.leaves(solution.weights), solution.objective, solution.history.objective]
    leaves += [solution.history.stationarity, np.asarray(solution.stats["num_evals"])]
    return [np.asarray(a) for a in leaves]


def slow(sync, file):
    sync(file)
    time.sleep(0.05)
    sync(file)


if __name__ == "__main__":
    folder, method, steps, result = sys.argv[1:]
    jax.config.update("jax_enable_x64", True)
    os.fsync = partial(slow, os.fsync)
    progress = lambda step, *_: print(step, flush=True)
    place = hj.solvers.Checkpoint(folder, every=0)
    solution = run(method, int(steps), checkpoint=place, resume=True, progress=progress)
    np.savez(pathlib.Path(result), *bits(solution))

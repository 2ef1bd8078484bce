"""One of several processes that train on shards of one ensemble.

    python -m tests.devices.processes RANK COUNT PORT OUT

Each holds its own samples; rank 0 writes the weights to OUT, one array a leaf.
"""

import sys

import jax
import numpy as np
import optax
from jax.sharding import NamedSharding, PartitionSpec

import hjcontrol as hj

X = np.random.default_rng(0).normal(size=(16, 3))
Y = np.sin(X[:, :2])


def stated(x, y):
    stages = [hj.lift(3, 4), *[hj.Residual(hj.Dense(4, 4), 0.5)] * 2, hj.readout(4, 2)]
    return hj.ControlProblem(stages, x, y, terminal=hj.least_squares, running=hj.Ridge(0.01))


def trained(problem, start):
    return hj.solve(problem, hj.Gradient(optax.adam(1e-2)), init=start, max_steps=60)


def main(rank, count, port, out):
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"127.0.0.1:{port}", count, rank)
    mesh = jax.make_mesh((jax.device_count(),), ("samples",))  # its axes are Explicit
    layout = NamedSharding(mesh, PartitionSpec("samples"))
    own = lambda a: jax.make_array_from_process_local_data(layout, np.split(a, count)[rank])
    problem = stated(own(X), own(Y))
    start = problem.init(jax.random.key(0))
    solution = trained(problem, start)
    if rank == 0:
        leaves = jax.tree.leaves(solution.weights)
        np.savez(out, *[np.asarray(a.addressable_data(0)) for a in leaves])


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])

"""Run in a process of its own, with four virtual devices: prints a line of JSON for each question.

python -m tests.devices.meshes
"""

import json
import os

os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4"
)

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import hjcontrol as hj
from hjcontrol.control import backpropagate

jax.config.update("jax_enable_x64", True)
X = np.random.default_rng(0).normal(size=(16, 3))
Y = np.sin(X[:, :2])


def problem(place):
    stages = [hj.lift(3, 4), *[hj.Residual(hj.Dense(4, 4), 0.5)] * 2, hj.readout(4, 2)]
    return hj.ControlProblem(
        stages, place(X), place(Y), terminal=hj.least_squares, running=hj.Ridge(0.01)
    )


def streamed(place):
    """The same in two batches of a loader."""
    halves = lambda: ((place(X[s]), place(Y[s])) for s in (slice(0, 8), slice(8, 16)))
    chain = problem(jnp.asarray).chain
    return hj.ControlProblem(chain, halves, terminal=hj.least_squares, running=hj.Ridge(0.01))


def trained(solution):
    """The weights of its model's pieces."""
    return [theta for _, theta in solution.model]


def apart(a, b):
    """The largest difference of two trees."""
    gaps = jax.tree.map(lambda u, v: float(np.abs(np.asarray(u) - np.asarray(v)).max()), a, b)
    return max(jax.tree.leaves(gaps))


def main():
    alone = problem(jnp.asarray)
    start = alone.init(jax.random.key(0))
    first = backpropagate(alone, start)
    solver = hj.Gradient(optax.sgd(0.3))
    ended = hj.solve(alone, solver, init=start, max_steps=20)
    loaded = hj.solve(streamed(jnp.asarray), solver, init=start, max_steps=5)
    for kind in (AxisType.Auto, AxisType.Explicit):
        mesh = jax.make_mesh((4,), ("samples",), axis_types=(kind,))
        place = lambda a, s="samples", m=mesh: jax.device_put(a, NamedSharding(m, PartitionSpec(s)))
        sharded = problem(place)
        weights = jax.tree.map(lambda a: place(a, None), start)  # on the same mesh, replicated
        passed = backpropagate(sharded, weights)
        solved = hj.solve(sharded, solver, init=weights, max_steps=20)
        arrays, rest = eqx.partition(sharded, eqx.is_array)
        program = jax.jit(lambda a, w, r=rest: backpropagate(eqx.combine(a, r), w))
        program = program.lower(arrays, start).compile()
        gathering = jax.jit(lambda x: x[::-1] + 0 * x.sum(), out_shardings=place(X, None).sharding)
        told = {
            "kind": kind.name,
            "backpropagate": apart(first, passed),
            "solve": apart(ended.weights, solved.weights),
            "loader": apart(
                loaded.weights,
                hj.solve(streamed(place), solver, init=weights, max_steps=5).weights,
            ),
            "pieces": len(passed[1].final.addressable_shards),
            "rows": passed[1].final.addressable_shards[0].data.shape[0],
            "reduces": "all-reduce" in program.as_text(),
            "gathers": "all-gather" in program.as_text(),
            "twin gathers": "all-gather" in gathering.lower(sharded.inputs).compile().as_text(),
        }
        print(json.dumps(told), flush=True)
    mesh = jax.make_mesh((4,), ("samples",))
    with jax.set_mesh(mesh):  # and everything made on it
        layout = NamedSharding(mesh, PartitionSpec("samples"))
        sharded = problem(lambda a: jax.device_put(jnp.asarray(a), layout))
        solved = hj.solve(sharded, solver, init=sharded.init(jax.random.key(0)), max_steps=20)
        told = {
            "kind": "ambient",
            "solve": apart(ended.weights, solved.weights),
            "model": apart(trained(ended), trained(solved)),
            "sum": bool(jnp.isfinite(sum(jnp.sum(a) for a in jax.tree.leaves(solved.weights)))),
            "kept": jax.sharding.get_mesh() == mesh,
        }
        few = jax.make_mesh((2,), ("samples",))
        few = NamedSharding(few, PartitionSpec("samples"))
        try:
            hj.ControlProblem(
                [hj.readout(3, 2)],
                jax.device_put(jnp.asarray(X), layout),
                jax.device_put(jnp.asarray(Y), few),
                terminal=hj.least_squares,
            )
        except ValueError as error:
            told["two meshes"] = str(error)
        inside = jax.jit(lambda w: sharded.objective(w))
        try:
            inside(solved.weights)
        except ValueError as error:
            told["under jit"] = str(error)
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()

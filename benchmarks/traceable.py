"""Solves that are pure functions: sweeps, derivatives of solutions, a whole Hessian, several processes.

python benchmarks/traceable.py [sweep] [hypergradient] [region] [newton] [processes]
"""

import socket
import subprocess
import sys
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.optimize
from digits import digits
from harness import header, row
from jax.flatten_util import ravel_pytree

import hjcontrol as hj
from hjcontrol._ground.threads import one_blas_thread


def small(ridge=1e-3, seed=0, samples=200, width=4, sample=None, x=None):
    """A residual network of few weights on drawn data."""
    rng = np.random.default_rng(seed)
    drawn = rng.normal(size=(samples, 3))
    y = np.sin(2 * drawn[:, :1] * drawn[:, 1:2])
    sample = np.ones(samples) if sample is None else sample
    stages = [
        hj.lift(3, width),
        *[hj.Residual(hj.Dense(width, width), 0.5)] * 2,
        hj.readout(width, 1),
    ]
    weighted = lambda end, target: target[1] * hj.least_squares(end, target[0])
    inputs = drawn if x is None else x
    return hj.ControlProblem(
        stages, inputs, (y, sample), terminal=weighted, running=hj.Ridge(ridge)
    )


def sweep():
    """64 strengths: one vmapped program, and 64 solves that share theirs."""
    ridges = list(np.logspace(-2, 0, 64))
    for solver in (hj.Gradient(optax.lbfgs(), tol=1e-8), hj.Newton(tol=1e-10)):
        start = small().init(jax.random.key(0))
        hj.solve(small(ridges[0]), solver, init=start)  # compiles
        clock = time.perf_counter()
        each = [hj.solve(small(r), solver, init=start) for r in ridges]
        alone = time.perf_counter() - clock
        make = lambda ridge: (small(ridge), start)
        clock = time.perf_counter()
        hj.sweep(make, {"ridge": ridges}, solver)
        cold = time.perf_counter() - clock
        together = jax.jit(jax.vmap(lambda r: hj.solvers.run(small(r), solver, start)))
        jax.block_until_ready(together(jnp.asarray(ridges)))
        clock = time.perf_counter()
        found = jax.block_until_ready(together(jnp.asarray(ridges)))
        warm = time.perf_counter() - clock
        gap = np.abs(np.asarray(found.objective) - [float(s.objective) for s in each]).max()
        row(
            what="sweep of 64 ridges",
            solver=solver.name,
            solves_seconds=alone,
            of_which_solving=sum(s.stats["solve_seconds"] for s in each),
            sweep_cold_seconds=cold,
            vmapped_warm_seconds=warm,
            faster_warm=alone / warm,
            faster_cold=alone / cold,
            objective_gap=float(gap),
            stationarity=float(found.stationarity.max()),
        )


def hypergradient():
    """d(held-out cost)/d(ridge, sample weights, data) against central differences."""
    held = small(seed=1)
    start, n = small().init(jax.random.key(0)), 200
    solver = hj.Newton(tol=1e-11)

    def solved(start, ridge, sample, x):
        return hj.solvers.run(small(ridge, sample=sample, x=x), solver, start, 5000).weights

    value = lambda *given: held.objective(solved(*given))
    both = jax.jit(jax.value_and_grad(value, argnums=(1, 2, 3)))
    at = [jnp.asarray(2e-3), jnp.ones(n), jnp.asarray(small().inputs)]
    start = jax.jit(solved)(start, *at)  # so that all solves stay at one minimum of several
    slopes = both(start, *at)[1]
    for k, name in enumerate(("ridge", "sample weights", "data")):
        way = jnp.cos(jnp.arange(at[k].size, dtype=float)).reshape(at[k].shape)
        h = 1e-4 if k else 1e-6

        def there(t, k=k, way=way):
            return both(start, *[a + t * way if i == k else a for i, a in enumerate(at)])[0]

        once, twice = (there(s) - there(-s) for s in (h, 2 * h))
        central, slope = (8 * once - twice) / (12 * h), jnp.sum(slopes[k] * way)
        row(
            what="hypergradient",
            of=name,
            slope=float(slope),
            relative=float(abs(slope / central - 1)),
        )


def region():
    """Newton with the whole Hessian against SciPy's trust-exact, from the same starts."""
    for ridge in (1e-2,):
        problem = small(ridge, samples=400, width=5)
        for seed in range(3):
            start = problem.init(jax.random.key(seed))
            flat, unravel = ravel_pytree(start)
            J = lambda v, p=problem, u=unravel: p.objective(u(v))
            slope, bend = jax.jit(jax.value_and_grad(J)), jax.jit(jax.hessian(J))
            jax.block_until_ready((slope(flat), bend(flat)))
            with one_blas_thread():
                clock = time.perf_counter()
                found = scipy.optimize.minimize(
                    lambda v, f=slope: tuple(map(np.asarray, f(v))),
                    np.asarray(flat),
                    jac=True,
                    hess=lambda v, f=bend: np.asarray(f(v)),
                    method="trust-exact",
                    options={"gtol": 1e-10, "maxiter": 3000},
                )
                seconds = time.perf_counter() - clock
            solution = hj.solve(problem, hj.Newton(tol=1e-10), init=start)
            s = solution.stats
            row(
                what="whole Hessian",
                weights=flat.size,
                ridge=ridge,
                seed=seed,
                scipy_seconds=seconds,
                seconds=s["solve_seconds"],
                ratio=s["solve_seconds"] / seconds,
                scipy_objective=float(found.fun),
                objective=s["objective"],
                scipy_stationarity=float(np.abs(found.jac).max()),
                stationarity=s["stationarity"],
            )


def newton():
    """Newton to 1e-10 against L-BFGS to 1e-7: full digits, three starts."""
    problem = digits()
    ratios = []
    for seed in range(3):
        start = problem.init(jax.random.key(seed))
        solvers = hj.Newton(tol=1e-10), hj.Gradient(optax.lbfgs(), tol=1e-7)
        stats = [hj.solve(problem, m, init=start, max_steps=20000).stats for m in solvers]
        ratios.append(stats[0]["solve_seconds"] / stats[1]["solve_seconds"])
        for name, s in zip(("newton 1e-10", "lbfgs 1e-7"), stats, strict=True):
            kept = ("objective", "stationarity", "num_steps", "num_evals", "solve_seconds")
            row(what=name, seed=seed, **{k: s[k] for k in kept})
    row(what="newton / lbfgs", median=float(np.median(ratios)), all=str(np.round(ratios, 3)))


def one_of(rank, count, port, out):
    """A process of several: digits, each with its own part of the samples."""
    from jax.sharding import NamedSharding, PartitionSpec

    if count > 1:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(f"127.0.0.1:{port}", count, rank)
    whole = digits(samples=1796)
    layout = NamedSharding(
        jax.make_mesh((jax.device_count(),), ("samples",)), PartitionSpec("samples")
    )
    own = lambda a: jax.make_array_from_process_local_data(
        layout, np.split(np.asarray(a), count)[rank]
    )
    problem = hj.ControlProblem(
        whole.chain,
        own(whole.inputs),
        own(whole.targets),
        terminal=whole.terminal,
        running=whole.running,
    )
    solver = hj.Gradient(optax.adam(1e-2))
    solution = hj.solve(problem, solver, init=whole.init(jax.random.key(0)), max_steps=200)
    if rank == 0:
        leaves = [np.asarray(a.addressable_data(0)) for a in jax.tree.leaves(solution.weights)]
        np.savez(out, *leaves, seconds=solution.stats["solve_seconds"])


def processes():
    """Two processes against one: the same weights."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for count in (1, 2):
            with socket.socket() as door:
                door.bind(("127.0.0.1", 0))
                port = door.getsockname()[1]
            out = f"{folder}/{count}.npz"
            words = [
                [sys.executable, __file__, "one", *map(str, (r, count, port, out))]
                for r in range(count)
            ]
            for process in [subprocess.Popen(w) for w in words]:
                if process.wait():
                    raise SystemExit("a process failed")
            with np.load(out) as file:
                found.append({k: file[k] for k in file.files})
    gap = max(np.abs(found[0][k] - found[1][k]).max() for k in found[0] if k != "seconds")
    seconds = [float(f["seconds"]) for f in found]
    row(
        what="2 processes against 1",
        steps=200,
        weights_apart=float(gap),
        one=seconds[0],
        two=seconds[1],
    )


def main() -> None:
    if sys.argv[1:2] == ["one"]:
        return one_of(*map(int, sys.argv[2:5]), sys.argv[5])
    header("Traceable solves")
    parts = (sweep, hypergradient, region, newton, processes)
    wanted = sys.argv[1:] or [p.__name__ for p in parts]
    for part in parts:
        if part.__name__ in wanted:
            part()
    return None


if __name__ == "__main__":
    main()

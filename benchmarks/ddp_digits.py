"""DDP and Gauss-Newton on digits, width 16, depth 8, against L-BFGS from the same start.

How many iterations reach the objective where L-BFGS ends (and 0.1 % and 1 % above it: the problem has
many minima, and each method ends in one of its own), and the seconds of both. An iteration of `newton`
and `gauss-newton` is one of their steps, cheap ones of L-BFGS at the beginning included.
Peers: SciPy's L-BFGS-B on the same jitted gradient, with 20 corrections.
"""

import argparse
import time

import jax
import numpy as np
import scipy.optimize
from digits import digits
from harness import header, row
from jax.flatten_util import ravel_pytree
from threadpoolctl import threadpool_limits

import hjcontrol as hj

ABOVE = (1.0, 1.001, 1.01)  # times the objective where L-BFGS ends


def lbfgs(
    problem: hj.ControlProblem, start, iterations: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Objective and seconds after every iteration; the last stationarity is printed."""
    flat, unravel = ravel_pytree(start)
    both = jax.jit(jax.value_and_grad(lambda t: problem.objective(unravel(t))))
    jax.block_until_ready(both(flat))
    objective, seconds = [float(both(flat)[0])], [0.0]
    clock = time.perf_counter()

    def record(intermediate_result: scipy.optimize.OptimizeResult) -> None:
        objective.append(float(intermediate_result.fun))
        seconds.append(time.perf_counter() - clock)

    with threadpool_limits(1, user_api="blas"):
        found = scipy.optimize.minimize(
            lambda t: tuple(np.asarray(a) for a in both(t)),
            np.asarray(flat),
            jac=True,
            method="L-BFGS-B",
            callback=record,
            options={
                "maxiter": iterations,
                "maxfun": 2 * iterations,
                "gtol": 1e-7,
                "ftol": 0.0,
                "maxcor": 20,
            },
        )
    row(
        seed=seed,
        method="scipy L-BFGS-B",
        objective=objective[-1],
        stationarity=float(np.max(np.abs(found.jac))),
        iterations=len(objective) - 1,
        evaluations=int(found.nfev),
        seconds=seconds[-1],
    )
    return np.asarray(objective), np.asarray(seconds)


METHODS = {
    "ddp": hj.solvers.Riccati(curvature="ddp", tol=1e-9),
    "riccati": hj.solvers.Riccati(tol=1e-9),
    "newton": hj.solvers.Newton(tol=1e-9),
    "newton, no cheap steps before": hj.solvers.Newton(tol=1e-9, switch=1.0),
    "gauss-newton": hj.solvers.Newton(curvature="gauss_newton", tol=1e-9),
}


def reached(history, objective: float) -> tuple[int | None, float | None]:
    """The first iteration at or under `objective`, and its seconds."""
    hit = np.flatnonzero(history.objective <= objective)
    return (int(hit[0]), float(history.seconds[hit[0]])) if hit.size else (None, None)


def main(seeds: list[int], iterations: int, steps: dict[str, int]) -> None:
    header("Full digits: 1797 samples, width 16, depth 8, ridge 1e-3")
    problem = digits()
    for seed in seeds:
        start = problem.init(jax.random.key(seed))
        peer, peer_seconds = lbfgs(problem, start, iterations, seed)
        last = len(peer) - 1
        for name, limit in steps.items():
            solution = hj.solve(problem, METHODS[name], init=start, max_steps=limit)
            row(
                seed=seed,
                method=name,
                objective=solution.stats["objective"],
                over_lbfgs=solution.stats["objective"] / peer[-1] - 1,
                stationarity=solution.stats["stationarity"],
                iterations=solution.stats["num_steps"],
                evaluations=solution.stats["num_evals"],
                compile_seconds=solution.stats["compile_seconds"],
                seconds=solution.stats["solve_seconds"],
                result=str(hj.RESULTS[solution.result])[:40] or "successful",
            )
            for above in ABOVE:
                goal = above * peer[-1]
                by, by_seconds = reached(solution.history, goal)
                of_lbfgs = int(np.argmax(peer <= goal))
                row(
                    seed=seed,
                    method=name,
                    goal=f"{above} times where L-BFGS ends",
                    iterations=by,
                    seconds=by_seconds,
                    iterations_of_lbfgs=of_lbfgs,
                    seconds_of_lbfgs=float(peer_seconds[of_lbfgs]),
                    iterations_of_lbfgs_in_all=last,
                )


if __name__ == "__main__":
    options = argparse.ArgumentParser()
    options.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    options.add_argument("--sweeps", type=int, default=150, help="most of DDP and Riccati")
    options.add_argument("--lbfgs", type=int, default=10_000, help="most iterations of the peer")
    given = options.parse_args()
    most = {name: given.sweeps if name in ("ddp", "riccati") else 3000 for name in given.methods}
    main(given.seeds, given.lbfgs, most)

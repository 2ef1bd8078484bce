"""DDP and Gauss-Newton (iLQR) on digits, width 16, depth 8, against L-BFGS from the same start.

How many sweeps reach the objective that L-BFGS has after so many iterations, and the seconds of both.
Peers: SciPy's L-BFGS-B on the same jitted gradient, with 20 corrections.
"""

import sys
import time

import jax
import numpy as np
import scipy.optimize
from digits import digits
from harness import header, row
from jax.flatten_util import ravel_pytree
from threadpoolctl import threadpool_limits

import hjcontrol as hj

LEVELS = (100, 300, 1000, 3000)  # iterations of L-BFGS, besides its last


def lbfgs(problem: hj.ControlProblem, start, iterations: int) -> tuple[np.ndarray, np.ndarray]:
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
        method="scipy L-BFGS-B",
        objective=objective[-1],
        stationarity=float(np.max(np.abs(found.jac))),
        iterations=len(objective) - 1,
        evaluations=int(found.nfev),
        seconds=seconds[-1],
    )
    return np.asarray(objective), np.asarray(seconds)


def main(seeds: int, iterations: int, sweeps: int) -> None:
    header("Full digits: 1797 samples, width 16, depth 8, ridge 1e-3")
    problem = digits()
    for seed in range(seeds):
        start = problem.init(jax.random.key(seed))
        peer, peer_seconds = lbfgs(problem, start, iterations)
        for curvature in ("ddp", "gauss_newton"):
            method = hj.solvers.Riccati(curvature=curvature, tol=1e-9)
            solution = hj.solve(problem, method, init=start, max_steps=sweeps)
            row(
                seed=seed,
                method=solution.solver,
                objective=solution.stats["objective"],
                stationarity=solution.stats["stationarity"],
                sweeps=solution.stats["num_steps"],
                evaluations=solution.stats["num_evals"],
                compile_seconds=solution.stats["compile_seconds"],
                seconds=solution.stats["solve_seconds"],
                result=str(hj.RESULTS[solution.result])[:40] or "successful",
            )
            history = solution.history
            last = len(peer) - 1
            for level in sorted({*(n for n in LEVELS if n < last), last}):
                reached = np.flatnonzero(history.objective <= peer[level])
                first = int(reached[0]) if reached.size else None
                row(
                    seed=seed,
                    method=solution.solver,
                    objective_of_lbfgs=float(peer[level]),
                    iterations_of_lbfgs=int(level),
                    seconds_of_lbfgs=float(peer_seconds[level]),
                    sweeps=first,
                    seconds=None if first is None else float(history.seconds[first]),
                )


if __name__ == "__main__":
    given = [int(a) for a in sys.argv[1:]]
    main(*(given + [3, 10_000, 150][len(given) :]))

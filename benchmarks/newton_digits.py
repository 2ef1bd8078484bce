"""Newton to 1e-10 against optax.lbfgs to 1e-7 and SciPy's L-BFGS-B, from the same start."""

import time

import jax
import numpy as np
import optax
import scipy.optimize
from digits import digits
from harness import header, row
from jax.flatten_util import ravel_pytree

import hjcontrol as hj


def scipy_lbfgs(problem: hj.ControlProblem, start) -> None:
    flat, unravel = ravel_pytree(start)
    both = jax.jit(jax.value_and_grad(lambda t: problem.objective(unravel(t))))
    jax.block_until_ready(both(flat))
    clock = time.perf_counter()
    found = scipy.optimize.minimize(
        lambda t: tuple(np.asarray(a) for a in both(t)),
        np.asarray(flat),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 20000, "maxfun": 20000, "gtol": 1e-7, "ftol": 0.0, "maxcor": 10},
    )
    row(
        method="scipy L-BFGS-B",
        objective=float(found.fun),
        stationarity=float(np.max(np.abs(found.jac))),
        steps=int(found.nit),
        evaluations=int(found.nfev),
        solve_seconds=time.perf_counter() - clock,
    )


def main() -> None:
    header("Full digits: 1797 samples, width 16, depth 8, ridge 1e-3")
    problem = digits()
    for seed in range(3):
        start = problem.init(jax.random.key(seed))
        for solver in (
            hj.solvers.Gradient(LBFGS, tol=1e-7),
            hj.solvers.Newton(tol=1e-10),
        ):
            solution = hj.solve(problem, solver, init=start, max_steps=20000)
            s = solution.stats
            row(
                seed=seed,
                method=solution.solver,
                objective=s["objective"],
                stationarity=s["stationarity"],
                steps=s["num_steps"],
                evaluations=s["num_evals"],
                compile_seconds=s["compile_seconds"],
                solve_seconds=s["solve_seconds"],
                success=bool(solution.result == hj.RESULTS.successful),
            )
        scipy_lbfgs(problem, start)


LBFGS = optax.lbfgs()

if __name__ == "__main__":
    main()
